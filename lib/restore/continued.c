/* SPDX-License-Identifier: BSD-2-Clause */
/* A child that was stopped and goes on, for which its parent has not waited (WCONTINUED) yet. */
#include "restore/internal.h"

#include "trace/regs.h"
#include "trace/stop.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

static int next_stop(pid_t tid, int deliver, struct stop *ret, struct err *err)
{
	int rc = trace_resume(tid, PTRACE_CONT, deliver, err);

	if (rc == 0)
		rc = trace_wait(tid, trace_now_ns() + 10LL * 1000000000, ret, err);
	if (rc == 0 && ret->kind == STOP_EXITED)
		rc = err_set(err, -ESRCH, "process %d has died", tid);
	return rc;
}

/*
 * It is stopped and continued while it has one thread, and nothing of the program's yet: SIGCONT
 * would take pending signals with it. The thread does not leave the kernel from the first signal to
 * the last, which the next call in it drops. Their parent hears nothing (maker_main).
 */
int continued_again(struct build_process *bp, struct err *err)
{
	struct stop stop = { 0 };
	int rc, deliver = 0;

	if (!bp->state->continued)
		return 0;
	rc = regs_set_mask(bp->pid, ~(UINT64_C(1) << (SIGCONT - 1)), err);
	if (rc == 0 && syscall(SYS_tgkill, bp->pid, bp->pid, SIGSTOP) < 0)
		rc = err_set(err, -errno, "cannot stop process %d: %m", bp->pid);
	while (rc == 0 && stop.kind != STOP_GROUP) {
		rc = next_stop(bp->pid, deliver, &stop, err);
		deliver = stop.kind == STOP_SIGNAL && stop.sig == SIGSTOP ? SIGSTOP : 0;
	}
	if (rc == 0 && syscall(SYS_tgkill, bp->pid, bp->pid, SIGCONT) < 0)
		rc = err_set(err, -errno, "cannot continue process %d: %m", bp->pid);
	while (rc == 0 && !(stop.kind == STOP_SIGNAL && stop.sig == SIGCONT))
		rc = next_stop(bp->pid, 0, &stop, err);
	return rc;
}
