/* SPDX-License-Identifier: BSD-2-Clause */
/* Rebuilding a tree from a state: plan, make, fill, place, go. */
#pragma once

#include "image/chain.h"
#include "object/object.h"
#include "util/err.h"

enum pids_mode { PIDS_AUTO, PIDS_KEEP, PIDS_NAMESPACE, PIDS_NEW };

struct restore_opts {
	enum pids_mode pids;
	struct rebuild_opts rebuild;
	bool lazy;    /* let it run at once; its memory comes while it does */
	bool verbose; /* warn is also told what was filled first, and how long that took */
	bool detach;  /* the tree outlives the caller: no EXITKILL, no pdeathsig on its init */
	/* Called with one-line warnings ("new process ids: ..."); may be NULL. */
	void (*warn)(void *arg, const char *msg);
	void *warn_arg;
	/* Called when the tree is complete and about to be let go, with its root as seen from here;
	 * may be NULL. */
	void (*ready)(void *arg, pid_t root, pid_t foreground);
	void *ready_arg;
};

struct restored {
	pid_t root;    /* the root process as seen from here */
	pid_t child;   /* our own child: root itself, or the init of the tree's pid namespace */
	int pidfd;     /* of root */
	int status_fd; /* the root's wait status (4 bytes, host order) can be read here when it
			  ends; -1: root is our own child, use waitpid(root). With status_fd, child
			  is to be reaped too. */
	int keeper; /* -1, or a pidfd of the process that brings memory and traces the tree: until
		       it ends, child is its child, not ours, and nobody may seize */
};

/*
 * Rebuilds the tree and lets it go on. On failure no process, file or namespace is left and err
 * says which object failed. The image is never written to. trees are started stopped and released
 * at the very end, all at once. opts->lazy: the caller is a child subreaper, and has one thread.
 */
int restore_tree(struct resolved *state, const struct tree *tree, const struct restore_opts *opts,
		 struct restored *ret, struct err *err);
