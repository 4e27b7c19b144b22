/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: pseudo-terminals: modes, size, packet mode, unread data both ways, hung-up ones, and a
 * controlling terminal with its foreground group. */
#include "victim.h"

#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

enum { COOKED, RAW, PACKET, LONELY, CLOSED, NEVER, EMPTY, NPTYS };

static int master[NPTYS], slave[NPTYS], orphan, tty;
static char name[NPTYS][32];
static pid_t reader;

static void make(int i)
{
	struct winsize size = { (unsigned short)(20 + i), (unsigned short)(70 + i), 0, 0 };

	master[i] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master[i] < 0)
		victim_skip("no pseudo-terminals here: %s", strerror(errno));
	check_sys(grantpt(master[i]) == 0 && unlockpt(master[i]) == 0);
	check_sys(ptsname_r(master[i], name[i], sizeof name[i]) == 0);
	slave[i] = -1;
	check_sys(ioctl(master[i], TIOCSWINSZ, &size) == 0);
	if (i == NEVER)
		return;
	/* the kernel lets O_CLOEXEC stay among this description's flags */
	if (i == RAW)
		slave[i] = ioctl(master[i], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	else
		slave[i] = open(name[i], O_RDWR | O_NOCTTY);
	check_sys(slave[i] >= 0);
	check_sys(fcntl(slave[i], F_SETFD, 0) == 0);
}

static void put(int fd, const char *text)
{
	check_sys(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static int unread(int fd)
{
	int n = -1;

	check_sys(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

/* What is written goes through a worker of the kernel. */
static void wait_unread(int fd, int n)
{
	for (int i = 0; i < 60000 && unread(fd) < n; i++)
		sleep_ms(1);
	check(unread(fd) == n, "%d unread bytes, should be %d", unread(fd), n);
}

static void get(int fd, const char *want, const char *what)
{
	char buf[256];
	ssize_t n = read(fd, buf, sizeof buf - 1);

	check(n >= 0, "%s: %s", what, strerror(errno));
	buf[n] = '\0';
	check(!strcmp(buf, want), "%s: '%s', should be '%s'", what, buf, want);
}

static void fill_cooked(void)
{
	put(master[COOKED], "first\rsecond line\nlit\x16\x03\n");
	put(master[COOKED], "half\x04");
	wait_unread(slave[COOKED], 6 + 12 + 5 + 4);
	/* the echo, and the answer of a program: NL becomes CR NL */
	wait_unread(master[COOKED], 7 + 13 + 9 + 4);
	put(slave[COOKED], "prompt\n> ");
	wait_unread(master[COOKED], 7 + 13 + 9 + 4 + 10);
}

static void drain_cooked(void)
{
	get(slave[COOKED], "first\n", "cooked");
	get(slave[COOKED], "second line\n", "cooked");
	get(slave[COOKED], "lit\x03\n", "cooked");
	get(slave[COOKED], "half", "cooked");
	check(unread(slave[COOKED]) == 0, "more in the cooked one");
	get(master[COOKED], "first\r\nsecond line\r\nlit^\b^C\r\nhalfprompt\r\n> ", "echo");
}

static void fill_raw(unsigned round)
{
	static char page[PAGE];

	page_fill(page, round);
	check_sys(write(slave[RAW], page, 3000) == 3000);
	check_sys(write(master[RAW], page + 3000, 1000) == 1000);
	wait_unread(master[RAW], 3000);
	wait_unread(slave[RAW], 1000);
}

static void drain_raw(unsigned round)
{
	static char page[PAGE], want[PAGE];

	page_fill(want, round);
	check(read(master[RAW], page, sizeof page) == 3000, "raw output");
	check(!memcmp(page, want, 3000), "raw output differs");
	check(read(slave[RAW], page, sizeof page) == 1000, "raw input");
	check(!memcmp(page, want + 3000, 1000), "raw input differs");
}

static void set_up(void)
{
	struct termios t;
	int on = 1, lonely;

	for (int i = 0; i < NPTYS; i++)
		make(i);
	check_sys(tcgetattr(slave[COOKED], &t) == 0);
	t.c_cc[VERASE] = 'x' & 31;
	cfsetospeed(&t, B9600);
	check_sys(tcsetattr(slave[COOKED], TCSANOW, &t) == 0);
	check_sys(tcgetattr(slave[RAW], &t) == 0);
	cfmakeraw(&t);
	t.c_cc[VMIN] = 7;
	check_sys(tcsetattr(slave[RAW], TCSANOW, &t) == 0);
	check_sys(ioctl(master[PACKET], TIOCPKT, &on) == 0);
	put(slave[PACKET], "packet");
	wait_unread(master[PACKET], 6);
	/* its master goes: hung up */
	lonely = slave[LONELY];
	check_sys(close(master[LONELY]) == 0);
	orphan = lonely;
	/* its slave goes, and leaves last words */
	put(slave[CLOSED], "bye\n");
	check_sys(close(slave[CLOSED]) == 0);
	check_sys(fcntl(master[NEVER], F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	check_sys(setsid() == getpid());
	check_sys(ioctl(slave[EMPTY], TIOCSCTTY, 0) == 0);
	check_sys(fchmod(slave[EMPTY], 0600) == 0);
	tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
	check_sys(tty >= 0);
	fill_cooked();
	fill_raw(0);
}

static void *read_forever(void *arg)
{
	char c;

	(void)arg;
	__atomic_store_n(&reader, gettid_raw(), __ATOMIC_RELEASE);
	for (;;) {
		ssize_t n = read(slave[EMPTY], &c, 1);

		check(n == 1, "the blocked reader: %zd, %s", n, strerror(errno));
		check(c == '!', "the blocked reader got %d", c);
		put(slave[EMPTY], "?");
	}
	return NULL;
}

static void check_modes(void)
{
	struct termios t;
	int on;

	for (int i = 0; i < NPTYS; i++)
		check(slave[i] < 0 || i == CLOSED || fcntl(slave[i], F_GETFD) == 0,
		      "a slave is closed on exec");
	for (int i = 0; i < NPTYS; i++) {
		struct winsize size;
		char now[32];

		if (i == LONELY)
			continue;
		check_sys(ioctl(master[i], TIOCGWINSZ, &size) == 0);
		check(slave[i] < 0 || i == CLOSED || i == RAW ||
			      !(fcntl(slave[i], F_GETFL) & O_CLOEXEC),
		      "O_CLOEXEC among the flags of %d", i);
		check(size.ws_row == 20 + i && size.ws_col == 70 + i, "size of %d", i);
		check_sys(ptsname_r(master[i], now, sizeof now) == 0);
		if (strcmp(now, name[i]) != 0) { /* the test says whether that may be */
			victim_say("moved %s %s", name[i], now);
			(void)strcpy(name[i], now);
		}
		check(slave[i] < 0 || i == CLOSED || !strcmp(ttyname(slave[i]), now), "ttyname");
	}
	check_sys(tcgetattr(slave[COOKED], &t) == 0);
	check(t.c_cc[VERASE] == ('x' & 31) && cfgetospeed(&t) == B9600, "modes of the cooked one");
	check((t.c_lflag & (ICANON | ECHO)) == (ICANON | ECHO) && (t.c_oflag & OPOST), "cooked");
	check_sys(tcgetattr(slave[RAW], &t) == 0);
	check(!(t.c_lflag & (ICANON | ECHO)) && !(t.c_oflag & OPOST) && t.c_cc[VMIN] == 7, "raw");
	check_sys(ioctl(master[PACKET], TIOCGPKT, &on) == 0);
	check(on, "packet mode");
	check_sys(ioctl(master[RAW], TIOCGPKT, &on) == 0);
	check(!on, "packet mode of another");
}

static void check_ends(unsigned round)
{
	struct pollfd p = { .fd = master[CLOSED], .events = POLLIN };
	char buf[16];

	check(read(orphan, buf, 1) == 0, "the hung up one is not at its end");
	check(write(orphan, "x", 1) == -1 && errno == EIO, "the hung up one: %s", strerror(errno));
	if (round == 0)
		get(master[CLOSED], "bye\r\n", "last words");
	check(poll(&p, 1, 0) == 1 && (p.revents & POLLHUP), "the closed one: %x", p.revents);
	check(read(master[CLOSED], buf, 1) == -1 && errno == EIO, "the closed one");
	check(read(master[NEVER], buf, 1) == -1 && errno == EAGAIN, "the new one: %s",
	      strerror(errno));
	check(read(master[PACKET], buf, sizeof buf) == 7 && !memcmp(buf, "\0packet", 7), "packet");
	put(slave[PACKET], "packet");
	wait_unread(master[PACKET], 6);
}

static void check_session(void)
{
	struct stat st;

	check(getsid(0) == getpid() && tcgetsid(slave[EMPTY]) == getpid(), "session %d",
	      tcgetsid(slave[EMPTY]));
	check(tcgetpgrp(slave[EMPTY]) == getpgrp() && tcgetpgrp(tty) == getpgrp(), "group %d",
	      tcgetpgrp(slave[EMPTY]));
	check_sys(fstat(slave[EMPTY], &st) == 0);
	check((st.st_mode & 0777) == 0600, "mode %o", st.st_mode);
	check_sys(close(open("/dev/tty", O_RDWR)) == 0);
	/* the reader that was blocked all along takes one and answers */
	thread_wait_blocked(reader, SYS_read);
	put(master[EMPTY], "!");
	wait_unread(master[EMPTY], 2);
	get(master[EMPTY], "!?", "echo and answer");
}

int main(int argc, char **argv)
{
	struct termios t;
	unsigned round = 0;

	victim_init(argc, argv);
	set_up();
	check_sys(tcgetattr(slave[EMPTY], &t) == 0);
	t.c_lflag &= ~(tcflag_t)ICANON;
	t.c_iflag &= ~(tcflag_t)ICRNL;
	check_sys(tcsetattr(slave[EMPTY], TCSANOW, &t) == 0);
	(void)thread_start(read_forever, NULL);
	while (!__atomic_load_n(&reader, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	thread_wait_blocked(reader, SYS_read);
	victim_ready();
	while (victim_wait()) {
		check_modes();
		drain_cooked();
		fill_cooked();
		drain_raw(round);
		check_ends(round);
		check_session();
		fill_raw(++round);
		victim_ok();
	}
	return 0;
}
