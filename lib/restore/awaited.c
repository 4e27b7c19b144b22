/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread that was in a call when it was saved issues it again. Until it has, a signal that comes
 * must end the call all the same (EINTR), not only run its handler before it: pause(2) would wait
 * for what has been. So its registers become those of an interrupted call then, of which the kernel
 * makes what is right.
 *
 * Whoever is let go of looks for signals first, and a call that it is just about to make would
 * return EINTR although there is none: that is taken back.
 */
#include "restore/awaited.h"

#include <sys/ptrace.h>

int awaited_interrupt(struct awaited *c, pid_t tid, struct err *err)
{
	int rc = regs_interrupt_thread(tid, &c->before, c->nr, err);

	if (rc == 0)
		c->nr = -1;
	return rc;
}

static bool is_entry(pid_t tid)
{
	struct __ptrace_syscall_info info = { 0 };

	return ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0 &&
	       info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

/* One that waits for signals, whatever their handlers' flags, is as good as begun. */
static void take_back(struct awaited *c, struct user_regs_struct *gp)
{
	int64_t nr = (int64_t)gp->orig_rax;

	regs_take_back(gp);
	if (c->nr < 0 && regs_is_ended_by_signals(gp, nr))
		*c = (struct awaited){ nr, *gp };
}

int awaited_leave(struct awaited *c, pid_t tid, const struct stop *stop, struct err *err)
{
	struct thread_regs regs;
	bool rests = stop->kind == STOP_TRAP;

	if (stop->kind == STOP_EXITED)
		return 0;
	if (stop->kind == STOP_SIGNAL || stop->kind == STOP_GROUP) {
		(void)awaited_interrupt(c, tid, err);
		trace_detach(tid, stop->kind == STOP_SIGNAL ? stop->sig : 0);
		return 0;
	}
	if (regs_get(tid, &regs, err) < 0)
		return 1;
	if (stop->kind == STOP_SYSCALL && is_entry(tid)) {
		take_back(c, &regs.gp);
		rests = c->nr < 0;
	} else if (!regs_undo_eintr(&regs.gp) && rests) {
		(void)regs_interrupt(&c->before, c->nr, &regs.gp);
	}
	if (regs_set_gp(tid, &regs.gp, err) < 0)
		return 1;
	if (rests) {
		trace_detach(tid, 0);
		return 0;
	}
	/* the kernel looks at what an interrupted call is to do next after its exit's stop */
	(void)trace_interrupt(tid, NULL);
	(void)trace_resume(tid, PTRACE_CONT, 0, NULL);
	return 1;
}
