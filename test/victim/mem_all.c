/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: 32 MiB, all of which is written to in each of the first rounds (as many as the argument
 * says), and a few pages in the later ones.
 */
#include "victim.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGES 8192u
#define FEW   64u

int main(int argc, char **argv)
{
	uint64_t rounds = 0, most, all = 0;
	char *area;

	victim_init(argc, argv);
	most = argc > 2 ? (uint64_t)atoi(argv[2]) : 1000;
	area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(area != MAP_FAILED);
	(void)madvise(area, PAGES * PAGE, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < PAGES; i++)
		page_fill(area + i * PAGE, i);
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < PAGES; i++)
			check(page_is(area + i * PAGE, (i < FEW ? rounds : all) * PAGES + i),
			      "page %u in round %d", i, (int)rounds);
		rounds++;
		if (rounds <= most)
			all = rounds;
		for (unsigned i = 0; i < (rounds <= most ? PAGES : FEW); i++)
			page_fill(area + i * PAGE, rounds * PAGES + i);
		victim_ok();
	}
	return 0;
}
