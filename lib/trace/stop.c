/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Seize, interrupt, wait, let go. waitid(2) is used so that the exit of a child of ours can be seen
 * without being reaped (WNOWAIT): its status belongs to whoever supervises the job.
 */
#include "trace/stop.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

/* A thread stops far more often than it ends, so that is looked for less often. */
#define ROUNDS_PER_END 8

int64_t trace_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* The number behind "\nLABEL" in a status file; -1: none. */
static long status_number(const char *text, const char *label)
{
	const char *p = strstr(text, label);

	return p ? strtol(p + strlen(label), NULL, 10) : -1;
}

/* Why may a thread not be traced? What can be seen from outside first; then Yama. */
static void hint_eperm(pid_t tid, struct err *err)
{
	CLEANUP_FREE char *status = NULL, *scope = NULL;
	char path[64];
	struct stat st;
	long tracer, uid;

	(void)snprintf(path, sizeof path, "/proc/%d/status", tid);
	if (io_read_file(-1, path, &status, NULL) < 0)
		return;
	tracer = status_number(status, "\nTracerPid:");
	uid = status_number(status, "\nUid:");
	if (tracer > 0)
		err_hint(err,
			 "it is being traced by process %ld: a debugger, or strace, which must end "
			 "first",
			 tracer);
	else if (geteuid() != 0 && uid >= 0 && (uid_t)uid != geteuid())
		err_hint(err, "it runs as user %ld: run ckpt as that user, or as root", uid);
	else if (uid > 0 && stat(path, &st) == 0 && (uid_t)uid != st.st_uid)
		err_hint(err,
			 "it is not dumpable: its executable may be run but not read by you, or "
			 "has privileges (set-user-id, file capabilities), or it called "
			 "prctl(PR_SET_DUMPABLE)");
	else if (io_read_file(-1, "/proc/sys/kernel/yama/ptrace_scope", &scope, NULL) == 0 &&
		 scope[0] != '0')
		err_hint(err,
			 "kernel.yama.ptrace_scope is %c: a process may be traced only by its "
			 "ancestors%s",
			 scope[0],
			 scope[0] == '1' ? ", so start it under ckpt-run" : " or not at all");
	else
		err_hint(err,
			 "a security module of this system forbids it, or a container's seccomp "
			 "filter");
}

int trace_seize(pid_t tid, unsigned long options, struct err *err)
{
	if (ptrace(PTRACE_SEIZE, tid, 0, options) == 0)
		return 0;
	int code = -errno;

	err_set(err, code, "cannot trace thread %d: %m", tid);
	if (code == -EPERM)
		hint_eperm(tid, err);
	return code;
}

int trace_interrupt(pid_t tid, struct err *err)
{
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) == 0)
		return 0;
	return err_set(err, -errno, "cannot interrupt thread %d: %m", tid);
}

static void classify(const siginfo_t *si, struct stop *ret)
{
	int status = si->si_status;

	memset(ret, 0, sizeof *ret);
	if (si->si_code != CLD_TRAPPED && si->si_code != CLD_STOPPED) {
		ret->kind = STOP_EXITED;
		return;
	}
	ret->sig = status & 0x7f;
	ret->event = status >> 8;
	if (ret->event == PTRACE_EVENT_STOP)
		ret->kind = ret->sig == SIGTRAP ? STOP_TRAP : STOP_GROUP;
	else if (ret->event)
		ret->kind = STOP_EVENT;
	else if (status == (SIGTRAP | 0x80))
		ret->kind = STOP_SYSCALL;
	else
		ret->kind = STOP_SIGNAL;
}

/* A process (not just a thread of one) whose parent we are. */
static bool is_our_child(pid_t tid)
{
	char path[64];
	char *text = NULL, *ppid, *tgid;
	bool ours = false;

	(void)snprintf(path, sizeof path, "/proc/%d/status", tid);
	if (io_read_file(-1, path, &text, NULL) == 0 && (ppid = strstr(text, "\nPPid:")) &&
	    (tgid = strstr(text, "\nTgid:")))
		ours = strtol(ppid + 6, NULL, 10) == getpid() && strtol(tgid + 6, NULL, 10) == tid;
	free(text);
	return ours;
}

/* 1: something was seen; 0: nothing yet; negative: error. */
static int look(pid_t tid, bool ended_too, struct stop *ret, struct err *err)
{
	siginfo_t si = { 0 };

	/* without WEXITED nothing is reaped, so that a stop, the usual case, costs one call */
	if (waitid(P_PID, (id_t)tid, &si, WSTOPPED | WNOHANG | __WALL) == 0 && si.si_pid != 0) {
		classify(&si, ret);
		return 1;
	}
	if (!ended_too)
		return 0;
	si.si_pid = 0;
	if (waitid(P_PID, (id_t)tid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0) {
		if (errno == EINTR)
			return 0;
		if (errno == ECHILD) { /* reaped by someone else, or swallowed by an exec in another
					  thread */
			*ret = (struct stop){ .kind = STOP_EXITED };
			return 1;
		}
		return err_set(err, -errno, "cannot wait for thread %d: %m", tid);
	}
	if (si.si_pid == 0)
		return 0;
	classify(&si, ret);
	if (ret->kind == STOP_EXITED && is_our_child(tid))
		return 1;
	/* a tracee's stop is seen whatever was asked for */
	(void)waitid(P_PID, (id_t)tid, &si, WEXITED | WSTOPPED | WNOHANG | __WALL);
	return 1;
}

int trace_look(pid_t tid, struct stop *ret, struct err *err)
{
	return look(tid, true, ret, err);
}

int trace_wait(pid_t tid, int64_t deadline_ns, struct stop *ret, struct err *err)
{
	for (unsigned round = 0;; round++) {
		int n = look(tid, round % ROUNDS_PER_END == ROUNDS_PER_END - 1, ret, err);

		if (n != 0)
			return n < 0 ? n : 0;
		if (round < 200) {
			(void)sched_yield();
			continue;
		}
		if (trace_now_ns() > deadline_ns)
			return err_set(err, -ETIMEDOUT, "thread %d does not stop", tid);
		(void)clock_nanosleep(
			CLOCK_MONOTONIC, 0,
			&(struct timespec){ .tv_nsec = round < 1000 ? 20000 : 1000000 }, NULL);
	}
}

int trace_resume(pid_t tid, int how, int sig, struct err *err)
{
	if (ptrace((enum __ptrace_request)how, tid, 0, (long)sig) == 0)
		return 0;
	return err_set(err, -errno, "cannot resume thread %d: %m", tid);
}

int trace_newborn(pid_t tid, pid_t *ret, struct err *err)
{
	unsigned long msg = 0;

	if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &msg) < 0)
		return err_set(err, -errno, "cannot see what thread %d created: %m", tid);
	*ret = (pid_t)msg;
	return 0;
}

int trace_set_options(pid_t tid, unsigned long options, struct err *err)
{
	if (ptrace(PTRACE_SETOPTIONS, tid, 0, options) == 0)
		return 0;
	return err_set(err, -errno, "cannot set the tracing options of thread %d: %m", tid);
}

void trace_detach(pid_t tid, int sig)
{
	(void)ptrace(PTRACE_DETACH, tid, 0, (long)sig);
}
