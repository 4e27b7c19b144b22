/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: mappings that move, shrink, grow, split and go away between checkpoints. */
#include "victim.h"

#define NAREAS 16u

static struct {
	char *addr;
	uint64_t npages, seed;
} areas[NAREAS];
static uint64_t rounds;

static char *map(uint64_t npages)
{
	char *p = mmap(NULL, npages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	check_sys(p != MAP_FAILED);
	return p;
}

static void fill(unsigned a, uint64_t from)
{
	for (uint64_t i = from; i < areas[a].npages; i++)
		page_fill(areas[a].addr + i * PAGE, areas[a].seed + i);
}

static void verify(void)
{
	for (unsigned a = 0; a < NAREAS; a++)
		for (uint64_t i = 0; i < areas[a].npages; i++)
			check(page_is(areas[a].addr + i * PAGE, areas[a].seed + i),
			      "area %u page %d in round %d", a, (int)i, (int)rounds);
}

static void renew(unsigned a, uint64_t npages)
{
	areas[a].seed = mix(rounds * 100 + a) >> 24;
	areas[a].npages = npages;
	areas[a].addr = map(npages);
	fill(a, 0);
}

/* mremap takes an area off the tracker's watch without a write to it; a new one may get its
 * address. */
static void move(unsigned a, uint64_t npages)
{
	char *to = map(npages), *now;
	uint64_t old = areas[a].npages;

	/* One mapping again, if an earlier round split it. */
	check_sys(mprotect(areas[a].addr, old * PAGE, PROT_READ | PROT_WRITE) == 0);
	now = mremap(areas[a].addr, old * PAGE, npages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	check_sys(now == to);
	areas[a].addr = now;
	areas[a].npages = npages;
	if (npages > old)
		fill(a, old);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	for (unsigned a = 0; a < NAREAS; a++)
		renew(a, 8 + a);
	victim_ready();
	while (victim_wait()) {
		verify();
		rounds++;
		for (unsigned a = 0; a < NAREAS; a++) {
			uint64_t r = mix(rounds * 1000 + a);
			if (r % 4 == 0) {
				check_sys(munmap(areas[a].addr, areas[a].npages * PAGE) == 0);
				renew(a, 1 + r / 4 % 30);
			} else if (r % 4 == 1) {
				move(a, 1 + r / 4 % 30);
			} else if (r % 4 == 2) {
				/* Another protection splits the mapping. */
				check_sys(mprotect(areas[a].addr, PAGE, PROT_READ) == 0);
			}
		}
		verify();
		victim_ok();
	}
	return 0;
}
