/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the trace room: who belongs to the tree that is being frozen. */
#pragma once

#include "trace/freeze.h"
#include "util/arena.h"
#include "util/idmap.h"

struct kin {
	const struct freeze_opts *o;
	struct frozen *f;
	struct arena *scratch;
	struct idmap known;
	pid_t reaper; /* whose children are all of the job but for those to be ignored; 0: none */
};

/* Puts the root into the list. */
int kin_begin(struct kin *k, const struct freeze_opts *o, struct frozen *f, struct arena *scratch,
	      struct err *err);
void kin_end(struct kin *k);
/* Adds children of process number `parent`, which is stopped; returns how many were new. */
int kin_children(struct kin *k, unsigned parent, struct err *err);
/* The same, of children that somebody has seen. */
int kin_seen(struct kin *k, unsigned parent, const struct pid_list *children, struct err *err);
/* Looks at everybody's children again, orphans too; returns how many were new. */
int kin_again(struct kin *k, struct err *err);
/* Those that have ended come out of the list of processes: what still waits for its parent is a
 * zombie. */
int kin_sort_out(struct kin *k, struct err *err);
