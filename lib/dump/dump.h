/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking checkpoints of a running tree: freeze, find pages, capture, thaw, write. */
#pragma once

#include "image/chain.h"
#include "image/writer.h"
#include "state/tree.h"
#include "util/err.h"

#include <sys/types.h>

/* What is remembered of a job between its checkpoints (page tables of the tracker, ids of spaces,
 * parent state). */
struct dump_job;

/* chain and settings are borrowed and must live as long as the job. root: the tree's root process.
 */
int dump_job_new(pid_t root, struct chain *chain, const struct settings *settings,
		 struct dump_job **ret, struct err *err);
void dump_job_free(struct dump_job *job);
/* The root's parent looks after the job: whatever children it has are orphans of the job. */
void dump_job_adopted(struct dump_job *job);
/* The next checkpoint will be full (after a restart, or when the parent image has gone). */
void dump_job_want_full(struct dump_job *job);

/* -EOPNOTSUPP, and why, when the tracker of this name ("uffd", ...) does not work here. */
int dump_tracker_check(const char *name, struct err *err);

/* One attempt; every field of a --stats line (design.md section 7). */
struct dump_result {
	uint64_t seq;
	bool incremental;
	struct id128 state;
	char tracker[16];
	char mode[16];
	char why[96]; /* that mode */
	uint64_t pause_us, freeze_us, scan_us, snapshot_us, thaw_us, write_us;
	uint64_t pages_present;
	struct image_totals totals;
	unsigned processes, threads;
};

enum dump_flags {
	DUMP_KILL = 1 << 0, /* end the tree once the image is durable, without letting it run on */
	DUMP_LAST = 1 << 1, /* no other will follow: nothing need be watched or remembered for it */
};

/*
 * Takes one checkpoint: on return 0 the image is durable in the chain. On failure the job runs on
 * as if nothing had been and no partial file is left; -EOPNOTSUPP: something in the job cannot be
 * checkpointed (refused by name); -EAGAIN: could not be stopped now, worth trying again; -ESRCH:
 * the job has ended. ret is filled in every case. Never touches SIGCHLD state of processes that are
 * not ours to reap: uses waitpid on tids that it seized only. A root that ends during a checkpoint
 * is left as a zombie for the caller to reap.
 */
int dump_checkpoint(struct dump_job *job, unsigned flags, struct dump_result *ret, struct err *err);
