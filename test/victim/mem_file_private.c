/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: private mappings of a file: clean pages from the file, dirty ones from the image. */
#include "victim.h"

#define NPAGES 256u
#define OFFSET 16u

static bool dirty(unsigned i, uint64_t round)
{
	return round && mix(i) % 5 < round;
}

/* Written in one round, and given up in the next without having been touched in between: what comes
 * then is the file's. */
static void check_given_up(char *given, bool written)
{
	for (unsigned i = 0; i < NPAGES - 1; i++)
		check(page_is(given + i * PAGE, written ? 200000 + i : OFFSET + i),
		      "page %u of the mapping that is given up (%s)", i,
		      written ? "written" : "dropped");
}

static void write_or_give_up(char *given, bool write)
{
	if (!write)
		check_sys(madvise(given, (NPAGES - 1) * PAGE, MADV_DONTNEED) == 0);
	for (unsigned i = 0; write && i < NPAGES - 1; i++)
		page_fill(given + i * PAGE, 200000 + i);
}

int main(int argc, char **argv)
{
	char *map, *ro, *given, page[PAGE];
	uint64_t rounds = 0;
	bool written = true;
	int fd;

	victim_init(argc, argv);
	fd = open(victim_path("data"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	check_sys(fd >= 0);
	for (unsigned i = 0; i < NPAGES + OFFSET; i++) {
		page_fill(page, i);
		check_sys(write(fd, page, PAGE) == PAGE);
	}
	/* The last page is only half in the file: the rest of it is private too. */
	check_sys(ftruncate(fd, (NPAGES + OFFSET) * PAGE - 2048) == 0);
	map = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, OFFSET * PAGE);
	ro = mmap(NULL, NPAGES * PAGE, PROT_READ, MAP_PRIVATE, fd, OFFSET * PAGE);
	given = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, OFFSET * PAGE);
	check_sys(map != MAP_FAILED && ro != MAP_FAILED && given != MAP_FAILED);
	check_sys(close(fd) == 0);
	map[NPAGES * PAGE - 1] = 77;
	write_or_give_up(given, written);
	victim_ready();
	while (victim_wait()) {
		check_given_up(given, written);
		/* not between a check, which reads, and the next checkpoint */
		written = !written;
		write_or_give_up(given, written);
		for (unsigned i = 0; i < NPAGES - 1; i++) {
			uint64_t seed = dirty(i, rounds) ? 100000 + i : OFFSET + i;
			check(page_is(map + i * PAGE, seed), "page %u of the writable mapping (%s)",
			      i, dirty(i, rounds) ? "dirty" : "clean");
			check(page_is(ro + i * PAGE, OFFSET + i),
			      "page %u of the read-only mapping", i);
		}
		check(map[NPAGES * PAGE - 1] == 77, "tail of the last page");
		check(ro[NPAGES * PAGE - 1] == 0, "tail of the last page, read-only");
		rounds += rounds < 4;
		for (unsigned i = 0; i < NPAGES - 1; i++)
			if (dirty(i, rounds))
				page_fill(map + i * PAGE, 100000 + i);
		/* What DONTNEED drops comes from the file again. */
		if (rounds == 3) {
			check_sys(madvise(map, (NPAGES - 1) * PAGE, MADV_DONTNEED) == 0);
			rounds = 0;
		}
		victim_ok();
	}
	return 0;
}
