/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of addresses as ascending ranges, in bounded memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
	uint64_t start, end;
};

/*
 * At most RANGES_MAX ranges. What a set that would need more becomes is its owner's choice: it
 * takes small gaps in (a superset, where too much does no harm), or gives small ranges up, half of
 * them at a time (a subset). Every second page of a GiB still fits.
 */
#define RANGES_MAX 131072u

enum ranges_excess { RANGES_GROW, RANGES_SHRINK };

/* Zeroed is empty. No two ranges overlap or touch. */
struct ranges {
	struct span *v;
	size_t n, room;
	enum ranges_excess excess;
	uint64_t limit; /* RANGES_GROW: gaps up to this are taken in; RANGES_SHRINK: of those up
			   to this, some are given up */
};

void ranges_fini(struct ranges *r);
/* Empties it; memory stays. */
void ranges_clear(struct ranges *r);
/* Adds [start, end), which must not begin before the end of the last range. 0 or -ENOMEM (then
 * unchanged). */
int ranges_append(struct ranges *r, uint64_t start, uint64_t end);
/* r becomes the union with / what is left without `other`. 0 or -ENOMEM (then unchanged). */
int ranges_unite(struct ranges *r, const struct ranges *other);
int ranges_subtract(struct ranges *r, const struct ranges *other);
/*
 * Of [start, end), the end of the first part that lies wholly inside or wholly outside of the set.
 * *at is a cursor, 0 at first; queries come in ascending order.
 */
uint64_t ranges_part(const struct ranges *r, size_t *at, uint64_t start, uint64_t end,
		     bool *ret_inside);
/* The sum of the lengths. */
uint64_t ranges_size(const struct ranges *r);
