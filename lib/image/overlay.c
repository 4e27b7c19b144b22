/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What counts when pages were given more than once: a sweep over the runs of all generations at
 * once, each of which is a sorted list of its own; at every page the newest that says anything
 * wins.
 */
#include "image/writer_int.h"

#include "util/bytes.h"
#include "util/cleanup.h"

#include <string.h>

struct sweep {
	const struct page_run *cur[WRITER_GENERATIONS], *end[WRITER_GENERATIONS];
	uint64_t *first; /* stored pages before each block, and in all */
	uint32_t n_blocks;
	struct page_run *out;
	unsigned n_out, room;
	uint64_t out_end; /* ordinal after the last HERE run of out */
};

static int by_generation(const void *a, const void *b)
{
	const struct page_run *x = a, *y = b;

	if (RUN_GENERATION(x->kind) != RUN_GENERATION(y->kind))
		return RUN_GENERATION(x->kind) < RUN_GENERATION(y->kind) ? -1 : 1;
	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	return x->page < y->page ? -1 : x->page > y->page;
}

static int push(struct sweep *s, const struct page_run *run)
{
	if (s->n_out == s->room) {
		unsigned room = MAX(s->room * 2, 256u);
		struct page_run *bigger =
			room > WRITER_MAX_RUNS ? NULL : realloc(s->out, room * sizeof *bigger);

		if (!bigger)
			return -ENOMEM;
		s->out = bigger;
		s->room = room;
	}
	s->out[s->n_out++] = *run;
	return 0;
}

/* The block that holds the stored page with this number. */
static uint32_t block_of(const struct sweep *s, uint64_t ordinal)
{
	uint32_t lo = 0, hi = s->n_blocks;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (s->first[mid] <= ordinal)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* Pages [page, end) are what this part of the run says. */
static int emit(struct sweep *s, const struct page_run *from, uint64_t page, uint64_t end)
{
	struct page_run run = { .space = from->space,
				.kind = RUN_KIND(from->kind),
				.page = page,
				.npages = end - page };
	struct page_run *last = s->n_out ? &s->out[s->n_out - 1] : NULL;
	uint64_t ordinal = 0;

	if (run.kind == RUN_NONE)
		return 0;
	if (run.kind == RUN_HERE) {
		ordinal = s->first[from->block] + from->block_page + (page - from->page);
		run.block = block_of(s, ordinal);
		run.block_page = (uint32_t)(ordinal - s->first[run.block]);
	}
	if (last && last->space == run.space && last->kind == run.kind &&
	    last->page + last->npages == page && (run.kind != RUN_HERE || s->out_end == ordinal))
		last->npages += run.npages;
	else if (push(s, &run) < 0)
		return -ENOMEM;
	s->out_end = ordinal + run.npages;
	return 0;
}

/* Is (space, page) before the run's first page? */
static bool before(uint32_t space, uint64_t page, const struct page_run *run)
{
	return space < run->space || (space == run->space && page < run->page);
}

static int sweep(struct sweep *s, unsigned n_generations)
{
	uint32_t space = 0;
	uint64_t page = 0;

	for (;;) {
		const struct page_run *top = NULL, *next = NULL;
		uint64_t end;

		for (unsigned g = 0; g < n_generations; g++) {
			const struct page_run *r;

			while (s->cur[g] < s->end[g] &&
			       (s->cur[g]->space < space ||
				(s->cur[g]->space == space &&
				 s->cur[g]->page + s->cur[g]->npages <= page)))
				s->cur[g]++;
			r = s->cur[g];
			if (r == s->end[g])
				continue;
			if (!before(space, page, r)) {
				top = r; /* the newest comes last */
				next = NULL;
			} else if (!next || before(r->space, r->page, next)) {
				next = r;
			}
		}
		if (!top && !next)
			return 0;
		if (!top) {
			space = next->space;
			page = next->page;
			continue;
		}
		/* up to where a newer one begins */
		end = top->page + top->npages;
		if (next && next->space == space)
			end = MIN(end, next->page);
		if (emit(s, top, page, end) < 0)
			return -ENOMEM;
		page = end;
	}
}

int overlay_runs(struct page_run **runs, unsigned *n_runs, const uint8_t *blocks, uint32_t n_blocks,
		 struct page_run *ret_twice)
{
	CLEANUP_FREE uint64_t *first = calloc(n_blocks + (size_t)1, sizeof *first);
	struct sweep s = { .first = first, .n_blocks = n_blocks };
	struct page_run *v = *runs;
	unsigned n = *n_runs, n_generations = 0;

	if (!first)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_blocks; i++)
		first[i + 1] =
			first[i] + get_le16(blocks + (size_t)i * IMAGE_BLOCK_ENTRY_BYTES + 12);
	if (n)
		qsort(v, n, sizeof *v, by_generation);
	for (unsigned i = 0; i < n; i++) {
		const struct page_run *prev = i ? &v[i - 1] : NULL;

		if (!prev || RUN_GENERATION(prev->kind) != RUN_GENERATION(v[i].kind))
			s.cur[n_generations++] = &v[i];
		else if (prev->space == v[i].space && prev->page + prev->npages > v[i].page) {
			*ret_twice = v[i];
			return -EEXIST;
		}
		s.end[n_generations - 1] = &v[i + 1];
	}
	if (sweep(&s, n_generations) < 0) {
		free(s.out);
		return -ENOMEM;
	}
	free(v);
	*runs = s.out;
	*n_runs = s.n_out;
	return 0;
}
