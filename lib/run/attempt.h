/* SPDX-License-Identifier: BSD-2-Clause */
/* The checkpoint thread: takes checkpoints one after the other, while the supervisor goes on
 * listening. */
#pragma once

#include "dump/dump.h"

/*
 * ptrace(2) belongs to the thread that seized; so one thread of ours does all of it. The supervisor
 * asks for an attempt, sees the descriptor become readable, and takes the outcome.
 */
struct checkpointer;

struct attempt {
	int rc; /* of dump_checkpoint */
	struct dump_result result;
	uint64_t cpu_ns; /* processors' time that we spent on it */
	struct err err;
	struct err
		retain; /* code < 0: the checkpoint is good, but old images could not be removed */
};

/*
 * root, chain and settings as for dump_job_new; they must outlive the thread. full: the first image
 * is full. All signals must be blocked already, since the thread inherits the mask.
 */
int checkpointer_new(pid_t root, struct chain *chain, const struct settings *settings, bool full,
		     struct checkpointer **ret, struct err *err);
/* The images that the chain holds now are another job's: they go once the first new one is durable.
 * Before any start. */
void checkpointer_replace(struct checkpointer *c);
/* We look after the job: its orphans are our children, or our init's. Before any start. */
void checkpointer_adopts(struct checkpointer *c);
/* Readable when an attempt has ended. */
int checkpointer_fd(const struct checkpointer *c);
/* Begins an attempt; flags: enum dump_flags. None may be under way. */
void checkpointer_start(struct checkpointer *c, unsigned flags);
/* The outcome of the attempt that has ended; called once for each, after the descriptor became
 * readable. */
void checkpointer_take(struct checkpointer *c, struct attempt *ret);
/* Waits for an attempt under way. Accepts NULL. */
void checkpointer_free(struct checkpointer *c);
