/* SPDX-License-Identifier: BSD-2-Clause */
/* 1000 descriptors: captured in little time, and placed in more than one batch. */
#include "harness.h"

#include <sys/eventfd.h>
#include <sys/stat.h>

#define FILES    500
#define EVENTFDS 400
#define DUPS     100
#define FIRST    3

static void setup(void)
{
	char name[32];
	int fd;

	for (int i = 0; i < FILES; i++) {
		(void)snprintf(name, sizeof name, "file %d", i);
		fd = open(in_dir(name), O_CREAT | O_RDWR, 0600);
		CHECK_EQ(fd, FIRST + i);
		CHECK_EQ(lseek(fd, i, SEEK_SET), i);
	}
	for (int i = 0; i < EVENTFDS; i++)
		CHECK_EQ(eventfd((unsigned)i + 1, EFD_NONBLOCK), FIRST + FILES + i);
	for (int i = 0; i < DUPS; i++)
		CHECK_EQ(dup(FIRST + FILES + i * 3), FIRST + FILES + EVENTFDS + i);
}

static void between(void)
{
	CHECK_EQ(last_tree->processes[0].n_fds, 3 + FILES + EVENTFDS + DUPS);
	CHECK_EQ(last_tree->n_files, 1 + FILES + EVENTFDS);
	printf("# captured in %ld us\n", last_capture_us);
	(void)fflush(stdout);
}

static void verify(void)
{
	uint64_t v;

	for (int i = 0; i < FILES; i++)
		CHECK_EQ(lseek(FIRST + i, 0, SEEK_CUR), i);
	for (int i = 0; i < DUPS; i++)
		CHECK(shares_description(FIRST + FILES + i * 3, FIRST + FILES + EVENTFDS + i));
	for (int i = 0; i < EVENTFDS; i++) {
		CHECK_EQ(read(FIRST + FILES + i, &v, sizeof v), sizeof v);
		CHECK_EQ(v, i + 1);
	}
}

static const struct test tests[] = {
	{ "1000 descriptors", setup, between, verify },
};

int main(void)
{
	return run_tests(tests, ARRAY_SIZE(tests));
}
