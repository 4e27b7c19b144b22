/* SPDX-License-Identifier: BSD-2-Clause */
/* Transparent huge pages, where the job had them. */
#pragma once

#include "restore/internal.h"

#define HUGE_PAGE ((uint64_t)2 << 20)

struct filler;
struct sink;

/* Whom a fault brings huge pages, of those that have room for one. */
enum huge_given { HUGE_NOBODY, HUGE_ADVISED, HUGE_EVERYBODY };
/* With the program's own say in it (prctl(2), PR_SET_THP_DISABLE). */
enum huge_given huge_given(const struct build_process *bp);
bool huge_is_given(const struct vma *v, enum huge_given to);
/* May parts of this mapping be filled in another way than others, for their huge pages? */
bool huge_divides(const struct build_process *bp, const struct vma *v);
/* What the system says; to be put into each process's huge_always. */
bool huge_always(void);
/* Is all of it in the image? *cursor: a run before which there is nothing of it. */
bool huge_is_whole(const struct resolved_run *runs, unsigned n, unsigned *cursor, uint64_t start,
		   uint64_t end);

/* Further calls in the process's batch: around all that touches its memory too early for the kernel
 * to know what is to be there. */
void huge_forbid(struct build_process *bp);
void huge_permit(struct build_process *bp);

/*
 * In a process whose mappings have been made, before anything is filled: bp->huge, which is to be
 * in huge pages though no fault would bring one. They are there then, empty; later: they are to be
 * joined when the process runs and all is filled.
 */
int huge_prepare(struct restoring *r, struct build_process *bp, bool later, struct err *err);
/* The first of bp->huge that ends after the address; n_huge: none. */
unsigned huge_find(const struct build_process *bp, uint64_t at);
/* And before what the sink is to write is written. */
int huge_keep_small(struct restoring *r, struct build_process *bp, const struct sink *s,
		    struct err *err);

/* For later: with the process all but complete, one of ours that will join them. */
void huge_enlist(struct restoring *r, struct build_process *bp);
/* With all else filled: what was zero is there, too, as it was. From any thread. */
void huge_fill_zeros(const struct filler *f);
/* With the job running, and nobody filling any more. */
void huge_join(struct restoring *r);
/* Ends those that were enlisted, by who has traced them. */
void huge_discharge(struct restoring *r);
