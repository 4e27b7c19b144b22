/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers and signal mask of a stopped thread, and the system call that it was interrupted in. */
#pragma once

#include "util/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

struct thread_regs {
	struct user_regs_struct gp; /* with orig_rax; what the thread goes on with */
	uint64_t sigmask; /* what PTRACE_GETSIGMASK says: the mask outside of sigsuspend and friends
			   */
};

int regs_get(pid_t tid, struct thread_regs *ret, struct err *err);
int regs_set_gp(pid_t tid, const struct user_regs_struct *gp, struct err *err);
int regs_set_mask(pid_t tid, uint64_t mask, struct err *err);
/* The standard-format XSAVE area (NT_X86_XSTATE). *len: room in, bytes out. */
int regs_get_xstate(pid_t tid, void *buf, size_t *len, struct err *err);
int regs_set_xstate(pid_t tid, const void *buf, size_t len, struct err *err);

/* Was it stopped on its way out of a system call? */
bool regs_in_syscall(const struct user_regs_struct *gp);
/*
 * Some calls return -EINTR when the thread is stopped, although no handler ran (signal(7),
 * "Interruption of system calls by stop signals": epoll_wait, sigtimedwait, semop, io_getevents,
 * sockets with timeouts). Makes such a return one that the kernel restarts (-ERESTARTNOHAND: unless
 * a handler runs first), so that the thread does not notice. True if gp was changed.
 */
bool regs_undo_eintr(struct user_regs_struct *gp);

/*
 * A thread that is let go in a call with a restart block comes to a syscall instruction with the
 * number of restart_syscall(2). *ret: what it would be when it is interrupted in there. false: by
 * its registers it is not before that call (*ret is *gp); true: so it is, if that is the
 * instruction.
 */
bool regs_enter_restart(const struct user_regs_struct *gp, struct user_regs_struct *ret);
/*
 * The registers with which the thread would issue its interrupted system call again (rip at the
 * syscall instruction), for a context that the kernel's own restart logic will not see: a restart
 * of the process, or healing itself. restart_nr: the number for -ERESTART_RESTARTBLOCK, either
 * SYS_restart_syscall (while the kernel's restart block is there) or the original call's number.
 * Returns the call's number, -1 when the thread was not in a call.
 */
int64_t regs_reissue(const struct user_regs_struct *gp, int64_t restart_nr,
		     struct user_regs_struct *ret);
/*
 * The way back: gp is that of a thread which is about to issue its call (nr) again and stands where
 * `was` says, or has gone on (false). It becomes that of one whose call has just been interrupted,
 * so that the kernel, when it delivers a signal now, lets the call return EINTR where a handler
 * runs, or issues it again, as if the thread had been in the call all the time.
 */
bool regs_interrupt(const struct user_regs_struct *was, int64_t nr, struct user_regs_struct *gp);
/* The same to a stopped thread; nr -1: there is no such call. */
int regs_interrupt_thread(pid_t tid, const struct user_regs_struct *was, int64_t nr,
			  struct err *err);
/* Is this a call that a handler ends with EINTR always (signal(7))? */
bool regs_is_ended_by_signals(const struct user_regs_struct *gp, int64_t nr);
/* Of a thread that has stopped at the entry of a call: it does not make it now, but issues it
 * again. */
void regs_take_back(struct user_regs_struct *gp);
/*
 * Of a call that regs_undo_eintr keeps going: which argument says how long it waits at most, and
 * what it returns when that is over. Every checkpoint starts its wait anew, so somebody must see to
 * it that it ends. False: not such a call, or its timeout is not an argument.
 */
struct regs_timeout {
	unsigned long long arg; /* milliseconds (negative int: for ever), or the address of a
				   timespec (0: for ever) */
	bool is_timespec;
	long result;
};
bool regs_timeout_of(const struct user_regs_struct *gp, struct regs_timeout *ret);
/* The call returns this now. */
void regs_return(struct user_regs_struct *gp, long result);
/* True when the interrupted call would restart through the restart block (nanosleep, poll, futex
 * with timeout). */
bool regs_in_restart_block(const struct user_regs_struct *gp);
/* True when the interrupted call returns EINTR if a handler runs now; sa_restart: one with
 * SA_RESTART (signal(7)). */
bool regs_eintr_on_handler(const struct user_regs_struct *gp, bool sa_restart);
