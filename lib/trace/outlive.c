/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Outliving ckpt-run. PTRACE_INTERRUPT makes some calls return EINTR (trace/regs.h), which is
 * mended as soon as we look at the thread; if the tracer died in between, the program would see an
 * EINTR that no signal caused. So the tracer is a process of its own (dump/tracing.c), and this is
 * what it does when its parent is killed.
 *
 * The signal (PR_SET_PDEATHSIG) comes at any instant, in the middle of malloc too, and threads of
 * the dead parent may have held any lock. So the handler makes system calls and nothing else, and
 * finds all it needs in this file's variables: a handler gets no arguments.
 */
#include "trace/outlive.h"

#include "trace/regs.h"
#include "trace/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

/* It also continues whom somebody has stopped. */
#define ORPHAN_SIGNAL SIGCONT
#define MAX_ASKED     64
/* How long a thread may take to stop: on a loaded machine it may not get a CPU for a while. */
#define STOP_WAIT_NS   3000000000
#define UNWIND_SECONDS 2

static atomic_int asked[MAX_ASKED]; /* tids, 0: free */
static atomic_int borrowed;
static atomic_bool orphaned;
static pid_t parent_pid;

bool outlive_orphaned(void)
{
	return atomic_load(&orphaned);
}

bool outlive_asked(pid_t tid)
{
	for (size_t i = 0; i < MAX_ASKED; i++)
		if (atomic_load(&asked[i]) == 0) {
			atomic_store(&asked[i], tid);
			return true;
		}
	return false;
}

void outlive_seen(pid_t tid)
{
	for (size_t i = 0; i < MAX_ASKED; i++)
		if (atomic_load(&asked[i]) == tid)
			atomic_store(&asked[i], 0);
}

void outlive_borrowed(void)
{
	atomic_fetch_add(&borrowed, 1);
}

void outlive_given_back(void)
{
	if (atomic_fetch_sub(&borrowed, 1) == 1 && outlive_orphaned())
		_exit(1);
}

static bool has_ended(pid_t tid)
{
	siginfo_t si = { 0 };

	return waitid(P_PID, (id_t)tid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 ||
	       (si.si_pid == tid && si.si_code != CLD_TRAPPED && si.si_code != CLD_STOPPED);
}

/* Another stop came first: on to the one that was asked for, as settle.c does. */
static void pass_stop(pid_t tid, const siginfo_t *si)
{
	long sig = si->si_code >> 8 > 0 || si->si_code == (SIGTRAP | 0x80) ? 0 : si->si_signo;

	(void)ptrace(PTRACE_INTERRUPT, tid, 0, 0);
	(void)ptrace(PTRACE_CONT, tid, 0, sig);
}

/* In uninterruptible sleep no stop makes a call return. Without stdio, which may lock. */
static bool sleeps_deep(pid_t tid)
{
	char path[32] = "/proc/", text[64], digits[12];
	size_t n = strlen(path), k = 0;
	const char *end;
	ssize_t got;
	int fd;

	for (; tid > 0; tid /= 10)
		digits[k++] = (char)('0' + tid % 10);
	while (k > 0)
		path[n++] = digits[--k];
	memcpy(path + n, "/stat", 6);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
	if (fd >= 0)
		(void)close(fd);
	text[got > 0 ? got : 0] = '\0';
	end = strrchr(text, ')');
	return end && end[1] == ' ' && end[2] == 'D';
}

/*
 * The kernel, not the list of events that have been waited for, says whether the thread has
 * stopped: we may have been interrupted between a wait and the look.
 */
static void see_to(pid_t tid, int64_t deadline_ns)
{
	static const struct timespec moment = { .tv_nsec = 50000 };
	struct user_regs_struct gp;
	siginfo_t si;

	while (!has_ended(tid)) {
		if (ptrace(PTRACE_GETSIGINFO, tid, 0, &si) < 0) {
			if (trace_now_ns() > deadline_ns || sleeps_deep(tid))
				return;
			(void)nanosleep(&moment, NULL);
			continue;
		}
		if (si.si_code >> 8 != PTRACE_EVENT_STOP) {
			pass_stop(tid, &si);
			continue;
		}
		if (ptrace(PTRACE_GETREGS, tid, 0, &gp) == 0 && regs_undo_eintr(&gp))
			(void)ptrace(PTRACE_SETREGS, tid, 0, &gp);
		return;
	}
}

static void on_orphaned(int signo)
{
	const struct itimerval limit = { .it_value = { .tv_sec = UNWIND_SECONDS } };
	int code = errno;
	int64_t deadline_ns = trace_now_ns() + STOP_WAIT_NS;

	(void)signo;
	if (getppid() == parent_pid) /* from somebody else, or only some of its threads are dead */
		return;
	atomic_store(&orphaned, true);
	for (size_t i = 0; i < MAX_ASKED; i++)
		if (atomic_load(&asked[i]))
			see_to(atomic_load(&asked[i]), deadline_ns);
	if (atomic_load(&borrowed) == 0)
		_exit(1);
	(void)setitimer(ITIMER_REAL, &limit, NULL);
	errno = code;
}

static void on_time_up(int signo)
{
	(void)signo;
	_exit(1);
}

int outlive_begin(pid_t parent)
{
	struct sigaction act = { .sa_handler = on_orphaned, .sa_flags = SA_RESTART };
	struct sigaction late = { .sa_handler = on_time_up };
	sigset_t set;

	parent_pid = parent;
	atomic_store(&orphaned, false);
	atomic_store(&borrowed, 0);
	for (size_t i = 0; i < MAX_ASKED; i++)
		atomic_store(&asked[i], 0);
	(void)sigfillset(&act.sa_mask);
	if (sigaction(ORPHAN_SIGNAL, &act, NULL) < 0 || sigaction(SIGALRM, &late, NULL) < 0 ||
	    prctl(PR_SET_PDEATHSIG, ORPHAN_SIGNAL) < 0)
		return -errno;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, ORPHAN_SIGNAL);
	(void)sigaddset(&set, SIGALRM);
	if (sigprocmask(SIG_UNBLOCK, &set, NULL) < 0)
		return -errno;
	return getppid() == parent ? 0 : -ESRCH;
}

void outlive_ignore(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, ORPHAN_SIGNAL);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}
