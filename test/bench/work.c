/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Benchmark target: the workloads of libckpt's evaluation. Each does a fixed number of units of
 * work over memory of a given size, and prints how many ns that took, how many of them it spent in
 * the kernel, and a sum that tells whether the answer is right.
 */
#include "gap.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double *da, *db, *dc;
static uint8_t *ba, *bb;
static size_t n; /* rows, and columns */

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* In the kernel, faults among it. */
static int64_t system_ns(void)
{
	struct rusage r;

	(void)getrusage(RUSAGE_SELF, &r);
	return (int64_t)r.ru_stime.tv_sec * 1000000000 + (int64_t)r.ru_stime.tv_usec * 1000;
}

static void *array(size_t size)
{
	void *p = calloc(n * n, size);

	if (!p) {
		perror("memory");
		exit(1);
	}
	return p;
}

static double some(size_t i)
{
	return (double)(gap_mix(i + 1) >> 40) / (1 << 24);
}

static size_t root(size_t x)
{
	size_t r = 1;

	while ((r + 1) * (r + 1) <= x)
		r++;
	return r;
}

/* A row of C += A * B. */
static void matmul_begin(size_t bytes)
{
	n = root(bytes / (3 * sizeof(double)));
	da = array(sizeof(double));
	db = array(sizeof(double));
	dc = array(sizeof(double));
	for (size_t i = 0; i < n * n; i++) {
		da[i] = some(i);
		db[i] = some(i + n * n);
	}
}

static void matmul_unit(size_t u)
{
	size_t i = u % n;

	for (size_t k = 0; k < n; k++) {
		double x = da[i * n + k];

		for (size_t j = 0; j < n; j++)
			dc[i * n + j] += x * db[k * n + j];
	}
}

/* A row of a five-point Jacobi sweep from one grid to the other. */
static void stencil_begin(size_t bytes)
{
	n = root(bytes / (2 * sizeof(double)));
	da = array(sizeof(double));
	db = array(sizeof(double));
	for (size_t i = 0; i < n * n; i++)
		da[i] = db[i] = some(i);
}

static void stencil_unit(size_t u)
{
	size_t sweep = u / (n - 2), i = u % (n - 2) + 1;
	const double *from = sweep % 2 ? db : da;
	double *to = sweep % 2 ? da : db;

	for (size_t j = 1; j + 1 < n; j++)
		to[i * n + j] = 0.25 * (from[(i - 1) * n + j] + from[(i + 1) * n + j] +
					from[i * n + j - 1] + from[i * n + j + 1]);
}

/* Gaussian elimination of a system with a strong diagonal: one row from another; again when done.
 */
static void solver_begin(size_t bytes)
{
	n = root(bytes / sizeof(double));
	da = array(sizeof(double));
	for (size_t i = 0; i < n * n; i++)
		da[i] = some(i) + (i / n == i % n ? (double)n : 0);
}

static void solver_unit(size_t u)
{
	static size_t k, i = 1;
	double f;

	(void)u;
	f = da[i * n + k] / da[k * n + k];
	for (size_t j = k; j < n; j++)
		da[i * n + j] -= f * da[k * n + j];
	if (++i < n)
		return;
	if (++k + 1 == n) {
		k = 0;
		for (size_t d = 0; d < n * n; d++)
			da[d] = some(d) + (d / n == d % n ? (double)n : 0);
	}
	i = k + 1;
}

/* A row of Conway's game of life, on a torus. */
static void automaton_begin(size_t bytes)
{
	n = root(bytes / 2);
	ba = array(1);
	bb = array(1);
	for (size_t i = 0; i < n * n; i++)
		ba[i] = gap_mix(i) % 3 == 0;
}

static void automaton_unit(size_t u)
{
	size_t i = u % n, up = (i + n - 1) % n * n, at = i * n, down = (i + 1) % n * n;
	const uint8_t *from = u / n % 2 ? bb : ba;
	uint8_t *to = u / n % 2 ? ba : bb;

	for (size_t j = 0; j < n; j++) {
		size_t l = j ? j - 1 : n - 1, r = j + 1 < n ? j + 1 : 0;
		unsigned sum = from[up + l] + from[up + j] + from[up + r] + from[at + l] +
			       from[at + r] + from[down + l] + from[down + j] + from[down + r];

		to[at + j] = sum == 3 || (sum == 2 && from[at + j]);
	}
}

static const struct kind {
	const char *name;
	void (*begin)(size_t bytes);
	void (*unit)(size_t u);
} kinds[] = {
	{ "matmul", matmul_begin, matmul_unit },
	{ "stencil", stencil_begin, stencil_unit },
	{ "solver", solver_begin, solver_unit },
	{ "automaton", automaton_begin, automaton_unit },
};

static uint64_t sum_of(const void *p, size_t words)
{
	uint64_t sum = 0, x;

	for (size_t i = 0; p && i < words; i++) {
		memcpy(&x, (const char *)p + i * 8, 8);
		sum = gap_mix(sum ^ x);
	}
	return sum;
}

/* bench-work KIND MIB UNITS */
int main(int argc, char **argv)
{
	size_t bytes = gap_number(argc, argv, 2) << 20, units = gap_number(argc, argv, 3);
	const struct kind *kind = NULL;
	int64_t start, system;

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (!strcmp(argv[1], kinds[i].name))
			kind = &kinds[i];
	if (!kind) {
		(void)fprintf(stderr, "%s: unknown kind '%s'\n", argv[0], argv[1]);
		return 2;
	}
	kind->begin(bytes);
	start = now_ns();
	system = system_ns();
	for (size_t u = 0; u < units; u++)
		kind->unit(u);
	(void)printf("%" PRId64 " %" PRId64, now_ns() - start, system_ns() - system);
	(void)printf(" %016" PRIx64 "\n", sum_of(dc ? dc : da, n * n) ^ sum_of(ba, n * n / 8));
	return 0;
}
