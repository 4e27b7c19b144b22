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

/*
 * Some calls return -EINTR when the thread is stopped, although no handler ran (signal(7),
 * "Interruption of system calls by stop signals": epoll_wait, sigtimedwait, semop, io_getevents,
 * sockets with timeouts). Makes such a return one that the kernel restarts (-ERESTARTNOHAND: unless
 * a handler runs first), so that the thread does not notice. True if gp was changed.
 */
bool regs_undo_eintr(struct user_regs_struct *gp);

/*
 * The registers with which the thread would issue its interrupted system call again (rip at the
 * syscall instruction), for a context that the kernel's own restart logic will not see: a restart
 * of the process, or healing itself. restart_nr: the number for -ERESTART_RESTARTBLOCK, either
 * SYS_restart_syscall (while the kernel's restart block is there) or the original call's number.
 * Returns the call's number, -1 when the thread was not in a call.
 */
int64_t regs_reissue(const struct user_regs_struct *gp, int64_t restart_nr,
		     struct user_regs_struct *ret);
/* True when the interrupted call would restart through the restart block (nanosleep, poll, futex
 * with timeout). */
bool regs_in_restart_block(const struct user_regs_struct *gp);
/* True when the interrupted call returns EINTR if a handler runs now (pause, ppoll, nanosleep,
 * ...). */
bool regs_eintr_on_handler(const struct user_regs_struct *gp);
