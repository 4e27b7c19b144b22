/* SPDX-License-Identifier: BSD-2-Clause */
/* What text.c and json.c show: one image, opened and decoded, and the listing of a chain. */
#pragma once

#include "image/chain.h"
#include "image/reader.h"

#include <stdio.h>

struct image_view {
	const char *name; /* for people: the path as given, or CHAIN/000003.img */
	const struct image_info *info;
	const struct tree *tree;
	const struct page_run *runs;
	unsigned n_runs;
};

struct chain_view {
	const char *path;
	const char *finished; /* "exit 0", "signal 9"; NULL: the job has not ended by itself */
	const struct chain_entry *const *entries;
	unsigned n_entries;
	int64_t now_ns; /* CLOCK_REALTIME, for ages */
};

/* How many pages of each kind lie in [page, page + npages) of a space. */
struct page_counts {
	uint64_t here, zero, parent;
};

void view_count_pages(const struct image_view *v, uint32_t space, uint64_t page, uint64_t npages,
		      struct page_counts *ret);
/* Where a mapping's pages lie: the space (0: none, the content is the file's) and the first page in
 * it. */
uint32_t view_vma_space(const struct process *p, const struct vma *vma, uint64_t *ret_page);
/* "full" or "incremental" */
const char *view_kind(const struct image_info *info);
