/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread that has been asked to stop may come to other stops first: by a signal, a system call, a
 * child that it makes. It is run on from those, to the one that was asked for.
 */
#include "trace/settle.h"

#include "proc/proc.h"
#include "trace/outlive.h"
#include "trace/stop.h"
#include "util/cleanup.h"

#include <sys/ptrace.h>

/* A thread in uninterruptible sleep: a vfork parent, or a device. How long everybody waits for it.
 */
#define SLEEP_PATIENCE_MS 300
#define LOOK_MS           20

/* At once, so that a call that our stop made return EINTR goes on whatever becomes of us. */
static int take_registers(struct frozen_thread *t, struct err *err)
{
	int rc = regs_get(t->tid, &t->regs, err);

	if (rc == 0 && regs_undo_eintr(&t->regs.gp))
		rc = regs_set_gp(t->tid, &t->regs.gp, err);
	if (rc == 0)
		outlive_seen(t->tid);
	return rc;
}

/*
 * Runs a thread on from a stop that is not the one asked for. Entering it has forgotten our
 * PTRACE_INTERRUPT (ptrace_stop clears JOBCTL_TRAP_STOP), so it is asked again: else a thread that
 * then goes to sleep in a system call would never stop.
 */
static int run_on(pid_t tid, int sig, struct err *err)
{
	int rc = trace_interrupt(tid, err);

	return rc == 0 ? trace_resume(tid, PTRACE_CONT, sig, err) : rc;
}

/* As in /proc/PID/stat; 0: it has gone. */
static char state_of(pid_t tid)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;

	return proc_open_pid(tid, &dirfd, NULL) == 0 && proc_stat_read(dirfd, &st, NULL) == 0
		       ? st.state
		       : 0;
}

bool settle_can_run(pid_t tid)
{
	return state_of(tid) == 'R';
}

/* The deadline has passed: is it the thread, or a machine with too much to do? */
static int too_late(pid_t tid, struct err *err)
{
	return err_set(err, -ETIMEDOUT, "thread %d does not stop: %s", tid,
		       settle_can_run(tid) ? "it waits for a processor" : "it sleeps");
}

/* Its next stop; one that cannot stop soon is not waited for until the deadline. */
static int wait_stop(pid_t tid, int64_t deadline_ns, struct stop *stop, struct err *err)
{
	for (int slept_ms = 0;;) {
		int64_t next = trace_now_ns() + LOOK_MS * INT64_C(1000000);
		int rc = trace_wait(tid, MIN(next, deadline_ns), stop, err);

		if (rc != -ETIMEDOUT || !deadline_ns)
			return rc;
		if (next > deadline_ns)
			return too_late(tid, err);
		slept_ms = state_of(tid) == 'D' ? slept_ms + LOOK_MS : 0;
		if (slept_ms >= SLEEP_PATIENCE_MS)
			return err_set(
				err, -ETIMEDOUT,
				"thread %d does not stop: it waits for the child of a vfork, "
				"or for a device",
				tid);
	}
}

int settle_thread(struct frozen_thread *t, int64_t deadline_ns, struct err *err)
{
	for (;;) {
		struct stop stop;
		int rc = wait_stop(t->tid, deadline_ns, &stop, err);

		if (rc < 0)
			return rc;
		switch (stop.kind) {
		case STOP_TRAP:
		case STOP_GROUP:
			t->stopped = true;
			t->group_stop = stop.kind == STOP_GROUP;
			return take_registers(t, err);
		case STOP_EXITED:
			return -ESRCH;
		case STOP_SIGNAL: /* deliver it: the stop that we asked for comes before its
				     handler's first instruction */
			rc = run_on(t->tid, stop.sig, err);
			break;
		case STOP_EVENT:
		case STOP_SYSCALL:
			rc = run_on(t->tid, 0, err);
			break;
		}
		if (rc == -ESRCH)
			continue; /* killed while stopped: the next wait tells */
		if (rc < 0)
			return rc;
	}
}
