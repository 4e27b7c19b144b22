/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: 20,000 mappings and 1,000 descriptors. */
#include "victim.h"

#include <sys/resource.h>

#define NMAPS 20000u
#define NFDS  1000

int main(int argc, char **argv)
{
	struct rlimit lim;
	char *area;
	static int fds[NFDS];

	victim_init(argc, argv);
	check_sys(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	if (lim.rlim_max < NFDS + 20)
		victim_skip("only %lu descriptors allowed", (unsigned long)lim.rlim_max);
	lim.rlim_cur = lim.rlim_max < 4096 ? lim.rlim_max : 4096;
	check_sys(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	/* Every other page read-only: no two of them merge. */
	area = mmap(NULL, NMAPS * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(area != MAP_FAILED);
	for (unsigned i = 0; i < NMAPS; i++) {
		*(uint64_t *)(area + i * PAGE) = mix(i);
		if (i % 2)
			check_sys(mprotect(area + i * PAGE, PAGE, PROT_READ) == 0);
	}
	for (int i = 0; i < NFDS; i++) {
		fds[i] = open(i % 2 ? "/dev/null" : "/dev/zero", O_RDWR | O_CLOEXEC);
		check_sys(fds[i] >= 0);
	}
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < NMAPS; i++)
			check(*(uint64_t *)(area + i * PAGE) == mix(i), "mapping %u", i);
		for (int i = 0; i < NFDS; i++) {
			char byte = 9;
			ssize_t n = read(fds[i], &byte, 1);
			check(i % 2 ? n == 0 : n == 1 && byte == 0, "descriptor %d", fds[i]);
		}
		victim_ok();
	}
	return 0;
}
