/* SPDX-License-Identifier: BSD-2-Clause */
/* What is older than the states that are to be kept becomes one full image, in the background. */
#pragma once

#include "image/chain.h"
#include "state/tree.h"

struct compactor;

/* The chain is write-locked by us; settings must outlive it. */
int compactor_new(const struct chain *chain, const struct settings *settings,
		  struct compactor **ret, struct err *err);
/*
 * After a checkpoint, with the chain scanned: begins to merge if that pays and none is under way. A
 * failure of the last one, if any, is left in *ret_trouble (which is else untouched).
 */
void compactor_consider(struct compactor *c, const struct chain *chain, struct err *ret_trouble);
/* Gives up what is under way, within moments. Accepts NULL. */
void compactor_free(struct compactor *c);

/* Exposed for its test: the number of the image to merge into, 0: none. */
uint64_t compact_choose(const struct chain *chain, unsigned keep);
