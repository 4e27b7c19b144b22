/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: 32 MiB, all of which is written to in each of the first rounds (as many as the argument
 * says), and a few pages in the later ones. With the argument "uffd" it opens a userfaultfd,
 * descriptor 9, in the first.
 */
#include "victim.h"

#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES 8192u
#define FEW   64u

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static void open_userfaultfd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		victim_skip("no userfaultfd here: %s", strerror(errno));
	check_sys(dup3(fd, 9, O_CLOEXEC) == 9 && close(fd) == 0);
}

int main(int argc, char **argv)
{
	uint64_t rounds = 0, most, all = 0;
	char *area;

	victim_init(argc, argv);
	most = argc > 2 ? (uint64_t)atoi(argv[2]) : 1000;
	area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(area != MAP_FAILED);
	(void)madvise(area, PAGES * PAGE, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < PAGES; i++)
		page_fill(area + i * PAGE, i);
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < PAGES; i++)
			check(page_is(area + i * PAGE, (i < FEW ? rounds : all) * PAGES + i),
			      "page %u in round %d", i, (int)rounds);
		rounds++;
		if (rounds == 1 && argc > 3 && !strcmp(argv[3], "uffd"))
			open_userfaultfd();
		if (rounds <= most)
			all = rounds;
		for (unsigned i = 0; i < (rounds <= most ? PAGES : FEW); i++)
			page_fill(area + i * PAGE, rounds * PAGES + i);
		victim_ok();
	}
	return 0;
}
