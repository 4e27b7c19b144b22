/* SPDX-License-Identifier: BSD-2-Clause */
/* A copy of a stopped process, forked inside it: its memory of this instant, to be read later. */
#pragma once

#include "inject/remote.h"

/* A process of its own that nobody in the job can see or wait for; it never runs the job's code. */
struct snapshot;

struct snapshot_range {
	uint64_t start, end;
};

/*
 * Forks the live remote (inject/live.h), from the thread that traces it. drop: ranges of memory
 * that the copy gives up, in ascending order: whatever it must not keep in use (shared memory,
 * files), and nobody will read from it.
 *
 * What fork(2) leaves out is not in the copy: MADV_DONTFORK is absent, MADV_WIPEONFORK zero, and
 * shared memory stays shared.
 *
 * The remote is as before, whatever is returned. -EAGAIN, -ENOMEM and the like: the fork was
 * refused (RLIMIT_NPROC, pids cgroup, overcommit), which says nothing against copying the memory
 * otherwise; -ESRCH: the process itself has ended.
 */
int snapshot_fork(struct remote *r, const struct snapshot_range *drop, unsigned n_drop,
		  struct snapshot **ret, struct err *err);
/*
 * The copy gives up n ranges of what it has in memory, which will not be read any more: a page that
 * the job alone has need not be copied when it is written to. In ascending order; what lies between
 * mappings in one is left out. By the copy's tracer. After an error no more of this should be
 * tried.
 */
int snapshot_give_up(struct snapshot *s, const struct snapshot_range *ranges, unsigned n,
		     struct err *err);
/* The copy's /proc/PID/mem (do not use process_vm_readv: it would copy each page). Borrowed. A read
 * of nothing at an address that was mapped: somebody has killed the copy. */
int snapshot_mem(const struct snapshot *s);
pid_t snapshot_pid(const struct snapshot *s);
/* Begins to end the copy; its memory goes in the background. Accepts NULL. */
void snapshot_kill(struct snapshot *s);
/*
 * Ends it, waits until it is gone, and reaps it if the caller's process has adopted it (the tracer
 * must have ended); frees s. Accepts NULL. False: it is a zombie that its parent, some other
 * process, does not reap: no more snapshots should be made of this job.
 */
bool snapshot_free(struct snapshot *s);
