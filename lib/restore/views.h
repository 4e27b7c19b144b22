/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared memory that comes while the job runs: which, and where its processes see it. */
#pragma once

#include "restore/filler.h"

/* Is there nobody who could look at it but through mappings in the job? */
bool views_can_wait(const struct tree *t, const struct space *s);
/* Of a space's file (s->fd): pages are put into it one by one, through a mapping of ours, s->base;
 * 0 where that cannot be. */
int views_open(struct sink *s, const struct space *space, struct err *err);
/* Registers the job's mappings of all these; a sink that must be filled at once gets `now`. */
int views_enroll(struct filler *f, struct err *err);
/* The first view that ends after the address; n_views: none. */
unsigned views_find(const struct sink *s, uint64_t at);
/* The part of sink_close that is about these. */
void views_forget(struct sink *s);
/* Pages that have been put there need not stay mapped here. */
void views_drop(const struct sink *s, uint64_t at, size_t len);
