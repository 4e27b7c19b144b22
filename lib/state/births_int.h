/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of planning births: births.c is about kinship, births_share.c about what clone(2) shares.
 */
#pragma once

#include "state/births.h"
#include "util/idmap.h"

#include <stdbool.h>

enum { OUTSIDE = 0, ANY = -1 };

/* A process or zombie, as far as kinship goes. */
struct member {
	int32_t pid, ppid, pgid, sid; /* pgid, sid: OUTSIDE if not of the tree */
	int32_t birth_sid;            /* the session to be born in, or ANY */
	int parent;                   /* member, -1: none in the tree */
	int birth;                    /* its birth, once it has one */
	int32_t exit_signal;
	bool subreaper;
};

struct planner {
	const struct tree *t;
	int32_t *memory_of; /* parallel to processes: the first that has the same memory */
	struct arena *a;
	struct member *m;
	unsigned n, n_births_room;
	struct idmap by_pid; /* members */
	struct idmap ghosts; /* births, by the pid of the one that has ended */
	struct births *b;
	int *last_child; /* parallel to births */
	struct err *err;
};

int births_refuse(struct planner *p, int32_t pid, const char *why);
/* Who has whose memory. */
int births_find_memory(struct planner *p);
/* If a process cannot have from this creator what it shares: 1, and the sibling that makes it
 * instead. */
int births_by_sibling(struct planner *p, unsigned i, int *creator, bool *late);
/* What each birth shares with its creator, once all are planned. */
int births_share(struct planner *p);
