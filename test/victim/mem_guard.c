/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: guard regions (MADV_GUARD_INSTALL) inside a mapping with content. */
#include "victim.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif
#define NPAGES 64u

/* What a system call gets to see of a page: EFAULT for a guard. */
static bool readable(int pipe_fds[2], const char *page)
{
	char byte;

	if (write(pipe_fds[1], page, 1) == 1) {
		check_sys(read(pipe_fds[0], &byte, 1) == 1);
		return true;
	}
	check(errno == EFAULT, "write: %s", strerror(errno));
	return false;
}

static bool guarded(unsigned i, uint64_t rounds)
{
	return (i + rounds) % 8 == 0 || i == 1;
}

static void set(char *area, uint64_t rounds)
{
	for (unsigned i = 0; i < NPAGES; i++) {
		int advice = guarded(i, rounds) ? MADV_GUARD_INSTALL : MADV_GUARD_REMOVE;
		check_sys(madvise(area + i * PAGE, PAGE, advice) == 0);
		if (!guarded(i, rounds))
			page_fill(area + i * PAGE, i + rounds);
	}
}

int main(int argc, char **argv)
{
	char *area;
	int fds[2];
	uint64_t rounds = 0;

	victim_init(argc, argv);
	area = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	check_sys(area != MAP_FAILED && pipe2(fds, O_CLOEXEC) == 0);
	if (madvise(area, PAGE, MADV_GUARD_INSTALL) != 0)
		victim_skip("no guard regions in this kernel (6.13): %s", strerror(errno));
	set(area, 0);
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < NPAGES; i++) {
			bool want = !guarded(i, rounds);
			check(readable(fds, area + i * PAGE) == want, "page %u is %sa guard", i,
			      want ? "" : "not ");
			check(!want || page_is(area + i * PAGE, i + rounds), "content of page %u",
			      i);
		}
		set(area, ++rounds);
		victim_ok();
	}
	return 0;
}
