/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of ranges against a bitmap: union, difference, parts, and what becomes of too many. */
#include "util/ranges.h"

#include "../check.h"

#define PAGES 400u
#define PAGE  4096u

static uint64_t state = 12345;

static unsigned below(unsigned n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(state >> 33) % n;
}

static void make(struct ranges *r, bool *model)
{
	unsigned at = 0;

	memset(model, 0, PAGES);
	while ((at += below(30)) < PAGES) {
		unsigned end = at + 1 + below(12);

		end = end > PAGES ? PAGES : end;
		CHECK(ranges_append(r, at * PAGE, end * PAGE) == 0);
		memset(model + at, 1, end - at);
		at = end;
	}
}

static void check(const struct ranges *r, const bool *model)
{
	uint64_t sum = 0;
	size_t at = 0;

	for (size_t i = 0; i < r->n; i++) {
		CHECK(r->v[i].start < r->v[i].end);
		CHECK(!i || r->v[i - 1].end < r->v[i].start);
	}
	for (unsigned i = 0; i < PAGES; i++) {
		bool inside;

		CHECK(ranges_part(r, &at, i * PAGE, (i + 1) * PAGE, &inside) == (i + 1) * PAGE);
		CHECK(inside == model[i]);
		sum += inside ? PAGE : 0;
	}
	CHECK(ranges_size(r) == sum);
}

static void parts(const struct ranges *r, const bool *model)
{
	unsigned start = below(PAGES);
	size_t at = 0;

	while (start < PAGES) {
		bool inside;
		unsigned end =
			(unsigned)(ranges_part(r, &at, start * PAGE, PAGES * PAGE, &inside) / PAGE);

		CHECK(end > start && end <= PAGES);
		for (unsigned i = start; i < end; i++)
			CHECK(model[i] == inside);
		CHECK(end == PAGES || model[end] != inside);
		start = end;
	}
}

static void algebra(void)
{
	struct ranges a = { 0 }, b = { 0 };
	bool ma[PAGES], mb[PAGES];

	make(&a, ma);
	make(&b, mb);
	check(&a, ma);
	parts(&a, ma);
	CHECK(ranges_unite(&a, &b) == 0);
	for (unsigned i = 0; i < PAGES; i++)
		ma[i] |= mb[i];
	check(&a, ma);
	ranges_clear(&b);
	make(&b, mb);
	CHECK(ranges_subtract(&a, &b) == 0);
	for (unsigned i = 0; i < PAGES; i++)
		ma[i] = ma[i] && !mb[i];
	check(&a, ma);
	parts(&a, ma);
	ranges_fini(&a);
	ranges_fini(&b);
}

/* Every second page of a very large stretch: memory stays bounded, and the set errs to the side
 * that its owner chose. */
static void excess(enum ranges_excess how)
{
	const uint64_t n = RANGES_MAX * 5ull;
	struct ranges r = { .excess = how };
	size_t at = 0;
	uint64_t held = 0;

	for (uint64_t i = 0; i < n; i++)
		CHECK(ranges_append(&r, i * 2 * PAGE, (i * 2 + 1 + (i % 64 == 0)) * PAGE) == 0);
	CHECK(r.n <= RANGES_MAX && r.room <= 2 * RANGES_MAX);
	for (uint64_t i = 0; i < n; i++) {
		bool in, gap;

		(void)ranges_part(&r, &at, i * 2 * PAGE, (i * 2 + 1) * PAGE, &in);
		(void)ranges_part(&r, &at, (i * 2 + 1) * PAGE, (i * 2 + 2) * PAGE, &gap);
		held += in;
		CHECK(how == RANGES_GROW ? in : !gap || i % 64 == 0);
	}
	CHECK(how == RANGES_GROW || (held >= RANGES_MAX / 3 && held < n));
	ranges_fini(&r);
}

int main(void)
{
	for (unsigned i = 0; i < 2000; i++)
		algebra();
	excess(RANGES_GROW);
	excess(RANGES_SHRINK);
	return 0;
}
