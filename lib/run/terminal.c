/* SPDX-License-Identifier: BSD-2-Clause */
/* Job control: who has the terminal, and stopping together with the job. */
#include "run/terminal.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

enum { STOP_POLL_MS = 20 };
#define STOP_PATIENCE_NS UINT64_C(2000000000)

void terminal_init(struct terminal *t)
{
	*t = (struct terminal){ .fd = open("/dev/tty",
					   O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) };
}

/* SIGTTOU must not stop us for putting things in order from the background. */
static void block_ttou(sigset_t *ret_old)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTTOU);
	(void)sigprocmask(SIG_BLOCK, &set, ret_old);
}

void terminal_fini(struct terminal *t)
{
	sigset_t old;

	terminal_reclaim(t);
	block_ttou(&old);
	if (t->changed && tcgetpgrp(t->fd) == getpgrp())
		(void)tcsetattr(t->fd, TCSADRAIN, &t->own);
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	t->changed = false;
	if (t->fd >= 0)
		(void)close(t->fd);
	t->fd = -1;
}

void terminal_lend(struct terminal *t, pid_t root, pid_t group)
{
	/* one that has ended meanwhile is none */
	if (group <= 0 || kill(-group, 0) < 0)
		group = getpgid(root);
	if (t->fd < 0 || group <= 0 || group == getpgrp() || getsid(root) != getsid(0))
		return;
	if (tcgetpgrp(t->fd) == getpgrp())
		t->lent = tcsetpgrp(t->fd, group) == 0;
}

/* asm/termbits.h, which has struct termios2, and termios.h exclude each other; the kernel is asked
 * with what the image holds. */
#define TERMIOS2_SIZE 44
#define SET_TERMIOS2  0x402c542b

void terminal_hand_over(struct terminal *t, const struct terminal_state *was, pid_t root,
			pid_t foreground)
{
	if (t->fd >= 0 && was->path && was->termios.len == TERMIOS2_SIZE &&
	    tcgetpgrp(t->fd) == getpgrp() && tcgetattr(t->fd, &t->own) == 0)
		t->changed = ioctl(t->fd, SET_TERMIOS2, was->termios.data) == 0;
	terminal_lend(t, root, foreground);
}

void terminal_redraw(const struct terminal *t, const struct terminal_state *was, pid_t root)
{
	/* ignored by whoever does not ask for it */
	if (t->fd >= 0 && was->path)
		(void)kill(t->lent ? -tcgetpgrp(t->fd) : root, SIGWINCH);
}

void terminal_reclaim(struct terminal *t)
{
	sigset_t old;

	block_ttou(&old);
	if (t->lent)
		(void)tcsetpgrp(t->fd, getpgrp());
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	t->lent = false;
}

void terminal_stop_asked(struct terminal *t, uint64_t now_ns)
{
	t->stop_asked = true;
	t->stop_until_ns = now_ns + STOP_PATIENCE_NS;
}

int terminal_poll_ms(const struct terminal *t, uint64_t now_ns)
{
	return t->stop_asked && now_ns < t->stop_until_ns ? STOP_POLL_MS : -1;
}

bool terminal_is_stopped(pid_t pid)
{
	CLEANUP_FREE char *text = NULL;
	char path[48], *p;

	(void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (io_read_file(AT_FDCWD, path, &text, NULL) < 0)
		return false;
	p = strrchr(text, ')');
	return p && p[1] == ' ' && p[2] == 'T';
}

bool terminal_follows(const struct terminal *t, int stop_signal)
{
	/* programs that handle SIGTSTP put the terminal in order and then stop themselves, by
	 * SIGSTOP as a rule */
	return t->stop_asked || stop_signal == SIGTSTP || stop_signal == SIGTTIN ||
	       stop_signal == SIGTTOU;
}

/* False if it did not stop us: a terminal stop is ignored in an orphaned group. */
static bool stop_by(int signo)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL }, old;
	sigset_t set, mask, pending;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, signo);
	(void)sigaction(signo, &dfl, &old);
	(void)raise(signo); /* blocked, as all are */
	(void)pthread_sigmask(SIG_UNBLOCK, &set, &mask);
	(void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
	(void)sigaction(signo, &old, NULL);
	/* what continued us is yet to be read from the signalfd */
	(void)sigpending(&pending);
	return sigismember(&pending, SIGCONT) == 1;
}

void terminal_stop_self(struct terminal *t, pid_t root, int stop_signal)
{
	pid_t group = t->lent ? tcgetpgrp(t->fd) : 0;
	bool lent = t->lent;

	t->stop_asked = false;
	terminal_reclaim(t);
	if (stop_signal != SIGTTIN && stop_signal != SIGTTOU && stop_signal != SIGSTOP)
		stop_signal = SIGTSTP;
	if (stop_signal == SIGSTOP || !stop_by(stop_signal))
		(void)kill(getpid(), SIGSTOP);
	if (lent)
		terminal_lend(t, root, group == getpgrp() ? 0 : group);
}
