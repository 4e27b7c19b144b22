/* SPDX-License-Identifier: BSD-2-Clause */
/* Page hashes of the last durable state, in two files read and written front to back. */
#include "dump/hashes.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* So many records are read in the time that one is looked for in the whole table. */
#define FEW_RECORDS 256

struct record {
	uint64_t space_page[2];
	struct hash128 hash;
};

struct hashes {
	int dirfd;
	FILE *old, *fresh;
	FILE *first;         /* what the first pass wrote, once the second has begun */
	struct record ahead; /* the next record of old */
	int64_t n_old;       /* records in old */
	bool have_ahead, comparing, failed;
};

int hashes_new(int dirfd, struct hashes **ret, struct err *err)
{
	struct hashes *t = calloc(1, sizeof *t);

	if (!t)
		return err_nomem(err);
	t->dirfd = dirfd;
	*ret = t;
	return 0;
}

static void close_table(FILE **f)
{
	if (*f)
		(void)fclose(*f);
	*f = NULL;
}

void hashes_free(struct hashes *t)
{
	if (!t)
		return;
	close_table(&t->old);
	close_table(&t->fresh);
	close_table(&t->first);
	free(t);
}

/* An unlinked file; where the file system has no O_TMPFILE, a named one removed at once. */
static int table_file(int dirfd)
{
	static const char name[] = ".hashes.tmp";
	int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	fd = openat(dirfd, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0)
		(void)unlinkat(dirfd, name, 0);
	return fd;
}

static void next_old(struct hashes *t)
{
	t->have_ahead = t->comparing && fread(&t->ahead, sizeof t->ahead, 1, t->old) == 1;
}

static int fresh_table(struct hashes *t, FILE **ret, struct err *err)
{
	CLEANUP_FD int fd = table_file(t->dirfd);

	if (fd < 0)
		return err_set(err, -errno, "cannot create the table of page hashes: %m");
	*ret = fdopen(fd, "w+");
	if (!*ret)
		return err_nomem(err);
	(void)fd_take(&fd);
	return 0;
}

static void rewind_old(struct hashes *t)
{
	if (t->comparing)
		rewind(t->old);
	next_old(t);
}

int hashes_begin(struct hashes *t, bool with_old, struct err *err)
{
	int rc;

	hashes_abort(t);
	rc = fresh_table(t, &t->fresh, err);
	if (rc < 0)
		return rc;
	t->comparing = with_old && t->old;
	if (t->comparing) {
		struct stat st;

		t->n_old =
			fstat(fileno(t->old), &st) < 0 ? 0 : st.st_size / (int64_t)sizeof t->ahead;
	}
	rewind_old(t);
	return 0;
}

int hashes_second_pass(struct hashes *t, struct err *err)
{
	FILE *second;
	int rc;

	if (!t->fresh || t->first || ftell(t->fresh) == 0) {
		rewind_old(t);
		return 0;
	}
	rc = fresh_table(t, &second, err);
	if (rc < 0)
		return rc;
	t->first = t->fresh;
	t->fresh = second;
	rewind_old(t);
	return 0;
}

static int order(const uint64_t a[2], const uint64_t b[2])
{
	if (a[0] != b[0])
		return a[0] < b[0] ? -1 : 1;
	return a[1] < b[1] ? -1 : a[1] > b[1];
}

/* To the first record of old that is not before the key. The job may be standing still: of a large
 * table not all is read up to there. */
static void advance_old(struct hashes *t, const uint64_t key[2])
{
	int64_t low, high = t->n_old;
	struct record r;

	for (unsigned i = 0; i < FEW_RECORDS; i++) {
		if (!t->have_ahead || order(t->ahead.space_page, key) >= 0)
			return;
		next_old(t);
	}
	if (!t->have_ahead)
		return;
	low = ftello(t->old) / (int64_t)sizeof r - 1; /* t->ahead */
	while (low < high) {
		int64_t middle = low + (high - low) / 2;

		if (pread(fileno(t->old), &r, sizeof r, middle * (int64_t)sizeof r) !=
		    (ssize_t)sizeof r)
			break;
		if (order(r.space_page, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == high && fseeko(t->old, low * (int64_t)sizeof r, SEEK_SET) == 0)
		next_old(t);
	else
		t->have_ahead = false; /* nothing is the same then */
}

bool hashes_same(struct hashes *t, uint32_t space, uint64_t page, struct hash128 h)
{
	struct record r = { .space_page = { space, page }, .hash = h };

	if (fwrite(&r, sizeof r, 1, t->fresh) != 1)
		t->failed = true;
	advance_old(t, r.space_page);
	return t->have_ahead && order(t->ahead.space_page, r.space_page) == 0 &&
	       t->ahead.hash.lo == h.lo && t->ahead.hash.hi == h.hi;
}

/* The two passes as one table, in order. */
static int join_passes(struct hashes *t, struct err *err)
{
	FILE *in[2] = { t->first, t->fresh }, *out;
	struct record r[2];
	bool have[2];
	int rc = fresh_table(t, &out, err);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < 2; i++) {
		rewind(in[i]);
		have[i] = fread(&r[i], sizeof r[i], 1, in[i]) == 1;
	}
	while (have[0] || have[1]) {
		unsigned i = !have[0] || (have[1] && order(r[1].space_page, r[0].space_page) < 0);

		if (fwrite(&r[i], sizeof r[i], 1, out) != 1)
			t->failed = true;
		have[i] = fread(&r[i], sizeof r[i], 1, in[i]) == 1;
	}
	t->failed |= ferror(in[0]) || ferror(in[1]);
	close_table(&t->first);
	close_table(&t->fresh);
	t->fresh = out;
	return 0;
}

int hashes_commit(struct hashes *t, struct err *err)
{
	int rc = 0;

	if (!t->fresh)
		return 0;
	if (t->first)
		rc = fflush(t->first) || fflush(t->fresh) ? -EIO : join_passes(t, err);
	if (rc < 0 || t->failed || fflush(t->fresh) != 0) {
		hashes_abort(t);
		close_table(&t->old);
		return err_set(err, -EIO, "cannot write the table of page hashes");
	}
	close_table(&t->old);
	t->old = t->fresh;
	t->fresh = NULL;
	return 0;
}

void hashes_abort(struct hashes *t)
{
	close_table(&t->fresh);
	close_table(&t->first);
	t->failed = false;
}
