/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: mapped files that have been deleted: private and shared mappings, with and without
 * descriptor. */
#include "victim.h"

#define NPAGES 64u

static int make(const char *suffix, uint64_t seed)
{
	char page[PAGE];
	int fd = open(victim_path(suffix), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	check_sys(fd >= 0);
	for (unsigned i = 0; i < NPAGES; i++) {
		page_fill(page, seed + i);
		check_sys(write(fd, page, PAGE) == PAGE);
	}
	check_sys(unlink(victim_path(suffix)) == 0);
	return fd;
}

int main(int argc, char **argv)
{
	int a, b, c;
	char *priv, *shared, *both, page[PAGE];
	uint64_t rounds = 0;

	victim_init(argc, argv);
	a = make("gone-a", 0);
	b = make("gone-b", 1000);
	c = make("gone-c", 2000);
	priv = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, a, 0);
	shared = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b, 0);
	both = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, c, 0);
	check_sys(priv != MAP_FAILED && shared != MAP_FAILED && both != MAP_FAILED);
	check_sys(close(a) == 0 && close(b) == 0);
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < NPAGES; i++) {
			uint64_t v = i % 3 ? 0 : rounds * 10000;
			check(page_is(priv + i * PAGE, i + v), "page %u, private", i);
			check(page_is(shared + i * PAGE, 1000 + i + v), "page %u, shared", i);
			check(page_is(both + i * PAGE, 2000 + i + v), "page %u, with descriptor",
			      i);
			check_sys(pread(c, page, PAGE, (off_t)(i * PAGE)) == PAGE);
			check(page_is(page, 2000 + i + v), "page %u, read from the descriptor", i);
		}
		rounds++;
		for (unsigned i = 0; i < NPAGES; i += 3) {
			page_fill(priv + i * PAGE, i + rounds * 10000);
			page_fill(shared + i * PAGE, 1000 + i + rounds * 10000);
			page_fill(both + i * PAGE, 2000 + i + rounds * 10000);
		}
		check_sys(pread(c, page, PAGE, 0) == PAGE);
		check(page_is(page, 2000 + rounds * 10000), "mapping and descriptor are apart");
		victim_ok();
	}
	return 0;
}
