/* SPDX-License-Identifier: BSD-2-Clause */
/* In which order the processes of a tree are made so that everybody gets the parent, the session
 * and the process group that were recorded. */
#pragma once

#include "state/tree.h"
#include "util/arena.h"
#include "util/err.h"

/*
 * A process gets its session by being born into it, or by starting one (setsid(2)). So whoever is
 * in its parent's older session is born before the parent starts its own. An orphan is made by a
 * *step*, a process that ends at once, so that the orphan goes to whoever adopts orphans; it is
 * born into its session by being made by the session's leader, or by the leader's *ghost*: a
 * process with the id of a leader that has ended, which is there only while others are born. Ghosts
 * lead process groups, too. All groups are joined when everybody is born. What is shared by
 * clone(2) comes from the creator: where that cannot be the parent, a sibling is (CLONE_PARENT).
 */
enum birth_kind { BIRTH_PROCESS, BIRTH_ZOMBIE, BIRTH_GHOST, BIRTH_STEP };

struct birth {
	enum birth_kind kind;
	unsigned index;      /* in tree->processes, or tree->zombies */
	int32_t pid;         /* 0: any (a step) */
	int32_t exit_signal; /* what its maker gets when it ends */
	int creator;         /* index of the birth; -1: the first */
	int group; /* index of the birth that leads its group; -1: the one it is born in */
	bool late; /* made after its creator has started its session */
	bool new_session, new_group; /* new_group and group: leaves it when all have joined */
	uint64_t share; /* with its creator: CLONE_VM, CLONE_FILES, CLONE_FS, CLONE_SIGHAND */
	bool sibling;   /* of its creator, by CLONE_PARENT */
	int first_child, next_sibling; /* births with this creator, in order; -1: none */
};

struct births {
	struct birth *v; /* a creator before whom it makes; the root first */
	unsigned n;
	bool adopting; /* processes adopt orphans: the subreaper flags are set before any is made */
};

/* -EOPNOTSUPP: this tree cannot be made again, and err says which process stands in the way. */
int births_plan(const struct tree *t, struct arena *a, struct births *ret, struct err *err);
