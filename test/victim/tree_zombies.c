/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Children that have ended and are not waited for yet: by exit, by signals, with a core dump. One
 * SIGCHLD is pending, which says who the first was; it is taken at the end only.
 */
#include "victim.h"

#include <sys/resource.h>
#include <sys/wait.h>

static pid_t exited, killed, dumped;
static bool has_core;

static pid_t child(void (*end)(void))
{
	pid_t pid = fork();
	siginfo_t si;

	check_sys(pid >= 0);
	if (pid == 0) {
		end();
		_exit(99);
	}
	check_sys(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT) == 0);
	return pid;
}

static void by_exit(void)
{
	_exit(7);
}

static void by_signal(void)
{
	(void)kill(getpid(), SIGKILL);
}

static void by_core(void)
{
	struct rlimit lim = { 4096, 4096 };

	(void)setrlimit(RLIMIT_CORE, &lim);
	(void)signal(SIGSEGV, SIG_DFL);
	(void)raise(SIGSEGV);
}

static void look(pid_t pid, int code, int status, int flags)
{
	siginfo_t si = { 0 };

	check(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | flags) == 0 && si.si_pid == pid,
	      "process %d is not there to be waited for: %s", pid, strerror(errno));
	check(si.si_code == code && si.si_status == status, "process %d: code %d status %d", pid,
	      si.si_code, si.si_status);
}

static void look_all(int flags)
{
	look(exited, CLD_EXITED, 7, flags);
	look(killed, CLD_KILLED, SIGKILL, flags);
	look(dumped, has_core ? CLD_DUMPED : CLD_KILLED, SIGSEGV, flags);
}

int main(int argc, char **argv)
{
	struct timespec none = { 0 };
	sigset_t chld, pending;
	siginfo_t si;

	victim_init(argc, argv);
	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	check_sys(sigprocmask(SIG_BLOCK, &chld, NULL) == 0);
	exited = child(by_exit);
	killed = child(by_signal);
	dumped = child(by_core);
	check_sys(waitid(P_PID, (id_t)dumped, &si, WEXITED | WNOWAIT) == 0);
	has_core = si.si_code == CLD_DUMPED;
	victim_ready();
	while (victim_wait()) {
		if (!victim_newpids())
			look_all(WNOWAIT);
		check_sys(sigpending(&pending) == 0);
		check(sigismember(&pending, SIGCHLD), "SIGCHLD is not pending any more");
		victim_ok();
	}
	check(sigtimedwait(&chld, &si, &none) == SIGCHLD, "no SIGCHLD at the end");
	check(victim_newpids() || (si.si_pid == exited && si.si_status == 7),
	      "SIGCHLD of process %d, status %d", si.si_pid, si.si_status);
	check(sigtimedwait(&chld, &si, &none) == -1, "a second SIGCHLD");
	if (!victim_newpids())
		look_all(0);
	check(waitpid(-1, NULL, WNOHANG) == -1 || victim_newpids(),
	      "more children than there were");
	return 0;
}
