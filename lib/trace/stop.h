/* SPDX-License-Identifier: BSD-2-Clause */
/* Seize, interrupt, wait, let go: the ptrace state of one thread. Nobody else looks at a raw wait
 * status. */
#pragma once

#include "util/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * ptrace(2) binds a tracee to the tracing *thread*: all calls for a tracee come from the thread
 * that seized it, and when that thread ends the kernel lets go of everything it still holds.
 */
enum stop_kind {
	STOP_TRAP,    /* by PTRACE_INTERRUPT, or a newborn's first stop: quiet, between signals */
	STOP_GROUP,   /* the same, while a group stop (SIGSTOP, ...) is in effect */
	STOP_SIGNAL,  /* about to receive the signal sig, which PTRACE_CONT delivers or drops */
	STOP_SYSCALL, /* entry to or exit from a system call (PTRACE_SYSCALL) */
	STOP_EVENT,   /* clone, fork, vfork, exec */
	STOP_EXITED,  /* gone: exited or killed; reaped unless it is a child of ours */
};

struct stop {
	enum stop_kind kind;
	int sig;
	int event; /* PTRACE_EVENT_* */
};

int64_t trace_now_ns(void);

/* Seizes a thread without stopping it. -EPERM comes with the usual causes as a hint; -ESRCH: gone.
 */
int trace_seize(pid_t tid, unsigned long options, struct err *err);
/* Asks for a stop (PTRACE_INTERRUPT). */
int trace_interrupt(pid_t tid, struct err *err);
/* Waits for the next stop; -ETIMEDOUT when there was none by the deadline (trace_now_ns clock). */
int trace_wait(pid_t tid, int64_t deadline_ns, struct stop *ret, struct err *err);
/* Looks without waiting: 1 and the stop, 0 when there is none yet, or a negative errno. */
int trace_look(pid_t tid, struct stop *ret, struct err *err);
/* how: PTRACE_CONT, PTRACE_SYSCALL, or PTRACE_LISTEN in a group stop. */
int trace_resume(pid_t tid, int how, int sig, struct err *err);
/* In the stop of a clone event: who was born (as seen from here). */
int trace_newborn(pid_t tid, pid_t *ret, struct err *err);
/* PTRACE_O_* of a stopped thread. */
int trace_set_options(pid_t tid, unsigned long options, struct err *err);
/* Detaches from a stopped thread; one that has gone is fine. */
void trace_detach(pid_t tid, int sig);
