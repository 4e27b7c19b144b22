/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of page hashes: two passes, gaps of all lengths, what has changed and what has gone. */
#include "dump/hashes.h"

#include "../check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGES 3000u

static struct hash128 hash_of(uint64_t page, unsigned version)
{
	uint64_t v[2] = { page, version };

	return hash128(v, sizeof v);
}

/* Pages of space 1 and 2, every step-th from first on; how many are as in the table before. */
static unsigned pass(struct hashes *t, unsigned first, unsigned step, unsigned version)
{
	unsigned same = 0;

	for (uint32_t space = 1; space <= 2; space++)
		for (uint64_t page = first; page < PAGES; page += step)
			same += hashes_same(t, space, page, hash_of(page + space, version));
	return same;
}

static void table(struct hashes *t, unsigned step, unsigned version, unsigned expected)
{
	CHECK(hashes_begin(t, true, NULL) == 0);
	CHECK_INT(pass(t, 0, step, version), expected);
	CHECK(hashes_commit(t, NULL) == 0);
}

static unsigned number(unsigned step)
{
	return 2 * ((PAGES + step - 1) / step);
}

int main(void)
{
	const unsigned steps[] = { 1, 2, 255, 256, 257, 258, 999, 2999 };
	int dirfd = open(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", O_RDONLY | O_DIRECTORY);
	struct hashes *t;

	CHECK(dirfd >= 0 && hashes_new(dirfd, &t, NULL) == 0);
	CHECK(hashes_begin(t, false, NULL) == 0);
	CHECK_INT(pass(t, 0, 1, 0), 0);
	CHECK(hashes_commit(t, NULL) == 0);
	for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		unsigned step = steps[i], version = 10 * i + 10;

		/* all; some of them; these with other content; and all with that */
		table(t, 1, version, 0);
		table(t, step, version, number(step));
		table(t, step, version + 1, 0);
		table(t, 1, version + 1, number(step));
		/* in two passes, of which the second goes between the pages of the first */
		CHECK(hashes_begin(t, true, NULL) == 0);
		CHECK_INT(pass(t, 0, step, version + 1), number(step));
		CHECK(hashes_second_pass(t, NULL) == 0);
		if (step == 2)
			CHECK_INT(pass(t, 1, 2, version + 1), number(2));
		CHECK(hashes_commit(t, NULL) == 0);
		table(t, 1, version + 1, step == 2 ? number(1) : number(step));
	}
	hashes_free(t);
	(void)close(dirfd);
	return 0;
}
