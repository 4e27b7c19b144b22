/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: deleted files and O_TMPFILE ones, with content that changes, holes, and shared offsets.
 */
#include "victim.h"

#define NPAGES 300u

static uint64_t rounds;

static void write_some(int fd, uint64_t seed)
{
	char page[PAGE];

	for (unsigned i = 0; i < NPAGES; i++) {
		if (i % 10 == 9)
			continue; /* a hole */
		if (rounds && mix(i + rounds) % 5)
			continue;
		page_fill(page, seed + i);
		check_sys(pwrite(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE);
	}
}

static void verify(int fd, uint64_t seed, const char *what)
{
	char page[PAGE];

	for (unsigned i = 0; i < NPAGES; i++) {
		ssize_t n = pread(fd, page, PAGE, (off_t)(i * PAGE));
		check(n == (ssize_t)PAGE, "%s: %ld bytes at page %u", what, (long)n, i);
		check(i % 10 == 9 ? page_is_zero(page) : page_is(page, seed + i), "%s: page %u",
		      what, i);
	}
}

int main(int argc, char **argv)
{
	int gone, tmp, gone_dup, again, dark;
	char dir[4096], path[64];
	struct stat st;

	victim_init(argc, argv);
	gone = open(victim_path("gone"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	check_sys(gone >= 0);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", gone);
	again = open(path, O_RDONLY | O_CLOEXEC);
	check_sys(again >= 0 && unlink(victim_path("gone")) == 0);
	strcpy(dir, victim_path("x"));
	*strrchr(dir, '/') = '\0';
	tmp = open(dir, O_TMPFILE | O_RDWR, 0600);
	if (tmp < 0) /* a file system without it */
		tmp = gone;
	dark = open(victim_path("dark"), O_RDWR | O_CREAT | O_EXCL, 0); /* nobody may open it */
	check_sys(dark >= 0 && unlink(victim_path("dark")) == 0);
	write_some(gone, 0);
	write_some(tmp, 0);
	write_some(dark, 7);
	check_sys(lseek(dark, 999, SEEK_SET) == 999);
	check_sys(ftruncate(gone, NPAGES * PAGE + 100) == 0 &&
		  ftruncate(tmp, NPAGES * PAGE + 100) == 0 && ftruncate(dark, NPAGES * PAGE) == 0);
	gone_dup = dup(gone);
	check_sys(lseek(gone, 777, SEEK_SET) == 777 && lseek(again, 55, SEEK_SET) == 55);
	victim_ready();
	while (victim_wait()) {
		verify(gone, 0, "deleted file");
		verify(tmp, 0, "O_TMPFILE");
		check(lseek(dark, 0, SEEK_CUR) == 999, "offset of a file of mode 0: %ld",
		      (long)lseek(dark, 0, SEEK_CUR));
		verify(dark, 7, "file of mode 0");
		verify(again, 0, "second description of the deleted file");
		check_sys(fstat(gone, &st) == 0);
		check(st.st_size == NPAGES * PAGE + 100, "size %ld", (long)st.st_size);
		check((st.st_mode & 0777) == 0640, "mode %o", st.st_mode);
		check(lseek(gone_dup, 0, SEEK_CUR) == 777, "offset %ld",
		      (long)lseek(gone_dup, 0, SEEK_CUR));
		check(lseek(again, 0, SEEK_CUR) == 55, "offset of the second description");
		check_sys(lseek(gone, 778, SEEK_SET) == 778);
		check(lseek(gone_dup, 0, SEEK_CUR) == 778, "dup'ed descriptors are apart");
		check_sys(lseek(gone, 777, SEEK_SET) == 777);
		check(write(again, "", 1) == -1 && errno == EBADF,
		      "the read-only one can be written");
		rounds++;
		write_some(gone, 0);
		write_some(tmp, 0);
		write_some(dark, 7);
		victim_ok();
	}
	return 0;
}
