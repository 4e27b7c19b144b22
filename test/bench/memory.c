/* SPDX-License-Identifier: BSD-2-Clause */
/* Benchmark target: so many MiB of random data in 4 KiB pages, rewritten at a given rate; measures its own longest gap. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/*
 * memory MIB RATE GAPFILE: writes RATE MiB/s into random pages, and into GAPFILE the longest time in microseconds that it did
 * not get to run since the file was last removed.
 */
int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 1024, npages = mib * 256;
	uint64_t rate = argc > 2 ? strtoul(argv[2], NULL, 10) : 0, state = 88172645463325252ULL;
	const char *gap_file = argc > 3 ? argv[3] : NULL;
	uint64_t *mem = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int64_t start, last, longest = 0, told = 0;
	uint64_t written = 0;

	if (mem == MAP_FAILED)
		return 1;
	(void)madvise(mem, mib << 20, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < (mib << 20) / 8; i++)
		mem[i] = next_random(&state);
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	start = last = now_ns();
	for (;;) {
		int64_t t = now_ns();

		if (t - last > longest)
			longest = t - last;
		last = t;
		if (rate && written < (uint64_t)(t - start) / 1000 * rate / 4096) {
			mem[(next_random(&state) % npages) * 512 + t % 512] ^= 1;
			written += 1;
		}
		if (gap_file && t - told > 20000000) {
			FILE *f;

			told = t;
			if (access(gap_file, F_OK) != 0)
				longest = 0;
			f = fopen(gap_file, "w");
			if (f) {
				fprintf(f, "%lld\n", (long long)longest / 1000);
				(void)fclose(f);
			}
			last = now_ns();
		}
	}
}
