/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: getrandom() and the allocator's secrets: calls keep working in memory that a restart may
 * drop. */
#include "victim.h"

#include <sys/random.h>

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif

int main(int argc, char **argv)
{
	unsigned char a[64], b[64];
	char *drop, flags[512];

	victim_init(argc, argv);
	drop = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (drop == MAP_FAILED)
		victim_skip("no MAP_DROPPABLE here: %s", strerror(errno));
	page_fill(drop, 1);
	victim_ready();
	while (victim_wait()) {
		check(vmflags_of(drop, flags, sizeof flags) && strstr(flags, " dp "), "flags:%s",
		      flags);
		/* The page is as it was, or zero. Nothing between. */
		check(page_is(drop, 1) || page_is_zero(drop), "a dropped page is half there");
		page_fill(drop, 1);
		check_sys(getrandom(a, sizeof a, 0) == sizeof a &&
			  getrandom(b, sizeof b, 0) == sizeof b);
		check(memcmp(a, b, sizeof a) != 0, "getrandom repeats itself");
		victim_ok();
	}
	return 0;
}
