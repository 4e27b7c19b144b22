/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that comes while its process runs: what is asked for first, and everything in the end. */
#pragma once

#include "restore/filler.h"

struct demand;

/* Takes the filler over, whose processes are about to run, and starts to fill in the background. */
int demand_new(struct filler *f, struct demand **ret, struct err *err);
/* Stops the background and frees the filler too. Accepts NULL. */
void demand_free(struct demand *d);

/*
 * Each memory is one of those that `which` counts: what processes have that share one (CLONE_VM) is
 * the same.
 */
unsigned demand_count(const struct demand *d);
unsigned demand_of(const struct demand *d, const struct build_process *bp);

/* Readable when a thread waits for a page; demand_answer lets it go on. -1: all of that memory is
 * there. */
int demand_fault_fd(const struct demand *d, unsigned which);
int demand_answer(struct demand *d, unsigned which, struct err *err);
/* All is needed soon. (It comes without this too, unless CKPT_WITHOUT=background says otherwise.)
 */
int demand_hurry(struct demand *d, struct err *err);
/* Readable when all is there, or when it failed: demand_end then says why. */
int demand_done_fd(const struct demand *d);
/* The background has ended: from now on missing pages are the kernel's business again. */
int demand_end(struct demand *d, struct err *err);

/* What a system call is about to touch: there when this returns. */
int demand_range(struct demand *d, unsigned which, struct range range, struct err *err);
/* Whether any of it may be missing. */
bool demand_concerns(const struct demand *d, unsigned which, struct range range);
