/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of filling: the list of all that is to be read and where it goes. fill.c makes it and
 * works it off, demand.c serves parts of it out of turn while the process runs. */
#pragma once

#include "restore/sink.h"

#include <pthread.h>
#include <stdatomic.h>

/* Pages of one block that belong together at one place. */
struct piece {
	uint32_t image, block;
	uint32_t in_block, npages;
	const struct sink *sink;
	uint64_t at;      /* where in the sink */
	bool later;       /* may come while the process runs */
	atomic_bool done; /* and has come */
};

struct filler {
	struct restoring *r;
	struct sink *sinks; /* processes' first */
	unsigned n_sinks;
	struct piece *pieces; /* those for later last, each part by block */
	size_t n, room;
	size_t next, end; /* the pieces not yet taken by a worker */
	pthread_mutex_t lock;
	struct err err;
	int rc;
};

/* What one who reads blocks needs. */
struct fill_room {
	uint8_t *scratch, *pages;
};
int fill_room_init(struct fill_room *room, struct err *err);
void fill_room_fini(struct fill_room *room);

/* Reads what the pieces [p, end), in the order of their blocks and of one image, need, and puts it
 * into place. */
int fill_pieces(struct filler *f, struct piece *p, struct piece *end, const struct fill_room *room,
		struct err *err);
/* The whole of a worker's life: takes pieces until there are no more. */
void fill_work(struct filler *f);
void filler_free(struct filler *f);

/* demand.c: which pieces may come while the process runs. Before the list is sorted. */
int demand_choose(struct filler *f, struct err *err);
