/* SPDX-License-Identifier: BSD-2-Clause */
/* Benchmark target: so many mappings of a page each, and so many descriptors. */
#include "gap.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE 4096

static char *area;
static unsigned long n_maps, n_fds;
static int *fds;

static int set_up(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return -1;
	lim.rlim_cur = lim.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &lim);
	area = mmap(NULL, n_maps * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	fds = malloc(n_fds * sizeof *fds);
	if (area == MAP_FAILED || !fds)
		return -1;
	for (unsigned long i = 0; i < n_maps; i++) {
		*(uint64_t *)(area + i * PAGE) = gap_mix(i);
		/* Every other one read-only: no two of them become one mapping. */
		if (i % 2 && mprotect(area + i * PAGE, PAGE, PROT_READ))
			return -1;
	}
	for (unsigned long i = 0; i < n_fds; i++) {
		fds[i] = open(i % 2 ? "/dev/null" : "/dev/zero", O_RDWR);
		if (fds[i] < 0)
			return -1;
	}
	return 0;
}

static void verify(void)
{
	for (unsigned long i = 0; i < n_maps; i++)
		if (*(uint64_t *)(area + i * PAGE) != gap_mix(i))
			gap_bad("a page is not what it was");
	for (unsigned long i = 0; i < n_fds; i++) {
		char byte = 1;

		if (read(fds[i], &byte, 1) != (i % 2 ? 0 : 1))
			gap_bad("a descriptor is not what it was");
	}
}

/* bench-many LOG MAPPINGS DESCRIPTORS */
int main(int argc, char **argv)
{
	n_maps = gap_number(argc, argv, 2);
	n_fds = gap_number(argc, argv, 3);
	if (set_up()) {
		perror("many");
		return 1;
	}
	gap_serve(argv[1], verify);
}
