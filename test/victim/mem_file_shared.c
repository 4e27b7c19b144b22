/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: a shared mapping of a file is written through to the file, after a restart as before it.
 */
#include "victim.h"

#define NPAGES 64u

int main(int argc, char **argv)
{
	char *map, *ro, page[PAGE];
	uint64_t rounds = 0;
	int fd, again;

	victim_init(argc, argv);
	fd = open(victim_path("data"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	check_sys(fd >= 0 && ftruncate(fd, NPAGES * PAGE) == 0);
	map = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check_sys(map != MAP_FAILED && close(fd) == 0);
	fd = open(victim_path("data"), O_RDONLY | O_CLOEXEC);
	ro = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 8 * PAGE);
	check_sys(ro != MAP_FAILED && close(fd) == 0);
	for (unsigned i = 0; i < NPAGES; i++)
		page_fill(map + i * PAGE, i);
	victim_ready();
	while (victim_wait()) {
		/* Even pages are only written at the start. */
		for (unsigned i = 0; i < NPAGES; i += 2)
			check(page_is(map + i * PAGE, i), "page %u", i);
		rounds++;
		for (unsigned i = 1; i < NPAGES; i += 2)
			page_fill(map + i * PAGE, i + 1000 * rounds);
		again = open(victim_path("data"), O_RDONLY | O_CLOEXEC);
		check_sys(again >= 0);
		for (unsigned i = 0; i < NPAGES; i++) {
			check_sys(pread(again, page, PAGE, (off_t)(i * PAGE)) == PAGE);
			check(page_is(page, i % 2 ? i + 1000 * rounds : i), "page %u of the file",
			      i);
		}
		check(page_is(ro + PAGE, 9 + 1000 * rounds),
		      "the read-only mapping is another file");
		check_sys(close(again) == 0);
		victim_ok();
	}
	return 0;
}
