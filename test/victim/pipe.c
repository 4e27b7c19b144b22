/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: pipes with unread content, sizes, packet mode, half-closed ones, and FIFOs. */
#include "victim.h"

#include <poll.h>
#include <sys/ioctl.h>

enum { PLAIN, BIG, PACKET, NO_WRITER, NO_READER, EMPTY, FIFO, NAMELESS, UNMET, NPIPES };

static int fds[NPIPES][2];

static void put(int which, const char *text)
{
	check_sys(write(fds[which][1], text, strlen(text)) == (ssize_t)strlen(text));
}

static void get(int which, const char *want)
{
	char buf[256];
	ssize_t n = read(fds[which][0], buf, sizeof buf - 1);

	check(n >= 0, "pipe %d: %s", which, strerror(errno));
	buf[n] = '\0';
	check(!strcmp(buf, want), "pipe %d has '%s', should be '%s'", which, buf, want);
}

static void fill_big(uint64_t round)
{
	static char page[PAGE];

	for (unsigned i = 0; i < 200; i++) {
		page_fill(page, round * 1000 + i);
		check_sys(write(fds[BIG][1], page, PAGE) == PAGE);
	}
}

static void drain_big(uint64_t round)
{
	static char page[PAGE];

	for (unsigned i = 0; i < 200; i++) {
		size_t len = 0;
		while (len < PAGE) {
			ssize_t n = read(fds[BIG][0], page + len, PAGE - len);
			check(n > 0, "the big pipe ends at page %u", i);
			len += (size_t)n;
		}
		check(page_is(page, round * 1000 + i), "page %u in the big pipe", i);
	}
}

/* FIFOs that have no name any more; no writer has ever opened the second. */
static void set_up_nameless(void)
{
	const char *path = victim_path("gone");

	check_sys(mkfifo(path, 0620) == 0 && chmod(path, 0620) == 0);
	fds[NAMELESS][0] = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	fds[NAMELESS][1] = open(path, O_WRONLY);
	check_sys(fds[NAMELESS][0] >= 0 && fds[NAMELESS][1] >= 0 && unlink(path) == 0);
	check_sys(mkfifo(path, 0600) == 0);
	fds[UNMET][0] = open(path, O_RDONLY | O_NONBLOCK);
	check_sys(fds[UNMET][0] >= 0 && unlink(path) == 0);
	put(NAMELESS, "nameless");
}

static void set_up(void)
{
	check_sys(pipe2(fds[PLAIN], O_CLOEXEC) == 0 && pipe2(fds[BIG], 0) == 0 &&
		  pipe2(fds[PACKET], O_DIRECT | O_NONBLOCK) == 0 && pipe(fds[NO_WRITER]) == 0 &&
		  pipe(fds[NO_READER]) == 0 && pipe2(fds[EMPTY], O_NONBLOCK) == 0);
	/* A user may hold only so much in big pipes. */
	if (fcntl(fds[BIG][1], F_SETPIPE_SZ, 1 << 20) < 0)
		victim_skip("no 1 MiB pipe: %s", strerror(errno));
	check_sys(fcntl(fds[PLAIN][0], F_SETFL, O_NONBLOCK) == 0); /* of one end only */
	check_sys(mkfifo(victim_path("fifo"), 0600) == 0 || errno == EEXIST);
	fds[FIFO][0] = open(victim_path("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	fds[FIFO][1] = open(victim_path("fifo"), O_WRONLY | O_CLOEXEC);
	check_sys(fds[FIFO][0] >= 0 && fds[FIFO][1] >= 0);
	put(PLAIN, "unread");
	fill_big(0);
	put(PACKET, "one");
	put(PACKET, "two two");
	put(PACKET, "three");
	put(NO_WRITER, "last words");
	put(FIFO, "in the fifo");
	set_up_nameless();
	check_sys(close(fds[NO_WRITER][1]) == 0 && close(fds[NO_READER][0]) == 0);
}

static void check_ends(void)
{
	struct pollfd p = { .fd = fds[NO_WRITER][0], .events = POLLIN };
	int left;

	check(fcntl(fds[PLAIN][0], F_GETFL) == (O_RDONLY | O_NONBLOCK),
	      "flags of the plain read end");
	check(fcntl(fds[PLAIN][1], F_GETFL) == O_WRONLY, "flags of the plain write end");
	check(fcntl(fds[PLAIN][1], F_GETFD) == FD_CLOEXEC, "FD_CLOEXEC");
	check(fcntl(fds[BIG][0], F_GETFD) == 0, "no FD_CLOEXEC");
	check(fcntl(fds[BIG][0], F_GETPIPE_SZ) == 1 << 20, "size %d",
	      fcntl(fds[BIG][0], F_GETPIPE_SZ));
	check((fcntl(fds[PACKET][1], F_GETFL) & ~O_LARGEFILE) == (O_WRONLY | O_DIRECT | O_NONBLOCK),
	      "flags of the packet pipe %o", fcntl(fds[PACKET][1], F_GETFL));
	check_sys(ioctl(fds[PLAIN][0], FIONREAD, &left) == 0);
	check(left == 6, "%d bytes unread", left);
	check(poll(&p, 1, 0) == 1 && (p.revents & POLLHUP), "the pipe without a writer: %x",
	      p.revents);
	check(write(fds[NO_READER][1], "x", 1) == -1 && errno == EPIPE,
	      "the pipe without a reader");
	check(read(fds[EMPTY][0], &left, 1) == -1 && errno == EAGAIN, "the empty pipe: %s",
	      strerror(errno));
}

static void check_nameless(void)
{
	struct pollfd p = { .fd = fds[UNMET][0], .events = POLLIN };
	struct stat st;

	check(poll(&p, 1, 0) == 0, "the FIFO that nobody has written to: %x", p.revents);
	get(UNMET, "");
	check_sys(fstat(fds[NAMELESS][1], &st) == 0);
	check(S_ISFIFO(st.st_mode) && (st.st_mode & 07777) == 0620 && st.st_nlink == 0,
	      "mode %o, %lu names", st.st_mode, (unsigned long)st.st_nlink);
	check(fcntl(fds[NAMELESS][1], F_GETFD) == 0, "no FD_CLOEXEC of the nameless one");
	get(NAMELESS, "nameless");
	put(NAMELESS, "nameless");
}

int main(int argc, char **argv)
{
	uint64_t rounds = 0;
	char c;

	victim_init(argc, argv);
	check_sys(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	set_up();
	victim_ready();
	while (victim_wait()) {
		check_ends();
		get(PLAIN, "unread");
		put(PLAIN, "unread");
		drain_big(rounds);
		fill_big(++rounds);
		get(PACKET, "one");
		get(PACKET, "two two");
		get(PACKET, "three");
		check(read(fds[PACKET][0], &c, 1) == -1 && errno == EAGAIN, "a packet too many");
		put(PACKET, "one");
		put(PACKET, "two two");
		put(PACKET, "three");
		/* The content of the one without a writer can be read once only. */
		if (rounds == 1)
			get(NO_WRITER, "last words");
		else
			get(NO_WRITER, "");
		get(FIFO, "in the fifo");
		put(FIFO, "in the fifo");
		check_nameless();
		victim_ok();
	}
	return 0;
}
