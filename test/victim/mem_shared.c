/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: shared anonymous memory, mapped once and mapped twice. */
#include "victim.h"

#define NPAGES 512u

int main(int argc, char **argv)
{
	char *once, *one, *two, *part;
	uint64_t rounds = 0;

	victim_init(argc, argv);
	once = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	one = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(once != MAP_FAILED && one != MAP_FAILED);
	/* An old size of 0 makes a second mapping of the same shared memory. */
	two = mremap(one, 0, NPAGES * PAGE, MREMAP_MAYMOVE);
	part = mremap(one + 8 * PAGE, 0, 4 * PAGE, MREMAP_MAYMOVE);
	check_sys(two != MAP_FAILED && part != MAP_FAILED);
	check_sys(mprotect(two, 4 * PAGE, PROT_READ) == 0);
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; rounds && i < NPAGES; i += 3) {
			check(page_is(once + i * PAGE, i + rounds), "page %u", i);
			check(page_is(one + i * PAGE, i * 2 + rounds), "page %u, first mapping", i);
			check(page_is(two + i * PAGE, i * 2 + rounds), "page %u, second mapping",
			      i);
		}
		check(page_is_zero(once + PAGE), "a page that nobody wrote to");
		rounds++;
		for (unsigned i = 0; i < NPAGES; i += 3) {
			page_fill(once + i * PAGE, i + rounds);
			page_fill((i % 2 && i >= 4 ? two : one) + i * PAGE, i * 2 + rounds);
		}
		check(page_is(part + PAGE, 9 * 2 + rounds),
		      "the mapping of a part is another memory");
		check(page_is(one + 33 * PAGE, 33 * 2 + rounds), "the two mappings are apart");
		victim_ok();
	}
	return 0;
}
