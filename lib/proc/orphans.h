/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes that belong to a running tree although their parents have ended, so that they are
 * nobody's children in it. */
#pragma once

#include "util/arena.h"
#include "util/err.h"

#include <sys/types.h>

struct orphan {
	pid_t pid;
	char *comm;
};

struct orphans {
	struct orphan *belong; /* their own children are not listed */
	unsigned n_belong;
	/* Left outside, but of the root's session, and nobody's children in it either: they may
	 * have come from the tree, or from elsewhere. */
	struct orphan *left;
	unsigned n_left;
};

/*
 * Of a root that we are not the parent of. Who is in a session or process group that a process of
 * the tree leads belongs to it: one gets there by descent only, or (into a group) by the shell that
 * made both one job. So does who shares memory with it (-EOPNOTSUPP where that is an ancestor of
 * the root). Never the caller, nor its descendants and ancestors.
 */
int proc_orphans(pid_t root, struct arena *a, struct orphans *ret, struct err *err);
