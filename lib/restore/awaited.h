/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls that threads of a lazily restored job are still to issue again, and how they are let go. */
#pragma once

#include "trace/regs.h"
#include "trace/stop.h"

/* The call, and the registers just before it; nr -1: none, it is there. */
struct awaited {
	int64_t nr;
	struct user_regs_struct before;
};

/* A signal is about to be delivered: it finds the call interrupted. */
int awaited_interrupt(struct awaited *c, pid_t tid, struct err *err);
/* Lets go of the thread, which has stopped so. 1: not yet, at its next stop. */
int awaited_leave(struct awaited *c, pid_t tid, const struct stop *stop, struct err *err);
