/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: private anonymous memory with patterns, holes made by MADV_DONTNEED, and all protections.
 */
#include "victim.h"

#define NPAGES 8192u

/*
 * Page p is a hole or holds pattern (p, version); both change from round to round, so that an
 * increment that misses a page, or that resurrects one that had gone, is seen.
 */
static uint64_t rounds;
static char *area;

static uint64_t last_write(uint64_t p)
{
	uint64_t v = rounds;

	/* A page is touched in every round whose number fits it; round 0 touches all. */
	while (v && mix(p ^ (v << 32)) % 7 != 0)
		v--;
	return v;
}

static bool is_hole(uint64_t p, uint64_t version)
{
	return mix(p * 31 + version) % 4 == 0;
}

static void touch(uint64_t p)
{
	char *page = area + p * PAGE;

	if (is_hole(p, rounds))
		check_sys(madvise(page, PAGE, MADV_DONTNEED) == 0);
	else
		page_fill(page, p + (rounds << 20));
}

static void verify(void)
{
	for (uint64_t p = 0; p < NPAGES; p++) {
		uint64_t v = last_write(p);
		char *page = area + p * PAGE;
		bool good = is_hole(p, v) ? page_is_zero(page) : page_is(page, p + (v << 20));

		check(good, "page %d of round %d is not what round %d left (%s)", (int)p,
		      (int)rounds, (int)v, is_hole(p, v) ? "a hole" : "a pattern");
	}
}

static char *filled(int prot)
{
	char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_sys(p != MAP_FAILED);
	for (unsigned i = 0; i < 4; i++)
		page_fill(p + i * PAGE, i + (uint64_t)prot * 1000);
	check_sys(mprotect(p, 4 * PAGE, prot) == 0);
	return p;
}

/* Content under PROT_NONE and the like is still there when the protection is lifted. */
static void verify_filled(char *p, int prot)
{
	check_sys(mprotect(p, 4 * PAGE, PROT_READ) == 0);
	for (unsigned i = 0; i < 4; i++)
		check(page_is(p + i * PAGE, i + (uint64_t)prot * 1000), "page under protection %d",
		      prot);
	check_sys(mprotect(p, 4 * PAGE, prot) == 0);
}

int main(int argc, char **argv)
{
	char *other[4];
	static const int prots[4] = { PROT_NONE, PROT_READ, PROT_READ | PROT_EXEC,
				      PROT_READ | PROT_WRITE };

	victim_init(argc, argv);
	area = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	check_sys(area != MAP_FAILED);
	for (uint64_t p = 0; p < NPAGES; p++)
		touch(p);
	for (unsigned i = 0; i < 4; i++)
		other[i] = filled(prots[i]);
	victim_ready();
	while (victim_wait()) {
		verify();
		for (unsigned i = 0; i < 4; i++)
			verify_filled(other[i], prots[i]);
		rounds++;
		for (uint64_t p = 0; p < NPAGES; p++)
			if (last_write(p) == rounds)
				touch(p);
		verify();
		victim_ok();
	}
	return 0;
}
