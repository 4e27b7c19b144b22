/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside the image writer: the slots that travel from the caller over the workers to the output
 * thread. */
#pragma once

#include "image/out.h"
#include "image/record.h"
#include "image/writer.h"

#include <pthread.h>
#include <stdatomic.h>

#define WRITER_SLOTS       96
#define WRITER_SEGS        128
#define WRITER_MAX_WORKERS 4
#define BLOCK_BYTES        ((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE)
#define WRITER_MAX_RUNS    (1u << 27)

/*
 *   caller                    workers                     output thread
 *   buffer/submit/run ----->  zero pages out, compress,   ----->  in order: place blocks, note
 * runs, fills the open slot       checksum; in any order              write, hand the slots back
 *
 * From hold to go somebody stands still until the caller is done, and ckpt-run's threads may be
 * stopped (SIGSTOP) with the lock in their hands. So the caller then takes all free slots at once,
 * keeps those that it has filled to itself, and touches nothing of the threads' unless it has none
 * left.
 *
 * A slot is one block's worth of pages and the list of what those pages are. Slots are queued in a
 * ring; the number of slots bounds memory. What has no data stays with the caller until the end.
 */
/* In the writer's memory a run's kind comes with the generation in which it was given. */
#define RUN_OF(kind, generation) ((uint32_t)(kind) | (uint32_t)(generation) << 8)
#define RUN_KIND(k)              ((k)&0xffu)
#define RUN_GENERATION(k)        ((k) >> 8)

struct seg {
	uint64_t page, npages;
	uint32_t space;
	uint32_t kind; /* RUN_HERE: the next npages pages of data, some of which may be zero. With
			  the generation, see RUN_OF */
};

struct slot {
	uint8_t *data;   /* BLOCK_BYTES, page-aligned */
	unsigned npages; /* given by the caller */
	unsigned n_segs;
	struct seg seg[WRITER_SEGS];
	bool ready; /* a block as it is stored elsewhere */
	struct image_stored from;
	/* the worker's answer */
	bool done;
	uint64_t zero; /* bit i: page i is zero and is not in the block */
	unsigned stored_pages;
	uint32_t stored; /* bytes of the block as it goes to disk, in data */
	enum block_codec codec;
	uint64_t sum;
};

struct image_writer {
	struct image_params params;
	pid_t pid;      /* whose threads these are */
	char *path;     /* for messages */
	char *name;     /* final name in dir; NULL: a pipe */
	char *tmp_name; /* NULL once renamed, or when there is no file to remove */
	int dir, fd;
	bool owns_fd;
	struct out out;
	uint8_t *pool;
	struct slot *slots;

	/* caller's side only */
	struct slot *open; /* gathers small submissions */
	struct slot *lent; /* outstanding buffer */
	bool gathering;    /* from hold to go */
	struct slot *mine[WRITER_SLOTS], *full[WRITER_SLOTS];
	unsigned n_mine, n_full; /* free ones; those gathered */
	uint32_t generation;
	struct page_run *given; /* zero, parent and no pages; the output thread's at the end */
	unsigned n_given, room_given;

	/* under lock */
	pthread_mutex_t lock;
	atomic_uint free_bell, work_bell, done_bell; /* rung when there is news: writer_ring */
	struct slot *free[WRITER_SLOTS];
	unsigned n_free;
	struct slot *ring[WRITER_SLOTS];
	uint64_t head, next_work,
		tail; /* output takes at head, workers at next_work, the caller adds at tail */
	bool finishing, stop;
	bool held;      /* workers wait */
	bool draining;  /* the caller waits until nothing is queued */
	struct err err; /* set once, before failed is; then read by anyone */
	atomic_bool failed;

	pthread_t worker[WRITER_MAX_WORKERS], output;
	unsigned n_workers;
	bool have_output;
	pid_t tids[WRITER_MAX_WORKERS + 1]; /* of those that have started, under lock */
	unsigned n_tids;
	bool background; /* under lock: those that start from now on step back at once */

	const struct tree *tree; /* once finishing is set */

	/* the output thread's, and commit's after it has ended */
	struct buf blocks;
	uint32_t n_blocks;
	struct page_run *runs;
	unsigned n_runs, room_runs;
	bool unsorted;
	uint64_t ordinal; /* stored pages so far */
	uint64_t run_end; /* ordinal after the last HERE run */
	struct image_totals totals;
};

/* Remembers the first failure and wakes everyone. */
void writer_fail(struct image_writer *w, const struct err *err);
/* What has failed so far, also in err; 0: nothing. */
int writer_failure(struct image_writer *w, struct err *err);
/* The open slot goes to the workers. */
void writer_queue_open(struct image_writer *w);
/* Wakes those that wait for news of this kind, and never waits for anybody (util/word.h). */
void writer_ring(atomic_uint *bell);
/* Waits for the next ring; called and returns with the lock held. */
void writer_listen(struct image_writer *w, atomic_uint *bell);
/* Each thread of the writer calls it first: so that it can be told to step back. */
void writer_enroll(struct image_writer *w);
/* A worker thread: prepares slots until there are no more. */
void *writer_worker(void *arg);
/* Zero pages out, compression, checksum: what a worker does to one slot. scratch has BLOCK_BYTES.
 */
void writer_prepare(struct slot *s, uint32_t compress, uint8_t *scratch);
int writer_check_stored(struct slot *s, struct err *err);
/* The output thread: writes slots in order, and at the end finishes the file and makes it durable.
 */
void *writer_output(void *arg);

/*
 * overlay.c: of the runs of several generations (any order) makes those that count, ascending, with
 * plain kinds. *runs is replaced. blocks: the encoded block index. -EEXIST: a page was given twice
 * in one generation, *ret_twice says which.
 */
int overlay_runs(struct page_run **runs, unsigned *n_runs, const uint8_t *blocks, uint32_t n_blocks,
		 struct page_run *ret_twice);
