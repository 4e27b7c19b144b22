/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes one image front to back: page blocks compressed by worker threads, then the sections and
 * directory. */
#pragma once

#include "image/format.h"
#include "state/tree.h"
#include "util/err.h"

struct image_writer;

#define RUN_NONE 0 /* of no enum run_kind: only ever told to the writer */

struct image_params {
	struct id128 state;  /* id of the state that this image will hold */
	struct id128 parent; /* id of the parent state; all zero = full image */
	uint64_t seq;
	uint32_t compress; /* enum compress_mode */
	unsigned threads;  /* workers; 0 = as many as cores, at most 4 */
	int direct;        /* try O_DIRECT */
	int modest;        /* a quarter of the memory */
};

struct image_totals {
	uint64_t pages_written, pages_zero, pages_parent;
	uint64_t bytes_raw;    /* page bytes before compression */
	uint64_t bytes_stored; /* the whole file */
};

/*
 * Starts an image as a temporary file ".NAME.tmp" (0600, O_EXCL) in the directory dirfd;
 * image_writer_commit renames it to name. With name NULL, dirfd is itself the descriptor to write
 * to (a pipe, say; borrowed): then nothing is synced or renamed. Memory is bounded: at most about
 * 24 MiB in blocks.
 */
int image_writer_open(int dirfd, const char *name, const struct image_params *params,
		      struct image_writer **ret, struct err *err);

/*
 * A free buffer of IMAGE_BLOCK_PAGES pages to fill; blocks until one is free. At most one may be
 * outstanding. NULL with err set once the writer has failed (disk full, ...).
 */
void *image_writer_buffer(struct image_writer *w, struct err *err);
/*
 * Hands the outstanding buffer back: its first npages pages are pages [page, page + npages) of the
 * space. All-zero pages become RUN_ZERO, the others a block (RUN_HERE). Pages of a space must come
 * in ascending order, and a space must be finished before the next begins. npages 0 just gives the
 * buffer back.
 */
int image_writer_submit(struct image_writer *w, uint32_t space, uint64_t page, unsigned npages,
			struct err *err);
/*
 * The same with a block of another image as it is stored there: the buffer holds `stored` bytes
 * with this checksum, npages pages none of which is zero. A worker checks it; damaged() says how
 * the failure is to be called.
 */
struct image_stored {
	uint32_t stored;
	enum block_codec codec;
	uint64_t sum;
	int (*damaged)(const void *arg, uint32_t block, struct err *err);
	const void *arg;
	uint32_t block;
};
int image_writer_submit_stored(struct image_writer *w, uint32_t space, uint64_t page,
			       unsigned npages, const struct image_stored *how, struct err *err);
/* Says of pages that they are RUN_ZERO or RUN_PARENT; same order rule. RUN_NONE: what was given of
 * them in an earlier generation does not count, and the image says nothing about them. */
int image_writer_run(struct image_writer *w, uint32_t space, uint32_t kind, uint64_t page,
		     uint64_t npages, struct err *err);
/*
 * From here on pages may be given again, and spaces come from the beginning again: what was given
 * last counts. Copies that do not count stay in the file, where nothing refers to them. Within one
 * generation no page may be given twice; there are at most WRITER_GENERATIONS.
 */
#define WRITER_GENERATIONS 48
void image_writer_generation(struct image_writer *w);
/* Waits until all that was submitted has been written. Not while it is held. */
int image_writer_drain(struct image_writer *w, struct err *err);
/*
 * Has memory for so many pages at once ready: the first touch of a page costs as much as copying
 * it. A hint.
 */
void image_writer_warm(struct image_writer *w, uint64_t npages);
/*
 * From hold to go, what is submitted only gathers in memory, so that neither compression nor the
 * disk takes a core from the caller; when the blocks are used up writing begins by itself.
 */
void image_writer_hold(struct image_writer *w);
void image_writer_go(struct image_writer *w);
/*
 * Whoever's pages these are runs again: from now on the writer's threads leave the cores and the
 * disk to it as far as it wants them (nice level, I/O priority). For good: priority that was given
 * up cannot be had back without privilege.
 */
void image_writer_background(struct image_writer *w);
/*
 * Finishes: sections, directory, trailer, fsync, rename, fsync of the directory. When it returns 0
 * the image is durable. Frees the writer in every case; on failure the temporary file is gone.
 * ret_totals may be NULL.
 */
int image_writer_commit(struct image_writer *w, const struct tree *tree,
			struct image_totals *ret_totals, struct err *err);
const struct image_params *image_writer_params(const struct image_writer *w);
/* Gives up: joins the workers, removes the temporary file, frees. Accepts NULL. */
void image_writer_abort(struct image_writer *w);
