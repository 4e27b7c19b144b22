/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: a main stack whose frames survive and that goes on growing by itself. */
#include "victim.h"

#include <alloca.h>

static uint64_t rounds;

/* Touches a frame of 16 pages per level, and checks it again on the way back. */
static __attribute__((noinline)) void deeper(unsigned levels, uint64_t seed)
{
	char *frame = alloca(16 * PAGE);
	char *page = (char *)(((uintptr_t)frame + PAGE - 1) & ~(PAGE - 1));

	for (unsigned i = 0; i < 15; i++)
		page_fill(page + i * PAGE, seed + i);
	if (levels)
		deeper(levels - 1, seed + 100);
	for (unsigned i = 0; i < 15; i++)
		check(page_is(page + i * PAGE, seed + i), "stack frame at level %u", levels);
}

/* The loop runs some levels down, so that frames lie above it that only the restart can bring back.
 */
static __attribute__((noinline)) void run(unsigned levels)
{
	char flags[512];
	char *frame = alloca(16 * PAGE);
	char *page = (char *)(((uintptr_t)frame + PAGE - 1) & ~(PAGE - 1));

	for (unsigned i = 0; i < 15; i++)
		page_fill(page + i * PAGE, levels * 1000 + i);
	if (levels) {
		run(levels - 1);
	} else {
		victim_ready();
		while (victim_wait()) {
			/* Each round goes 128 KiB further down than any before it. */
			rounds++;
			deeper(8 + 2 * (unsigned)rounds, rounds);
			check(vmflags_of(page, flags, sizeof flags) && strstr(flags, " gd "),
			      "the stack does not grow any more:%s", flags);
			for (unsigned i = 0; i < 15; i++)
				check(page_is(page + i * PAGE, i), "stack frame of the loop");
			victim_ok();
		}
	}
	for (unsigned i = 0; i < 15; i++)
		check(page_is(page + i * PAGE, levels * 1000 + i), "stack frame above the loop");
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	run(6);
	return 0;
}
