/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of addresses as ascending ranges, in bounded memory. */
#include "util/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_LIMIT 4096u /* one page; doubled whenever the set has to become coarser */

void ranges_fini(struct ranges *r)
{
	free(r->v);
	r->v = NULL;
	r->n = r->room = 0;
	r->limit = 0;
}

void ranges_clear(struct ranges *r)
{
	r->n = 0;
	r->limit = 0;
}

static bool joins(const struct ranges *r, const struct span *last, uint64_t start)
{
	uint64_t gap = r->excess == RANGES_GROW ? r->limit : 0;

	return start <= last->end || start - last->end <= gap;
}

static void coarsen(struct ranges *r)
{
	size_t n = 0, small = 0;

	r->limit = r->limit ? r->limit * 2 : FIRST_LIMIT;
	for (size_t i = 0; i < r->n; i++) {
		struct span s = r->v[i];

		if (r->excess == RANGES_SHRINK) {
			/* half of them at a time, all over the set */
			if (s.end - s.start > r->limit || ++small % 2)
				r->v[n++] = s;
		} else if (n && joins(r, &r->v[n - 1], s.start)) {
			r->v[n - 1].end = s.end;
		} else {
			r->v[n++] = s;
		}
	}
	r->n = n;
}

static int make_room(struct ranges *r)
{
	size_t room = r->room ? r->room * 2 : 8;
	struct span *bigger;

	if (r->n < r->room)
		return 0;
	bigger = realloc(r->v, room * sizeof *bigger);
	if (!bigger)
		return -ENOMEM;
	r->v = bigger;
	r->room = room;
	return 0;
}

/* At once what may be needed; without it, it grows. */
static void reserve(struct ranges *r, size_t n)
{
	n = n < RANGES_MAX ? n : RANGES_MAX;
	r->v = malloc(n * sizeof *r->v);
	r->room = r->v ? n : 0;
}

int ranges_append(struct ranges *r, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	if (r->n && joins(r, &r->v[r->n - 1], start)) {
		if (end > r->v[r->n - 1].end)
			r->v[r->n - 1].end = end;
		return 0;
	}
	while (r->n >= RANGES_MAX)
		coarsen(r);
	if (r->n && joins(r, &r->v[r->n - 1], start)) /* the limit has grown */
		return ranges_append(r, start, end);
	if (make_room(r) < 0)
		return -ENOMEM;
	r->v[r->n++] = (struct span){ start, end };
	return 0;
}

/* Takes over what `from` has become; its own memory is freed. */
static void become(struct ranges *r, struct ranges *from)
{
	free(r->v);
	*r = *from;
}

int ranges_unite(struct ranges *r, const struct ranges *other)
{
	struct ranges sum = { .excess = r->excess, .limit = r->limit };
	size_t i = 0, j = 0;

	if (!other->n)
		return 0;
	reserve(&sum, r->n + other->n);
	while (i < r->n || j < other->n) {
		const struct span *s;

		if (j >= other->n || (i < r->n && r->v[i].start <= other->v[j].start))
			s = &r->v[i++];
		else
			s = &other->v[j++];
		if (ranges_append(&sum, s->start, s->end) < 0) {
			free(sum.v);
			return -ENOMEM;
		}
	}
	become(r, &sum);
	return 0;
}

int ranges_subtract(struct ranges *r, const struct ranges *other)
{
	/* gaps that this leaves must stay: what is taken out comes back only when it must */
	struct ranges rest = { .excess = r->excess };
	size_t at = 0;

	if (!other->n || !r->n)
		return 0;
	reserve(&rest, r->n + other->n);
	for (size_t i = 0; i < r->n; i++) {
		uint64_t start = r->v[i].start, end = r->v[i].end;

		while (start < end) {
			bool inside;
			uint64_t part = ranges_part(other, &at, start, end, &inside);

			if (!inside && ranges_append(&rest, start, part) < 0) {
				free(rest.v);
				return -ENOMEM;
			}
			start = part;
		}
	}
	become(r, &rest);
	return 0;
}

uint64_t ranges_part(const struct ranges *r, size_t *at, uint64_t start, uint64_t end,
		     bool *ret_inside)
{
	const struct span *s;

	while (*at < r->n && r->v[*at].end <= start)
		++*at;
	if (*at >= r->n || r->v[*at].start >= end) {
		*ret_inside = false;
		return end;
	}
	s = &r->v[*at];
	*ret_inside = s->start <= start;
	if (!*ret_inside)
		return s->start;
	return s->end < end ? s->end : end;
}

uint64_t ranges_size(const struct ranges *r)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < r->n; i++)
		sum += r->v[i].end - r->v[i].start;
	return sum;
}
