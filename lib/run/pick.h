/* SPDX-License-Identifier: BSD-2-Clause */
/* Picking the state to restart: of a chain the newest complete image, or one that was named. */
#pragma once

#include "image/chain.h"
#include "util/arena.h"

#include <limits.h>

struct pick_opts {
	int64_t at;   /* the image with this number; -1: the newest complete one */
	bool force;   /* although the job has finished, or still runs */
	bool trust;   /* although somebody else could have written it */
	bool copy;    /* whoever uses the chain may go on with that */
	bool no_lock; /* a chain that cannot be locked for lack of rights will do: nothing will be
			 written */
	/* Called with a line for each image that is passed over, and why. */
	void (*warn)(void *arg, const char *msg);
	void *warn_arg;
};

struct pick {
	struct chain *chain; /* NULL: an image that is in no chain */
	bool writable;       /* the chain is ours: locked, and to be written to */
	char *dir;           /* of the chain, as named by the user */
	int64_t at;          /* as in the options, or from an image's name in a chain */
	struct resolved *state;
	struct arena *arena; /* holds the tree */
	struct tree *tree;
	uint64_t seq;        /* of the image that was taken */
	char name[PATH_MAX]; /* of that image, for messages */
};

/*
 * Opens CHAIN|IMAGE. An image that lies in a chain, under its number, stands for that chain and
 * number. A finished chain is refused unless at names an image or force is set; one whose job
 * still runs unless force or copy is.
 */
int pick_open(struct pick *p, const char *path, const struct pick_opts *o, struct err *err);
/*
 * Resolves and decodes the image to restart; after a first call, the newest complete one that is
 * older than the one taken then (which turned out to be damaged in its pages, say). Refuses, with
 * exit status 3, when there is none.
 */
int pick_take(struct pick *p, const struct pick_opts *o, struct err *err);
/* It has been restarted, and this is its first process: noted in the chain, where that is ours. */
void pick_note_job(const struct pick *p, const struct pick_opts *o, pid_t root);
void pick_fini(struct pick *p);
