/* SPDX-License-Identifier: BSD-2-Clause */
/* Stops every thread of a process tree at one instant, and lets go of them. */
#pragma once

#include "trace/regs.h"
#include "util/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct frozen_thread {
	pid_t tid; /* as seen from here */
	bool stopped;
	bool group_stop;         /* SIGSTOP and the like were in effect */
	struct thread_regs regs; /* what it goes on with */
};

struct frozen_process {
	pid_t pid;
	int parent;                    /* index in the list; -1: the root */
	struct frozen_thread *threads; /* the leader first */
	unsigned n_threads;
};

struct frozen {
	struct frozen_process *procs; /* a parent before its children */
	unsigned n_procs;
};

/*
 * Seizes and stops all threads of root and of its descendants; newborns are caught and stopped too.
 * Must be called, like everything until thaw, from one thread. -EAGAIN: a thread did not stop
 * within timeout_ms (a vfork parent, uninterruptible sleep): all is let go that could be; the
 * calling thread should end so that the kernel drops the rest. -ESRCH: root is gone.
 */
int freeze_tree(pid_t root, unsigned timeout_ms, struct frozen **ret, struct err *err);
/* Lets everything go on as it was (thread_regs must be in place already: see live_end), and frees.
 */
void freeze_thaw(struct frozen *f);
/* Sends SIGKILL to every process instead, and frees. */
void freeze_kill(struct frozen *f);
