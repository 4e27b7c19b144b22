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
	int parent; /* index in the list; -1: the root, or a child of whoever looks after the job */
	struct frozen_thread *threads; /* the leader first, unless it has ended */
	unsigned n_threads;
	bool has_children; /* ... or had, once it was stopped */
};

/* Ended, and not waited for yet by its parent, which is stopped. */
struct frozen_zombie {
	pid_t pid;
	int parent;
};

struct frozen {
	struct frozen_process *procs; /* a parent before its children; the root first */
	unsigned n_procs;
	struct frozen_zombie *zombies;
	unsigned n_zombies;
};

struct pid_list {
	pid_t *pids;
	unsigned n;
};

/* Somebody who sees, on another CPU, which children processes have. */
struct freeze_reader {
	/* Process number i has been stopped, with all its threads; each in turn, those that have
	 * ended left out. */
	void (*look)(void *arg, unsigned i, pid_t pid);
	/* Its children, once; NULL: nobody has seen. */
	const struct pid_list *(*take)(void *arg, unsigned i);
	void *arg;
};

struct freeze_opts {
	pid_t root;
	const struct freeze_reader *reader; /* NULL: nobody */
	/*
	 * Orphans of the job become children of the root's parent (ckpt-run, ckpt-restart), so that
	 * all its children but those in ignore are of the job. Where the root's parent is the init
	 * of a pid namespace below ours, that is so in any case.
	 */
	bool adopted;
	const pid_t *ignore;
	unsigned n_ignore;
	/* Others that belong to the job though nobody in it is their parent. */
	const pid_t *also;
	unsigned n_also;
	unsigned timeout_ms;
};

/*
 * Seizes and stops all threads of root and of its descendants and orphans; newborns are caught and
 * stopped too. Must be called, like everything until thaw, from one thread. -EAGAIN: a thread did
 * not stop within timeout_ms (less for a vfork parent and uninterruptible sleep): all is let go
 * that could be; the calling thread should end so that the kernel drops the rest. -ESRCH: root is
 * gone.
 */
int freeze_job(const struct freeze_opts *o, struct frozen **ret, struct err *err);
/* Without orphans. */
int freeze_tree(pid_t root, unsigned timeout_ms, struct frozen **ret, struct err *err);
/*
 * Looks again: have processes come to the job that are not in f? Nothing stopped can create any,
 * but a process that becomes an orphan may move to one of its ancestors that has been looked at.
 */
int freeze_check(const struct freeze_opts *o, const struct frozen *f, struct err *err);
/* Lets everything go on as it was (thread_regs must be in place already: see live_end), and frees.
 */
void freeze_thaw(struct frozen *f);
/* Sends SIGKILL to every process instead, and frees. */
void freeze_kill(struct frozen *f);
