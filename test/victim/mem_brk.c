/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: a heap that keeps its content and goes on growing, and shrinking, where it was. */
#include "victim.h"

#define STEP (64 * PAGE)

int main(int argc, char **argv)
{
	char *start, *end, *now;
	uint64_t npages, rounds = 0;
	uint64_t *lists[100];

	victim_init(argc, argv);
	for (unsigned i = 0; i < 100; i++) {
		lists[i] = malloc(100 + i * 50);
		check_sys(lists[i]);
		lists[i][0] = mix(i);
	}
	/* No malloc() from here on: the break is moved by hand. */
	start = sbrk(0);
	start += -(uintptr_t)start & (PAGE - 1);
	check_sys(brk(start + STEP) == 0);
	end = start + STEP;
	npages = STEP / PAGE;
	for (uint64_t i = 0; i < npages; i++)
		page_fill(start + i * PAGE, i);
	victim_ready();
	while (victim_wait()) {
		now = (char *)syscall(SYS_brk, 0);
		check(now == end, "the break is %p, should be %p", (void *)now, (void *)end);
		for (uint64_t i = 0; i < npages; i++)
			check(page_is(start + i * PAGE, i), "heap page %d", (int)i);
		for (unsigned i = 0; i < 100; i++)
			check(lists[i][0] == mix(i), "malloc block %u", i);
		/* Odd rounds grow by two steps, even ones shrink by one: what comes anew is zero.
		 */
		end += rounds++ % 2 ? -(ptrdiff_t)STEP : (ptrdiff_t)(2 * STEP);
		now = (char *)syscall(SYS_brk, end);
		check(now == end, "the break went to %p, not %p", (void *)now, (void *)end);
		for (; npages < (size_t)(end - start) / PAGE; npages++) {
			check(page_is_zero(start + npages * PAGE), "new heap page is not zero");
			page_fill(start + npages * PAGE, npages);
		}
		npages = (size_t)(end - start) / PAGE;
		victim_ok();
	}
	return 0;
}
