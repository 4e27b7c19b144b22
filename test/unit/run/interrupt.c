/* SPDX-License-Identifier: BSD-2-Clause */
/* Ctrl-C in the middle of a restart: all that was made goes, what was there before stays. */
#include "../check.h"

#include "run/interrupt.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* A child that only a signal ends, or with grandchild one that has such a child, too. */
static pid_t make_child(bool grandchild)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid)
		return pid;
	if (grandchild)
		(void)make_child(false);
	for (;;)
		(void)pause();
}

/* Makes children before and after arming, says which is to be spared, and is interrupted. */
_Noreturn static void be_restarting(int ready_fd)
{
	pid_t spared;

	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	spared = make_child(false);
	interrupt_arm();
	for (int i = 0; i < 5; i++)
		(void)make_child(i & 1);
	CHECK(io_write_full(ready_fd, &spared, sizeof spared) == 0);
	for (;;)
		free(malloc(100)); /* a handler that allocated would hang in here sooner or later */
}

/* The pipe's write end is open in every process of the tree: end of file says that all are gone. */
static void check_signal(int signo)
{
	pid_t pid, spared;
	int status, fds[2];
	char c;

	CHECK(pipe(fds) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		be_restarting(fds[1]);
	(void)close(fds[1]);
	CHECK(io_read_full(fds[0], &spared, sizeof spared) == (ssize_t)sizeof spared);
	CHECK(kill(pid, signo) == 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signo);
	CHECK(kill(spared, SIGKILL) == 0);
	CHECK(io_read_full(fds[0], &c, 1) == 0);
	(void)close(fds[0]);
}

/* Disarmed, a signal does again what it did before; SIGUSR1 has waited. */
static void check_disarm(void)
{
	sigset_t pending;

	CHECK(signal(SIGINT, SIG_IGN) == SIG_DFL);
	interrupt_arm();
	CHECK(raise(SIGINT) == 0); /* was ignored, still is */
	CHECK(raise(SIGUSR1) == 0);
	CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
	interrupt_disarm();
	CHECK(signal(SIGINT, SIG_DFL) == SIG_IGN);
	CHECK(signal(SIGTERM, SIG_DFL) == SIG_DFL);
}

int main(void)
{
	(void)alarm(60);
	for (int i = 0; i < 10; i++) {
		check_signal(SIGINT);
		check_signal(SIGTERM);
	}
	check_disarm();
	return 0;
}
