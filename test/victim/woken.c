/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: processes that wait in a system call each, until a SIGUSR1 comes whose handler does not
 * take the signal's news anywhere else: the call must return EINTR then, once for each signal, and
 * never without one. Says "woken KIND" for each. With SA_RESTART, a call that may go on does.
 */
#include "victim.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

#define MUCH (1ul << 20)

static volatile sig_atomic_t handled;
static int ends[2], epfd;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

/* The one whose call is not interrupted gets what it waits for. */
static void on_signal_write(int sig)
{
	(void)sig;
	handled++;
	check_sys(write(ends[1], "x", 1) == 1);
}

static long wait_pause(void)
{
	return pause();
}

static long wait_sigsuspend(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	return sigsuspend(&set);
}

static long wait_poll(void)
{
	struct pollfd p = { .fd = ends[0], .events = POLLIN };

	return poll(&p, 1, -1);
}

static long wait_ppoll(void)
{
	struct pollfd p = { .fd = ends[0], .events = POLLIN };
	sigset_t set;

	(void)sigemptyset(&set);
	return ppoll(&p, 1, NULL, &set);
}

static long wait_select(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(ends[0], &set);
	return syscall(SYS_select, ends[0] + 1, &set, NULL, NULL, NULL);
}

static long wait_epoll(void)
{
	struct epoll_event ev;

	return epoll_wait(epfd, &ev, 1, -1);
}

static long wait_nanosleep(void)
{
	struct timespec ts = { .tv_sec = 3600 };

	return syscall(SYS_nanosleep, &ts, &ts);
}

static long wait_read(void)
{
	char c;

	return read(ends[0], &c, 1);
}

static long wait_futex(void)
{
	uint32_t word = 0;

	return syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, NULL, NULL, 0);
}

static const struct kind {
	const char *name;
	long nr;
	long (*wait)(void);
	bool blocked; /* outside of the call, which lets it in */
	bool restarts;
} kinds[] = {
	{ "pause", SYS_pause, wait_pause, false, false },
	{ "sigsuspend", SYS_rt_sigsuspend, wait_sigsuspend, true, false },
	{ "poll", SYS_poll, wait_poll, false, false },
	{ "ppoll", SYS_ppoll, wait_ppoll, true, false },
	{ "select", SYS_select, wait_select, false, false },
	{ "epoll", SYS_epoll_wait, wait_epoll, false, false },
	{ "nanosleep", SYS_nanosleep, wait_nanosleep, false, false },
	{ "read", SYS_read, wait_read, false, false },
	{ "futex", SYS_futex, wait_futex, false, false },
	{ "poll again", SYS_poll, wait_poll, false, true },
	{ "read again", SYS_read, wait_read, false, true },
};

static _Noreturn void serve(const struct kind *k)
{
	struct sigaction act = { .sa_handler = k->restarts && k->wait == wait_read ? on_signal_write
										   : on_signal,
				 .sa_flags = k->restarts ? SA_RESTART : 0 };
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR1);
	check_sys(sigprocmask(k->blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL) == 0);
	check_sys(sigaction(SIGUSR1, &act, NULL) == 0);
	for (int n = 1;; n++) {
		long rc = k->wait();

		check(handled == n, "%s: returned %ld (%s) after %d signals of %d", k->name, rc,
		      strerror(errno), handled, n);
		if (act.sa_handler == on_signal_write)
			check(rc == 1, "%s: did not go on: %ld", k->name, rc);
		else
			check(rc == -1 && errno == EINTR, "%s: returned %ld (%s)", k->name, rc,
			      strerror(errno));
		victim_say("woken %d %s", n, k->name);
	}
}

/* A process, not a thread of ours. */
static void wait_blocked(pid_t pid, long nr)
{
	char path[40], text[400];

	(void)snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
	for (int i = 0; i < 4000; i++) {
		(void)read_small(path, text, sizeof text);
		if (text[0] >= '0' && text[0] <= '9' && strtol(text, NULL, 10) == nr)
			return;
		sleep_ms(5);
	}
	check(false, "process %d is not blocked in call %ld", (int)pid, nr);
}

int main(int argc, char **argv)
{
	struct epoll_event ev = { .events = EPOLLIN };
	pid_t pids[COUNT_OF(kinds)];
	char *volatile much = malloc(MUCH); /* so that something is left for later */

	victim_init(argc, argv);
	check_sys(much);
	memset(much, 1, MUCH);
	for (unsigned i = 0; i < COUNT_OF(kinds); i++) {
		pids[i] = fork();
		check_sys(pids[i] >= 0);
		if (pids[i] == 0) {
			check_sys(pipe(ends) == 0);
			epfd = epoll_create1(0);
			check_sys(epfd >= 0 && epoll_ctl(epfd, EPOLL_CTL_ADD, ends[0], &ev) == 0);
			serve(&kinds[i]);
		}
	}
	for (unsigned i = 0; i < COUNT_OF(kinds); i++)
		wait_blocked(pids[i], kinds[i].nr);
	victim_ready();
	while (victim_wait())
		victim_ok();
	for (unsigned i = 0; i < COUNT_OF(kinds); i++)
		(void)kill(pids[i], SIGKILL);
	return 0;
}
