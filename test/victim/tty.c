/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: a full-screen program on the caller's terminal: raw, without echo, in a foreground
 * process group of its own, reading keys; it says the terminal's size after each SIGWINCH. */
#include "victim.h"

#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t changed;
static char keys[64];
static unsigned n_keys;
static pid_t reader;

static void on_winch(int sig)
{
	(void)sig;
	changed = 1;
}

static void *read_keys(void *arg)
{
	(void)arg;
	__atomic_store_n(&reader, gettid_raw(), __ATOMIC_RELEASE);
	for (;;) {
		char c;
		ssize_t n = read(0, &c, 1);

		check(n == 1, "reading keys: %zd, %s", n, strerror(errno));
		keys[n_keys++ % sizeof keys] = c;
		victim_say("key %c", c);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct termios t;
	struct sigaction sa = { .sa_handler = on_winch, .sa_flags = SA_RESTART };
	int tty;

	victim_init(argc, argv);
	check_sys(sigaction(SIGWINCH, &sa, NULL) == 0);
	check_sys(signal(SIGTTOU, SIG_IGN) != SIG_ERR);
	check_sys(setpgid(0, 0) == 0);
	tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
	check_sys(tty >= 0 && tcsetpgrp(tty, getpgrp()) == 0);
	check_sys(tcgetattr(0, &t) == 0);
	cfmakeraw(&t);
	t.c_cc[VERASE] = 'x' & 31;
	check_sys(tcsetattr(0, TCSANOW, &t) == 0);
	(void)thread_start(read_keys, NULL);
	while (!__atomic_load_n(&reader, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	thread_wait_blocked(reader, SYS_read);
	victim_ready();
	while (victim_wait()) {
		struct winsize size;

		check_sys(tcgetattr(tty, &t) == 0);
		check(!(t.c_lflag & (ICANON | ECHO | ISIG)) && !(t.c_oflag & OPOST), "modes");
		check(t.c_cc[VERASE] == ('x' & 31), "the erase character");
		check(tcgetpgrp(tty) == getpgrp(), "foreground group %d, own %d", tcgetpgrp(tty),
		      getpgrp());
		if (changed) {
			check_sys(ioctl(tty, TIOCGWINSZ, &size) == 0);
			victim_say("size %d %d", size.ws_row, size.ws_col);
			changed = 0;
		}
		victim_ok();
	}
	return 0;
}
