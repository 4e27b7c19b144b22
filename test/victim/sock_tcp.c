/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: TCP over loopback (argv[2]: 4, 6 or mapped): connections, queues, halves, accept. */
#include "victim.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define BIG_BYTES (3u << 20)

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

static const char *variant;
static int listener, client, accepted, half[2], full[2], corked[2], ended, fresh, waiting[3];
static struct address listener_addr;
static uint64_t rounds;
static size_t big_sent;

static struct address loopback(bool any)
{
	struct address a = { 0 };

	if (!strcmp(variant, "6")) {
		struct sockaddr_in6 *sa = (void *)&a.sa;

		sa->sin6_family = AF_INET6;
		sa->sin6_addr = any ? in6addr_any : in6addr_loopback;
		a.len = sizeof *sa;
	} else {
		struct sockaddr_in *sa = (void *)&a.sa;

		sa->sin_family = AF_INET;
		sa->sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
		a.len = sizeof *sa;
	}
	return a;
}

static struct address name_of(int fd, bool peer)
{
	struct address a = { .len = sizeof a.sa };

	check_sys((peer ? getpeername(fd, (void *)&a.sa, &a.len)
			: getsockname(fd, (void *)&a.sa, &a.len)) == 0);
	return a;
}

static unsigned port_of(const struct address *a)
{
	return ntohs(((const struct sockaddr_in *)(const void *)&a->sa)->sin_port);
}

static int new_socket(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0)
		victim_skip("no sockets of that kind: %s", strerror(errno));
	check_sys(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
	return fd;
}

/* mapped: the listening socket is of IPv6 and takes IPv4 too. */
static void make_listener(void)
{
	struct address a = loopback(true);
	int on = 1, off = 0;

	if (!strcmp(variant, "mapped")) {
		struct sockaddr_in6 sa = { .sin6_family = AF_INET6 };

		listener = new_socket(AF_INET6);
		check_sys(setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0);
		memcpy(&a.sa, &sa, sizeof sa);
		a.len = sizeof sa;
	} else {
		listener = new_socket(a.sa.ss_family);
	}
	check_sys(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
	if (bind(listener, (void *)&a.sa, a.len) != 0)
		victim_skip("no address of that kind: %s", strerror(errno));
	check_sys(setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);
	check_sys(listen(listener, 6) == 0);
	listener_addr = name_of(listener, false);
}

static int connected(void)
{
	struct address a = loopback(false);
	int fd = new_socket(a.sa.ss_family);

	((struct sockaddr_in *)(void *)&a.sa)->sin_port = htons((uint16_t)port_of(&listener_addr));
	check(connect(fd, (void *)&a.sa, a.len) == 0, "connect: %s", strerror(errno));
	return fd;
}

static void make_pair(int pair[2])
{
	pair[0] = connected();
	pair[1] = accept(listener, NULL, NULL);
	check_sys(pair[1] >= 0);
}

static void put(int fd, const char *text)
{
	ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);

	check(n == (ssize_t)strlen(text), "send of '%s': %s", text, strerror(errno));
}

static void get(const char *what, int fd, const char *want)
{
	char buf[256];
	size_t len = strlen(want), got = 0;
	ssize_t n;

	do {
		n = recv(fd, buf + got, len ? len - got : 1, 0);
		check(n >= 0, "%s: %s", what, strerror(errno));
		got += (size_t)n;
	} while (n > 0 && got < len);
	buf[got] = '\0';
	check(!strcmp(buf, want), "%s has '%s', should be '%s'", what, buf, want);
}

/* More than the other end has room for: most of it waits on this side. */
static void put_big(void)
{
	static char page[PAGE];
	size_t sent = 0;

	for (unsigned i = 0; sent < BIG_BYTES; i++) {
		size_t at = 0;

		page_fill(page, rounds * 100000 + i);
		while (at < PAGE) {
			ssize_t n = send(full[0], page + at, PAGE - at, MSG_DONTWAIT);

			if (n < 0 && errno == EAGAIN && !at)
				goto done;
			if (n < 0)
				sleep_ms(1);
			else
				at += (size_t)n;
		}
		sent += PAGE;
	}
done:
	check(sent > PAGE * 4, "only %zu bytes", sent);
	big_sent = sent;
	put(corked[0], "held back");
}

static void get_big(void)
{
	static char page[PAGE];

	for (unsigned i = 0; i < big_sent / PAGE; i++) {
		check_sys(recv(full[1], page, PAGE, MSG_WAITALL) == (ssize_t)PAGE);
		check(page_is(page, rounds * 100000 + i), "page %u of the big one", i);
	}
	check(recv(full[1], page, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "more than was sent");
}

static void put_all(void)
{
	put(client, "a request");
	put(accepted, "an answer");
	put_big();
}

static void make_waiting(void)
{
	for (unsigned i = 0; i < COUNT_OF(waiting); i++) {
		waiting[i] = connected();
		sleep_ms(20); /* who came first is known to a millisecond */
	}
}

static void set_up(void)
{
	int pair[2], on = 1, value = 77;

	make_listener();
	make_pair(pair);
	client = pair[0];
	accepted = pair[1];
	make_pair(half);
	make_pair(full);
	make_pair(corked);
	check_sys(setsockopt(corked[0], IPPROTO_TCP, TCP_CORK, &on, sizeof on) == 0);
	check_sys(setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0 &&
		  setsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof value) == 0);
	check_sys(fcntl(accepted, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	put_all();
	put(half[0], "before the end");
	check_sys(shutdown(half[0], SHUT_WR) == 0);
	make_pair(pair);
	put(pair[0], "last words");
	check_sys(close(pair[0]) == 0);
	ended = pair[1];
	make_waiting();
	fresh = new_socket(AF_INET);
}

/* --- verifying -------------------------------------------------------------------------------- */

static struct address client_name, accepted_name;

static bool same(const struct address *a, const struct address *b)
{
	return a->len == b->len && !memcmp(&a->sa, &b->sa, a->len);
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;

	check_sys(getsockopt(fd, level, name, &value, &len) == 0);
	return value;
}

static void check_names(void)
{
	struct address c = name_of(client, false), a = name_of(accepted, true),
		       l = name_of(listener, false);

	check(same(&c, &client_name), "the client's port is %u, not %u", port_of(&c),
	      port_of(&client_name));
	check(same(&a, &accepted_name), "the accepted one's peer has port %u, not %u", port_of(&a),
	      port_of(&accepted_name));
	check(same(&l, &listener_addr), "the listener's port is %u, not %u", port_of(&l),
	      port_of(&listener_addr));
	c = name_of(client, true);
	a = name_of(accepted, false);
	check(port_of(&c) == port_of(&l) && port_of(&a) == port_of(&l), "ports of the server");
}

static void check_options(void)
{
	check(option(client, SOL_SOCKET, SO_KEEPALIVE) == 1 &&
		      option(client, IPPROTO_TCP, TCP_KEEPIDLE) == 77,
	      "SO_KEEPALIVE");
	check(option(accepted, SOL_SOCKET, SO_KEEPALIVE) == 1, "the listener's SO_KEEPALIVE");
	check(option(client, IPPROTO_TCP, TCP_NODELAY) == 1 &&
		      option(client, SOL_SOCKET, SO_REUSEADDR) == 0 &&
		      option(listener, SOL_SOCKET, SO_REUSEADDR) == 1 &&
		      option(accepted, SOL_SOCKET, SO_REUSEADDR) == 1,
	      "options of the connection");
	check(option(corked[0], IPPROTO_TCP, TCP_CORK) == 1, "TCP_CORK");
	check(fcntl(accepted, F_GETFL) == (O_RDWR | O_NONBLOCK) &&
		      fcntl(client, F_GETFD) == FD_CLOEXEC,
	      "flags");
}

static void check_halves(void)
{
	struct pollfd p = { .fd = ended, .events = POLLIN | POLLRDHUP };
	char c;

	get("half", half[1], rounds == 1 ? "before the end" : "");
	check(send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "the half that is shut");
	put(half[1], "the other way");
	get("half", half[0], "the other way");
	check(poll(&p, 1, 0) == 1 && (p.revents & POLLRDHUP), "poll of a closed one: %x",
	      p.revents);
	get("ended", ended, rounds == 1 ? "last words" : "");
	check(recv(fresh, &c, 1, MSG_DONTWAIT) == -1 && errno == ENOTCONN, "fresh: %s",
	      strerror(errno));
}

static void check_waiting(void)
{
	for (unsigned i = 0; i < COUNT_OF(waiting); i++) {
		struct address want = name_of(waiting[i], false), got;
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

		check(fd >= 0, "accept of %u: %s", i, strerror(errno));
		got = name_of(fd, true);
		check(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1, "an option of the listener's");
		check(port_of(&got) == port_of(&want), "number %u comes from %u, not %u", i,
		      port_of(&got), port_of(&want));
		check_sys(fcntl(fd, F_SETFL, O_RDWR) == 0);
		put(waiting[i], "late");
		get("late", fd, "late");
		put(fd, "welcome");
		get("waiting", waiting[i], "welcome");
		/* reset, so that no port stays in TIME_WAIT */
		struct linger hard = { 1, 0 };
		check_sys(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
		check_sys(close(fd) == 0 && close(waiting[i]) == 0);
	}
	make_waiting();
}

/* --- a thread that serves --------------------------------------------------------------------- */

static int echo_listener, echo_port;

static void *serve(void *arg)
{
	(void)arg;
	for (;;) {
		char buf[64];
		int fd = accept(echo_listener, NULL, NULL);
		ssize_t n;

		check(fd >= 0, "accept in a thread: %s", strerror(errno));
		while ((n = read(fd, buf, sizeof buf)) > 0)
			check(write(fd, buf, (size_t)n) == n, "echo: %s", strerror(errno));
		check_sys(close(fd) == 0);
	}
	return NULL;
}

static void make_echo(void)
{
	struct address a = loopback(false);
	int on = 1;

	echo_listener = new_socket(a.sa.ss_family);
	check_sys(setsockopt(echo_listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
	check_sys(bind(echo_listener, (void *)&a.sa, a.len) == 0 && listen(echo_listener, 3) == 0);
	a = name_of(echo_listener, false);
	echo_port = (int)port_of(&a);
	(void)thread_start(serve, NULL);
}

static int echo_client(void)
{
	struct address a = loopback(false);
	int fd = new_socket(a.sa.ss_family);

	((struct sockaddr_in *)(void *)&a.sa)->sin_port = htons((uint16_t)echo_port);
	check_sys(connect(fd, (void *)&a.sa, a.len) == 0);
	return fd;
}

int main(int argc, char **argv)
{
	int echo;

	victim_init(argc, argv);
	variant = argc > 2 ? argv[2] : "4";
	set_up();
	make_echo();
	echo = echo_client(); /* the thread blocks in read of this one */
	put(echo, "hello");
	get("echo", echo, "hello");
	client_name = name_of(client, false);
	accepted_name = name_of(accepted, true);
	victim_ready();
	while (victim_wait()) {
		get("accepted", accepted, "a request");
		get("client", client, "an answer");
		get("corked", corked[1], "held back");
		get_big();
		rounds++;
		put_all();
		check_names();
		check_options();
		check_halves();
		check_waiting();
		put(echo, "reflected");
		get("echo", echo, "reflected");
		victim_ok();
	}
	return 0;
}
