/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: memfds: sealed, mapped and open, open only, mapped only; sizes, offsets, seals and
 * content. */
#include "victim.h"

#define NPAGES 100u

static int make(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char page[PAGE];

	check_sys(fd >= 0);
	for (unsigned i = 0; i < NPAGES; i++) {
		page_fill(page, i);
		check_sys(write(fd, page, PAGE) == PAGE);
	}
	return fd;
}

static void check_name(int fd, const char *want)
{
	char path[64], link[128];
	ssize_t n;

	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof link - 1);
	check_sys(n > 0);
	link[n] = '\0';
	check(!strncmp(link, want, strlen(want)), "the memfd is called %s, not %s", link, want);
}

int main(int argc, char **argv)
{
	int sealed, grown, only;
	char *map_sealed, *map_grown, *map_only, page[PAGE];
	struct stat st;
	uint64_t rounds = 0;

	victim_init(argc, argv);
	sealed = make("sealed");
	grown = make("grown");
	only = make("only");
	check_sys(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	map_sealed = mmap(NULL, NPAGES * PAGE, PROT_READ, MAP_PRIVATE, sealed, 0);
	map_grown = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grown, 0);
	map_only = mmap(NULL, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, only, 20 * PAGE);
	check_sys(map_sealed != MAP_FAILED && map_grown != MAP_FAILED && map_only != MAP_FAILED);
	check_sys(close(only) == 0);
	check_sys(lseek(sealed, 12345, SEEK_SET) == 12345);
	victim_ready();
	while (victim_wait()) {
		int seals = fcntl(sealed, F_GET_SEALS);
		check(seals == (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), "seals %x", seals);
		check(write(sealed, "x", 1) == -1 && errno == EPERM, "the seal does not hold");
		check(lseek(sealed, 0, SEEK_CUR) == 12345, "offset of the sealed memfd");
		check_name(sealed, "/memfd:sealed");
		for (unsigned i = 0; i < NPAGES; i++) {
			uint64_t seed = i % 2 ? i : i + 1000 * rounds;
			check(page_is(map_sealed + i * PAGE, i), "sealed page %u", i);
			check(page_is(map_grown + i * PAGE, seed), "page %u, mapping", i);
			check_sys(pread(grown, page, PAGE, (off_t)(i * PAGE)) == PAGE);
			check(page_is(page, seed), "page %u, descriptor", i);
		}
		for (unsigned i = 0; i < 10; i++)
			check(page_is(map_only + i * PAGE, 20 + i), "mapped-only page %u", i);
		check_sys(fstat(grown, &st) == 0);
		check(st.st_size == (off_t)((NPAGES + rounds) * PAGE), "size %ld",
		      (long)st.st_size);
		check(fcntl(grown, F_GET_SEALS) == 0, "the unsealed one has seals");
		rounds++;
		check_sys(ftruncate(grown, (off_t)((NPAGES + rounds) * PAGE)) == 0);
		for (unsigned i = 0; i < NPAGES; i += 2)
			page_fill(map_grown + i * PAGE, i + 1000 * rounds);
		check_sys(pread(grown, page, PAGE, 0) == PAGE);
		check(page_is(page, 1000 * rounds), "mapping and descriptor are apart");
		victim_ok();
	}
	return 0;
}
