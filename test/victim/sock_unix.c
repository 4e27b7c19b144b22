/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: unix sockets: pairs, names, listening with connections that wait, unread data, halves. */
#include "victim.h"

#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BIG_PAGES 40

static int stream[2], packet[2], datagram[2], big[2], half[2], over[2], reset_end, ended;
static int listener, accepted, client, abstract_listener, unlinked, unlinked_accepted,
	unlinked_client;
static int receiver, sender, log_like, echo[2], stray;
static int moved; /* listens; its file was renamed */
static struct sockaddr_un moved_from, moved_to;
static socklen_t moved_len;
static struct sockaddr_un name, abstract_name, unlinked_name, receiver_name, sender_name;
static socklen_t name_len, abstract_len, unlinked_len, receiver_len, sender_len;
static struct stat name_file;
static uint64_t rounds;

static socklen_t make_name(struct sockaddr_un *sa, const char *suffix, bool abstract)
{
	const char *path = victim_path(suffix);
	size_t len = strlen(path);

	memset(sa, 0, sizeof *sa);
	sa->sun_family = AF_UNIX;
	if (len + 2 > sizeof sa->sun_path)
		victim_skip("the test's directory has too long a name");
	memcpy(sa->sun_path + abstract, path, len);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
}

static int bound(int type, const struct sockaddr_un *sa, socklen_t len, int backlog)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	check_sys(fd >= 0);
	if (sa->sun_path[0])
		(void)unlink(sa->sun_path);
	check_sys(bind(fd, (const void *)sa, len) == 0);
	if (backlog)
		check_sys(listen(fd, backlog) == 0);
	return fd;
}

static int connected(int type, const struct sockaddr_un *sa, socklen_t len)
{
	int fd = socket(AF_UNIX, type, 0);

	check_sys(fd >= 0);
	check(connect(fd, (const void *)sa, len) == 0, "connect: %s", strerror(errno));
	return fd;
}

static void put(int fd, const char *text)
{
	ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);

	check(n == (ssize_t)strlen(text), "send of '%s': %s", text, strerror(errno));
}

static void get(const char *what, int fd, const char *want)
{
	char buf[256];
	ssize_t n = recv(fd, buf, sizeof buf - 1, MSG_DONTWAIT);

	check(n >= 0, "%s: %s", what, strerror(errno));
	buf[n] = '\0';
	check(!strcmp(buf, want), "%s has '%s', should be '%s'", what, buf, want);
}

static void get_error(const char *what, int fd, int want)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);

	check(n == -1 && errno == want, "%s: %zd %s, should be %s", what, n, strerror(errno),
	      strerror(want));
}

/* --- setting up ------------------------------------------------------------------------------- */

static void put_pairs(void)
{
	put(stream[0], "to the right");
	put(stream[1], "to the left");
	put(packet[0], "one");
	put(packet[0], "two two");
	put(packet[1], "back");
	put(datagram[0], "first");
	put(datagram[0], "second datagram");
	put(datagram[1], "answer");
}

static void put_big(void)
{
	static char page[PAGE];

	for (unsigned i = 0; i < BIG_PAGES; i++) {
		page_fill(page, rounds * 1000 + i);
		check_sys(send(big[0], page, PAGE, MSG_DONTWAIT) == (ssize_t)PAGE);
	}
}

static void make_pairs(void)
{
	int pair[2];

	check_sys(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) == 0 &&
		  socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packet) == 0 &&
		  socketpair(AF_UNIX, SOCK_DGRAM, 0, datagram) == 0 &&
		  socketpair(AF_UNIX, SOCK_STREAM, 0, big) == 0 &&
		  socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0 &&
		  socketpair(AF_UNIX, SOCK_STREAM, 0, over) == 0 &&
		  socketpair(AF_UNIX, SOCK_STREAM, 0, echo) == 0);
	check_sys(fcntl(stream[1], F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	put_pairs();
	put_big();
	put(half[0], "before the end");
	check_sys(shutdown(half[0], SHUT_WR) == 0);
	/* closed by the other end, which left something behind, and had something unread itself */
	check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	put(pair[1], "last words");
	check_sys(close(pair[1]) == 0);
	ended = pair[0];
	check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	put(pair[0], "never read");
	check_sys(close(pair[1]) == 0);
	reset_end = pair[0];
}

static void make_listeners(void)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof peer;

	name_len = make_name(&name, "sock", false);
	listener = bound(SOCK_STREAM, &name, name_len, 7);
	/* as a service does that is to be reached by others */
	if (geteuid() == 0)
		check_sys(lchown(name.sun_path, 1001, 1002) == 0);
	check_sys(chmod(name.sun_path, 0705) == 0);
	check_sys(stat(name.sun_path, &name_file) == 0);
	client = connected(SOCK_STREAM, &name, name_len);
	accepted = accept(listener, (void *)&peer, &len);
	check_sys(accepted >= 0);
	put(client, "a request");
	put(accepted, "an answer");
	abstract_len = make_name(&abstract_name, "abstract", true);
	abstract_listener = bound(SOCK_SEQPACKET, &abstract_name, abstract_len, 3);
	unlinked_len = make_name(&unlinked_name, "gone", false);
	unlinked = bound(SOCK_STREAM, &unlinked_name, unlinked_len, 3);
	unlinked_client = connected(SOCK_STREAM, &unlinked_name, unlinked_len);
	unlinked_accepted = accept(unlinked, NULL, NULL);
	check_sys(unlinked_accepted >= 0 && unlink(unlinked_name.sun_path) == 0);
	check_sys(close(unlinked) == 0);
	moved_len = make_name(&moved_from, "before", false);
	(void)make_name(&moved_to, "after", false);
	moved = bound(SOCK_STREAM, &moved_from, moved_len, 3);
	check_sys(chmod(moved_from.sun_path, 0710) == 0);
	check_sys(rename(moved_from.sun_path, moved_to.sun_path) == 0);
}

static void put_datagrams(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct sockaddr_un sa;
	socklen_t len = make_name(&sa, "gone.sender", true);

	put(sender, "from one with a name");
	check_sys(fd >= 0 && bind(fd, (void *)&sa, len) == 0);
	check_sys(sendto(fd, "from one who is gone", 20, 0, (void *)&receiver_name, receiver_len) ==
		  20);
	check_sys(close(fd) == 0);
	check_sys(sendto(datagram[0], "from one without", 16, 0, (void *)&receiver_name,
			 receiver_len) == 16);
}

/* Connected to one who has gone, as syslog(3) is when the daemon restarts; found out only once. */
static void make_log_like(void)
{
	struct sockaddr_un sa;
	socklen_t len = make_name(&sa, "log", true);
	int fd = bound(SOCK_DGRAM, &sa, len, 0);

	log_like = connected(SOCK_DGRAM, &sa, len);
	check_sys(close(fd) == 0);
}

static void make_datagrams(void)
{
	receiver_len = make_name(&receiver_name, "dgram", false);
	sender_len = make_name(&sender_name, "sender", true);
	receiver = bound(SOCK_DGRAM, &receiver_name, receiver_len, 0);
	sender = bound(SOCK_DGRAM, &sender_name, sender_len, 0);
	check_sys(connect(sender, (void *)&receiver_name, receiver_len) == 0);
	put_datagrams();
	make_log_like();
	stray = socket(AF_UNIX, SOCK_STREAM, 0);
	check_sys(stray >= 0);
}

/* --- verifying -------------------------------------------------------------------------------- */

static void check_name(const char *what, int fd, bool of_peer, const struct sockaddr_un *want,
		       socklen_t want_len)
{
	struct sockaddr_un sa;
	socklen_t len = sizeof sa;

	memset(&sa, 0, sizeof sa);
	check_sys((of_peer ? getpeername(fd, (void *)&sa, &len)
			   : getsockname(fd, (void *)&sa, &len)) == 0);
	check(len == want_len && !memcmp(&sa, want, len), "%s: the name is '%s%s' (%u, not %u)",
	      what, sa.sun_path, sa.sun_path + 1, len, want_len);
}

static void check_pairs(void)
{
	static char page[PAGE];

	get("stream", stream[1], "to the right");
	get("stream", stream[0], "to the left");
	get("packet", packet[1], "one");
	get("packet", packet[1], "two two");
	get_error("packet", packet[1], EAGAIN);
	get("packet", packet[0], "back");
	get("datagram", datagram[1], "first");
	get("datagram", datagram[1], "second datagram");
	get_error("datagram", datagram[1], EAGAIN);
	get("datagram", datagram[0], "answer");
	put_pairs();
	for (unsigned i = 0; i < BIG_PAGES; i++) {
		check_sys(recv(big[1], page, PAGE, MSG_WAITALL) == (ssize_t)PAGE);
		check(page_is(page, rounds * 1000 + i), "page %u of the big one", i);
	}
	get_error("big", big[1], EAGAIN);
	rounds++;
	put_big();
	check(fcntl(stream[1], F_GETFL) == (O_RDWR | O_NONBLOCK), "flags of a pair");
	check(fcntl(stream[0], F_GETFD) == FD_CLOEXEC && fcntl(packet[0], F_GETFD) == 0,
	      "FD_CLOEXEC");
}

/* What was left behind can be read once only. */
static void check_ends(void)
{
	struct pollfd p = { .fd = ended, .events = POLLIN };

	check(poll(&p, 1, 0) == 1 && (p.revents & POLLHUP), "poll of a closed one: %x", p.revents);
	get("half", half[1], rounds == 1 ? "before the end" : "");
	check(send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "the half that is shut");
	put(half[1], "the other way");
	get("half", half[0], "the other way");
	get("ended", ended, rounds == 1 ? "last words" : "");
	check(send(ended, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "send to a closed one: %s",
	      strerror(errno));
	if (rounds == 1)
		get_error("reset", reset_end, ECONNRESET);
	else
		get("reset", reset_end, "");
	check(send(log_like, "x", 1, MSG_NOSIGNAL) == -1 && errno == ECONNREFUSED,
	      "send to a daemon that has gone: %s", strerror(errno));
	check_sys(close(log_like) == 0);
	make_log_like();
	get_error("stray", stray, EINVAL);
}

/* It is reached by the name that its file has now, and says the one that it was bound to. */
static void check_moved(void)
{
	struct stat st;
	int fd, one;

	check_name("moved", moved, false, &moved_from, moved_len);
	check(access(moved_from.sun_path, F_OK) != 0, "the name before is there");
	check_sys(stat(moved_to.sun_path, &st) == 0);
	check(st.st_mode == (S_IFSOCK | 0710), "moved: mode %o", st.st_mode);
	fd = connected(SOCK_STREAM, &moved_to, sizeof moved_to);
	one = accept(moved, NULL, NULL);
	check_sys(one >= 0);
	put(fd, "hello");
	get("moved", one, "hello");
	check_sys(close(fd) == 0 && close(one) == 0);
}

static void check_listeners(void)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof peer;
	struct stat st;
	int fd, one;

	check_name("listener", listener, false, &name, name_len);
	check_name("accepted", accepted, false, &name, name_len);
	check_name("client", client, true, &name, name_len);
	check_name("abstract", abstract_listener, false, &abstract_name, abstract_len);
	check_name("unlinked", unlinked_accepted, false, &unlinked_name, unlinked_len);
	check_name("unlinked client", unlinked_client, true, &unlinked_name, unlinked_len);
	check(access(unlinked_name.sun_path, F_OK) != 0, "the unlinked name is there");
	check_sys(stat(name.sun_path, &st) == 0);
	check(st.st_mode == (S_IFSOCK | 0705), "mode %o", st.st_mode);
	check(st.st_uid == name_file.st_uid && st.st_gid == name_file.st_gid, "owner %u:%u",
	      st.st_uid, st.st_gid);
	get("accepted", accepted, "a request");
	get("client", client, "an answer");
	put(client, "a request");
	put(accepted, "an answer");
	put(unlinked_client, "ping");
	get("unlinked", unlinked_accepted, "ping");
	/* whoever connects by the name gets through */
	fd = connected(SOCK_SEQPACKET, &abstract_name, abstract_len);
	one = accept(abstract_listener, (void *)&peer, &len);
	check_sys(one >= 0);
	put(fd, "hello");
	get("abstract", one, "hello");
	check_sys(close(fd) == 0 && close(one) == 0);
	check_moved();
}

/* Connections that nobody has accepted: their order is known by the clients' names. */
static int waiting[3];

static void make_waiting(void)
{
	for (unsigned i = 0; i < COUNT_OF(waiting); i++) {
		struct sockaddr_un sa;
		char suffix[32];
		socklen_t len;

		(void)snprintf(suffix, sizeof suffix, "waiting%u", i);
		len = make_name(&sa, suffix, true);
		waiting[i] = bound(SOCK_STREAM, &sa, len, 0);
		check_sys(connect(waiting[i], (void *)&name, name_len) == 0);
	}
}

static void check_waiting(void)
{
	for (unsigned i = 0; i < COUNT_OF(waiting); i++) {
		struct sockaddr_un sa;
		char suffix[32];
		socklen_t len;
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

		check(fd >= 0, "accept of %u: %s", i, strerror(errno));
		(void)snprintf(suffix, sizeof suffix, "waiting%u", i);
		len = make_name(&sa, suffix, true);
		check_name("waiting", fd, true, &sa, len);
		put(waiting[i], "late");
		get("late", fd, "late");
		put(fd, "welcome");
		get("waiting", waiting[i], "welcome");
		check_sys(close(fd) == 0 && close(waiting[i]) == 0);
	}
	check_sys(fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	check(accept(listener, NULL, NULL) == -1 && errno == EAGAIN, "one too many");
	check_sys(fcntl(listener, F_SETFL, O_RDWR) == 0);
	make_waiting();
}

static void get_from(const char *want, const struct sockaddr_un *from, socklen_t from_len)
{
	char buf[256];
	struct sockaddr_un sa;
	socklen_t len = sizeof sa;
	ssize_t n;

	memset(&sa, 0, sizeof sa);
	n = recvfrom(receiver, buf, sizeof buf - 1, MSG_DONTWAIT, (void *)&sa, &len);
	check_sys(n >= 0);
	buf[n] = '\0';
	check(!strcmp(buf, want), "a datagram '%s', should be '%s'", buf, want);
	check(len == from_len && !memcmp(&sa, from, len), "'%s' came from '%s'", want,
	      sa.sun_path + 1);
}

static void check_datagrams(void)
{
	struct sockaddr_un gone, none = { 0 };
	socklen_t len = make_name(&gone, "gone.sender", true);

	get_from("from one with a name", &sender_name, sender_len);
	get_from("from one who is gone", &gone, len);
	get_from("from one without", &none, 0);
	put_datagrams();
	check_name("receiver", receiver, false, &receiver_name, receiver_len);
	check_name("sender", sender, true, &receiver_name, receiver_len);
}

/* --- threads that wait ------------------------------------------------------------------------ */

static int echo_listener;
static struct sockaddr_un echo_name;
static socklen_t echo_len;

static void *serve(void *arg)
{
	(void)arg;
	for (;;) {
		char buf[64];
		int fd = accept(echo_listener, NULL, NULL);
		ssize_t n;

		check(fd >= 0, "accept in a thread: %s", strerror(errno));
		n = read(fd, buf, sizeof buf);
		check(n > 0 && write(fd, buf, (size_t)n) == n, "echo");
		check_sys(close(fd) == 0);
	}
	return NULL;
}

static void *reflect(void *arg)
{
	(void)arg;
	for (;;) {
		char buf[64];
		struct pollfd p = { .fd = echo[1], .events = POLLIN };
		ssize_t n;

		check(poll(&p, 1, -1) == 1, "poll in a thread: %s", strerror(errno));
		n = recv(echo[1], buf, sizeof buf, 0);
		check(n > 0 && write(echo[1], buf, (size_t)n) == n, "reflect: %zd %s", n,
		      strerror(errno));
	}
	return NULL;
}

static void check_threads(void)
{
	char buf[64];
	int fd = connected(SOCK_STREAM, &echo_name, echo_len);

	put(fd, "served");
	check(recv(fd, buf, sizeof buf, 0) == 6 && !memcmp(buf, "served", 6), "served");
	check_sys(close(fd) == 0);
	put(echo[0], "reflected");
	check(recv(echo[0], buf, sizeof buf, 0) == 9 && !memcmp(buf, "reflected", 9), "reflected");
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	make_pairs();
	make_listeners();
	make_waiting();
	make_datagrams();
	echo_len = make_name(&echo_name, "echo", false);
	echo_listener = bound(SOCK_STREAM, &echo_name, echo_len, 5);
	(void)thread_start(serve, NULL);
	(void)thread_start(reflect, NULL);
	victim_ready();
	while (victim_wait()) {
		check_pairs();
		check_ends();
		check_listeners();
		check_waiting();
		check_datagrams();
		check_threads();
		victim_ok();
	}
	return 0;
}
