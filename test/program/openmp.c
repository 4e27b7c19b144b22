/* SPDX-License-Identifier: BSD-2-Clause */
/* A real OpenMP program: parallel loops with reductions, again and again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define N 400000

static double a[N], b[N];

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 100;

	for (int i = 0; i < N; i++)
		a[i] = (double)(i % 1000) / 7;
	for (int r = 0; r < rounds; r++) {
		uint64_t sum = 0;

#pragma omp parallel for schedule(dynamic, 1000)
		for (int i = 0; i < N; i++) {
			double x = a[i];
			for (int k = 0; k < 12; k++)
				x = x * 0.999 + 1 / (x + 1.5);
			b[i] = x + a[(i * 7 + r) % N] / 1024;
		}
		/* Whole numbers, so that the order in which threads add does not matter. */
#pragma omp parallel for reduction(+ : sum)
		for (int i = 0; i < N; i++) {
			a[i] = b[i];
			sum += (uint64_t)(b[i] * 1e9);
		}
		if (r % 20 == 0) {
			printf("%d %016llx\n", r, (unsigned long long)sum);
			fflush(stdout);
		}
	}
	puts("end");
	return 0;
}
