/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: a 16 TiB PROT_NONE reservation with islands in it, and a sparse 64 GiB MAP_NORESERVE
 * mapping; in the reservation a huge page (where one can be had) that is PROT_NONE again. */
#include "victim.h"

#define GIANT    (16ul << 40)
#define SPARSE   (64ul << 30)
#define NISLANDS 20u
#define HUGE     (2ul << 20)
#define HUGE_AT  (GIANT / NISLANDS / 2 & ~(HUGE - 1)) /* between two islands */

static char *huge;

static void huge_begin(char *giant)
{
	huge = (char *)(((uintptr_t)giant + HUGE_AT + HUGE - 1) & ~(HUGE - 1));
	check_sys(mprotect(huge, HUGE, PROT_READ | PROT_WRITE) == 0);
	(void)madvise(huge, HUGE, MADV_HUGEPAGE);
	for (unsigned i = 0; i < HUGE / PAGE; i++)
		page_fill(huge + i * PAGE, 1000 + i);
	check_sys(mprotect(huge, HUGE, PROT_NONE) == 0);
}

static void huge_check(void)
{
	check_sys(mprotect(huge, HUGE, PROT_READ) == 0);
	for (unsigned i = 0; i < HUGE / PAGE; i++)
		check(page_is(huge + i * PAGE, 1000 + i), "page %u of what may be a huge page", i);
	check_sys(mprotect(huge, HUGE, PROT_NONE) == 0);
}

int main(int argc, char **argv)
{
	char *giant, *sparse, flags[512], line[64];
	uint64_t rounds = 0;

	victim_init(argc, argv);
	giant = mmap(NULL, GIANT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (giant == MAP_FAILED)
		victim_skip("no 16 TiB reservation here: %s", strerror(errno));
	sparse = mmap(NULL, SPARSE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check_sys(sparse != MAP_FAILED);
	for (uint64_t i = 0; i < NISLANDS; i++) {
		char *island = giant + GIANT / NISLANDS * i / PAGE * PAGE;
		check_sys(mprotect(island, 4 * PAGE, PROT_READ | PROT_WRITE) == 0);
		page_fill(island + PAGE, i);
	}
	huge_begin(giant);
	victim_ready();
	while (victim_wait()) {
		huge_check();
		for (uint64_t i = 0; i < NISLANDS; i++) {
			char *island = giant + GIANT / NISLANDS * i / PAGE * PAGE;
			check(page_is(island + PAGE, i), "island %d", (int)i);
			check(page_is_zero(island + 2 * PAGE), "untouched page of island %d",
			      (int)i);
		}
		for (uint64_t i = 0; i < rounds * 10; i++)
			check(page_is(sparse + mix(i) % (SPARSE / PAGE) * PAGE, i),
			      "sparse page %d", (int)i);
		check(vmflags_of(sparse, flags, sizeof flags) && strstr(flags, " nr "),
		      "MAP_NORESERVE is lost:%s", flags);
		check(status_field("/proc/self/status", "VmSize", line, sizeof line) &&
			      strtoull(line, NULL, 10) >= (GIANT + SPARSE) / 1024,
		      "the reservation shrank: VmSize %s", line);
		rounds++;
		for (uint64_t i = 0; i < rounds * 10; i++)
			page_fill(sparse + mix(i) % (SPARSE / PAGE) * PAGE, i);
		victim_ok();
	}
	return 0;
}
