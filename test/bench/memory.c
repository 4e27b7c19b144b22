/* SPDX-License-Identifier: BSD-2-Clause */
/* Benchmark target: MiB of random data, rewritten at a given rate or on order. */
#include "gap.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE_WORDS 512

static uint64_t *mem;
static size_t n_pages;

/* The first word of a page never changes: a restarted program can tell whether all are there. */
static void fill(void)
{
	for (size_t i = 0; i < n_pages * PAGE_WORDS; i++)
		mem[i] = gap_mix(i + 1);
}

static void verify(void)
{
	for (size_t i = 0; i < n_pages * PAGE_WORDS; i += PAGE_WORDS)
		if (mem[i] != gap_mix(i + 1))
			gap_bad("a page is not what it was");
}

/* One page in every so many, not the same ones each time. */
static void dirty(size_t every)
{
	static size_t round;

	round++;
	for (size_t i = round % every; i < n_pages; i += every)
		mem[i * PAGE_WORDS + 1 + round % (PAGE_WORDS - 1)] ^= gap_mix(round) | 1;
}

static void obey(int order)
{
	switch (order) {
	case ORDER_DIRTY_10:
		dirty(10);
		break;
	case ORDER_DIRTY_1:
		dirty(100);
		break;
	case ORDER_DIRTY_50:
		dirty(2);
		break;
	case ORDER_DIRTY_ALL:
		dirty(1);
		break;
	case ORDER_VERIFY:
		verify();
		break;
	default:
		return;
	}
	gap_done(order);
}

static uint64_t cpu_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* How many pages are to be written by now: by CPU time, so that no burst follows a pause. */
static uint64_t pages_due(uint64_t rate, uint64_t start_us)
{
	return (cpu_us() - start_us) * rate * 256 / 1000000;
}

static bool map(size_t size, const char *how)
{
	bool shared = !strcmp(how, "shared"), file = !strcmp(how, "memfd");
	int fd = file ? memfd_create("memory", 0) : -1;

	if (file && (fd < 0 || ftruncate(fd, (off_t)size)))
		return false;
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   (shared || file ? MAP_SHARED : MAP_PRIVATE) | (file ? 0 : MAP_ANONYMOUS), fd, 0);
	return mem != MAP_FAILED &&
	       !madvise(mem, size, strcmp(how, "huge") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
}

/*
 * bench-memory LOG MIB RATE [huge | shared | memfd]: with RATE MiB a second (0: none) rewritten in
 * pages all over; in 4 KiB pages, or in huge ones where the kernel gives them; or in shared memory
 * that nothing else leads to, or a memfd that is open.
 */
int main(int argc, char **argv)
{
	size_t size = gap_number(argc, argv, 2) << 20;
	uint64_t rate = gap_number(argc, argv, 3), written = 0, start;

	if (!map(size, argc > 4 ? argv[4] : "")) {
		perror("memory");
		return 1;
	}
	n_pages = size / 4096;
	fill();
	gap_start(argv[1]);
	start = cpu_us();
	for (uint64_t n = 0;; n++) {
		obey(gap_tick());
		if (rate && n % 16 == 0 && written < pages_due(rate, start)) {
			uint64_t *page = mem + gap_mix(written++) % n_pages * PAGE_WORDS;

			page[1 + n % (PAGE_WORDS - 1)] ^= 1;
		}
	}
}
