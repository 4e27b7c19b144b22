/* SPDX-License-Identifier: BSD-2-Clause */
/* An invented job whose memory at every checkpoint is known by computation: for images to test
 * with. */
#pragma once

#include "state/tree.h"
#include "util/arena.h"

#include <stdbool.h>

/*
 * Generation g = 1, 2, ... is what the job is like at its g-th checkpoint. Three processes; the
 * third begins with generation 2. Spaces: private memory of each, shared memory of the first two, a
 * deleted file that is gone from generation 4 on. Each generation touches about a fifth of the
 * pages: with data, with zeros, or takes them away.
 */
enum { MODEL_SPACES = 5 };

struct model {
	unsigned pages; /* in each space */
	bool small;     /* a single thread in each process: for seeds of a fuzzer */
};

enum model_page { PAGE_ABSENT, PAGE_ZERO, PAGE_DATA };

/* Whether a space (1 ... MODEL_SPACES) exists, and the page number of its index-th page. */
bool model_has_space(const struct model *m, uint32_t space, unsigned g);
uint64_t model_page_number(const struct model *m, uint32_t space, unsigned index);
/* What the page is in generation g, and in *ret_since the generation that made it so. */
enum model_page model_page(const struct model *m, uint32_t space, unsigned index, unsigned g,
			   unsigned *ret_since);
/* The content of a PAGE_DATA page made in generation since: half random, half not; never all zero.
 */
void model_content(uint32_t space, unsigned index, unsigned since,
		   uint8_t ret[static CKPT_PAGE_SIZE]);
struct id128 model_state_id(unsigned g);
/* The tree of generation g; NULL when out of memory. */
struct tree *model_tree(const struct model *m, unsigned g, struct arena *arena);
