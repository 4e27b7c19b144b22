/* SPDX-License-Identifier: BSD-2-Clause */
/* Marks of write-protection that nobody answers for: the pages under them are protected anew. */
#pragma once

#include "dump/tracker.h"

/* What t->runs says is marked in mappings that were not registered when it was looked at, and are
 * now. The process stands still. 0 or a negative errno. */
int uffd_marks_renew(const struct track_target *t);
/* What is marked in these mappings, which have been registered since the last find. */
int uffd_marks_find(const struct track_target *t, const struct ranges *where, struct err *err);
/* Takes all marks of a running process away. */
void uffd_rest(struct watched *w);
