/* SPDX-License-Identifier: BSD-2-Clause */
/* Merge: writes the state that an image and its parents hold as one full image, and tidies the
 * chain behind it. */
#pragma once

#include "image/chain.h"
#include "image/writer.h"

#include <signal.h>

struct merge_progress {
	const volatile sig_atomic_t
		*stop; /* may be NULL; non-zero: give up with -EINTR, nothing changed */
};

/*
 * Parameters for a writer that is to hold the same state as r: its state id, number, no parent. The
 * caller opens the writer with them (compression and threads are its choice) before it enters its
 * sandbox.
 */
void merge_params(const struct resolved *r, struct image_params *ret);

/*
 * Reads every page of the state and its tree, writes them through w and commits it. w is freed in
 * every case. Needs no more memory than the writer and one block of each image, at most
 * MERGE_BLOCKS_MAX of them.
 */
#define MERGE_BLOCKS_MAX 48
int merge_write(const struct resolved *r, struct image_writer *w,
		const struct merge_progress *progress, struct image_totals *ret_totals,
		struct err *err);

/*
 * To be called once image `seq` of the (scanned, write-locked) chain is full: removes the images
 * before it that no image after it needs. Durable. ret_removed may be NULL.
 */
int merge_tidy(struct chain *c, uint64_t seq, unsigned *ret_removed, struct err *err);
