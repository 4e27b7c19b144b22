/* SPDX-License-Identifier: BSD-2-Clause */
/* Page hashes of the last durable state, in two files read and written front to back. */
#include "dump/tracker.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct record {
	uint64_t space_page[2];
	struct hash128 hash;
};

struct tracker {
	int dirfd;
	FILE *old, *fresh;
	struct record ahead; /* the next record of old */
	bool have_ahead, comparing, failed;
};

int tracker_new(int dirfd, struct tracker **ret, struct err *err)
{
	struct tracker *t = calloc(1, sizeof *t);

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

void tracker_free(struct tracker *t)
{
	if (!t)
		return;
	close_table(&t->old);
	close_table(&t->fresh);
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

static void next_old(struct tracker *t)
{
	t->have_ahead = t->comparing && fread(&t->ahead, sizeof t->ahead, 1, t->old) == 1;
}

int tracker_begin(struct tracker *t, bool with_old, struct err *err)
{
	CLEANUP_FD int fd = -1;

	tracker_abort(t);
	fd = table_file(t->dirfd);
	if (fd < 0)
		return err_set(err, -errno, "cannot create the table of page hashes: %m");
	t->fresh = fdopen(fd, "w+");
	if (!t->fresh)
		return err_nomem(err);
	(void)fd_take(&fd);
	t->comparing = with_old && t->old;
	if (t->comparing)
		rewind(t->old);
	next_old(t);
	return 0;
}

static int order(const uint64_t a[2], const uint64_t b[2])
{
	if (a[0] != b[0])
		return a[0] < b[0] ? -1 : 1;
	return a[1] < b[1] ? -1 : a[1] > b[1];
}

bool tracker_same(struct tracker *t, uint32_t space, uint64_t page, struct hash128 h)
{
	struct record r = { .space_page = { space, page }, .hash = h };

	if (fwrite(&r, sizeof r, 1, t->fresh) != 1)
		t->failed = true;
	while (t->have_ahead && order(t->ahead.space_page, r.space_page) < 0)
		next_old(t);
	return t->have_ahead && order(t->ahead.space_page, r.space_page) == 0 &&
	       t->ahead.hash.lo == h.lo && t->ahead.hash.hi == h.hi;
}

int tracker_commit(struct tracker *t, struct err *err)
{
	if (!t->fresh)
		return 0;
	if (t->failed || fflush(t->fresh) != 0) {
		tracker_abort(t);
		close_table(&t->old);
		return err_set(err, -EIO, "cannot write the table of page hashes");
	}
	close_table(&t->old);
	t->old = t->fresh;
	t->fresh = NULL;
	return 0;
}

void tracker_abort(struct tracker *t)
{
	close_table(&t->fresh);
	t->failed = false;
}
