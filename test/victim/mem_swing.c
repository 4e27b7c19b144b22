/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: a mapping whose second half goes away and comes back, every other round, while its first
 * half is written to in each. Coming home the two become one mapping again, whatever was noted of
 * the pages of each.
 */
#include "victim.h"

#include <sys/mman.h>

#define HALF_PAGES 300u
#define HALF       (HALF_PAGES * PAGE)

static char *home, *away;
static bool is_away;
static uint64_t rounds;

static void move(char *from, char *to)
{
	check_sys(mremap(from, HALF, HALF, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	check_sys(mmap(from, HALF, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		  from);
	is_away = !is_away;
}

/* Every page of the first half, and some of the other. */
static void write_all(void)
{
	char *other = is_away ? away : home + HALF;

	for (unsigned i = 0; i < HALF_PAGES; i++)
		page_fill(home + i * PAGE, rounds * 1000 + i);
	for (uint64_t i = rounds % 7; i < HALF_PAGES; i += 7)
		page_fill(other + i * PAGE, 7000 + i);
}

static void verify(void)
{
	const char *other = is_away ? away : home + HALF;

	for (unsigned i = 0; i < HALF_PAGES; i++) {
		check(page_is(home + i * PAGE, rounds * 1000 + i), "page %u at home in round %d", i,
		      (int)rounds);
		check(page_is(other + i * PAGE, 7000 + i), "page %u of the other half in round %d",
		      i, (int)rounds);
	}
}

int main(int argc, char **argv)
{
	char *area;

	victim_init(argc, argv);
	/* a page on each side that nothing joins with */
	area = mmap(NULL, 3 * HALF + 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(area != MAP_FAILED);
	home = area + PAGE;
	away = home + 2 * HALF + PAGE;
	check_sys(mprotect(home, 2 * HALF, PROT_READ | PROT_WRITE) == 0);
	for (unsigned i = 0; i < HALF_PAGES; i++)
		page_fill(home + HALF + i * PAGE, 7000 + i);
	write_all();
	victim_ready();
	while (victim_wait()) {
		verify();
		rounds++;
		if (is_away)
			move(away, home + HALF);
		else
			move(home + HALF, away);
		write_all();
		verify();
		victim_ok();
	}
	return 0;
}
