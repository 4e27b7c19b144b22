/* SPDX-License-Identifier: BSD-2-Clause */
/* Benchmark target: a fixed amount of computing, memory traffic or system calls; prints how many ns
 * it took. */
#include "gap.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* A triad over arrays that no cache holds. */
static uint64_t triad(unsigned long n)
{
	enum { WORDS = 4 << 20 };
	static uint64_t a[WORDS], b[WORDS], c[WORDS];

	for (unsigned long i = 0; i < WORDS; i++)
		b[i] = c[i] = i + 1;
	for (unsigned long i = 0; i < n; i++)
		a[i % WORDS] = b[i % WORDS] * 3 + c[i % WORDS] + i;
	return a[n % WORDS];
}

/* bench-loop compute|memory|call ROUNDS */
int main(int argc, char **argv)
{
	unsigned long n = gap_number(argc, argv, 2);
	volatile uint64_t sink;
	uint64_t x = 1;
	int64_t start = now_ns();

	if (!strcmp(argv[1], "compute"))
		for (unsigned long i = 0; i < n; i++)
			x = gap_mix(x + i);
	else if (!strcmp(argv[1], "memory"))
		x = triad(n);
	else
		for (unsigned long i = 0; i < n; i++)
			x += (uint64_t)syscall(SYS_getppid);
	sink = x;
	(void)sink;
	(void)printf("%" PRId64 "\n", now_ns() - start);
	return 0;
}
