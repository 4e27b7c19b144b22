/* SPDX-License-Identifier: BSD-2-Clause */
/* A chain's directory: making it, its finished mark, clearing it, and who may write to it. */
#include "image/chain_int.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define FINISHED_NAME "finished"
#define FINISHED_TMP  ".finished.tmp"

uint64_t chain_name_seq(const char *name)
{
	uint64_t seq = 0;
	size_t n = strspn(name, "0123456789");

	if (n < 6 || n > 18 || strcmp(name + n, ".img") || (n > 6 && name[0] == '0'))
		return 0;
	for (size_t i = 0; i < n; i++)
		seq = seq * 10 + (uint64_t)(name[i] - '0');
	return seq;
}

int chain_sync_dir(const struct chain *c, struct err *err)
{
	return fsync(c->dir) < 0 ? err_set(err, -errno, "cannot sync chain '%s': %m", c->path) : 0;
}

/* --- opening -------------------------------------------------------------------------------------
 */

/* A new directory's name is durable once its parent is synced; where that cannot be opened there is
 * no way. */
static void sync_parent(const char *dir)
{
	CLEANUP_FREE char *copy = strdup(dir);
	CLEANUP_FD int fd = -1;
	char *slash;
	size_t len;

	if (!copy)
		return;
	for (len = strlen(copy); len > 1 && copy[len - 1] == '/'; len--)
		copy[len - 1] = '\0';
	slash = strrchr(copy, '/');
	if (slash)
		slash[slash == copy] = '\0';
	fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		(void)fsync(fd);
}

static int make_dir(const char *dir, struct err *err)
{
	int code;

	if (mkdir(dir, 0700) == 0) {
		sync_parent(dir);
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	code = -errno;
	err_set(err, code, "cannot create chain '%s': %m", dir);
	if (code == -EACCES || code == -EPERM || code == -EROFS)
		err_hint(err, "name another directory with --output");
	else if (code == -ENOENT)
		err_hint(err, "the directory that it is to lie in must be there");
	return code;
}

static DIR *open_listing(const struct chain *c)
{
	int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		(void)close(fd);
	return d;
}

/* ".000007.img.tmp" of a command that was killed: with the lock held nobody is writing it. */
static void remove_leftovers(const struct chain *c)
{
	CLEANUP_DIR DIR *d = open_listing(c);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		size_t len = strlen(e->d_name);

		if (len > 9 && e->d_name[0] == '.' && !strcmp(e->d_name + len - 8, ".img.tmp"))
			(void)unlinkat(c->dir, e->d_name, 0);
	}
	(void)unlinkat(c->dir, FINISHED_TMP, 0);
}

static void free_chain(struct chain **c)
{
	chain_free(*c);
}

int chain_open(const char *dir, enum chain_mode mode, struct chain **ret, struct err *err)
{
	CLEANUP(free_chain) struct chain *c = NULL;
	int rc = mode == CHAIN_CREATE ? make_dir(dir, err) : 0;

	if (rc < 0)
		return rc;
	c = calloc(1, sizeof *c);
	if (!c)
		return err_nomem(err);
	c->dir = c->lock = -1;
	c->path = strdup(dir);
	if (!c->path)
		return err_nomem(err);
	c->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir < 0)
		return err_set(err, -errno, "cannot open chain '%s': %m", dir);
	if (mode != CHAIN_READ) {
		rc = chain_lock(c, err);
		if (rc < 0)
			return rc;
		remove_leftovers(c);
	}
	*ret = ptr_take(&c);
	return 0;
}

void chain_free(struct chain *c)
{
	if (!c)
		return;
	if (c->lock >= 0)
		(void)close(c->lock);
	if (c->dir >= 0)
		(void)close(c->dir);
	free(c->items);
	free(c->kin);
	free(c->path);
	free(c);
}

int chain_dirfd(const struct chain *c)
{
	return c->dir;
}

const char *chain_path(const struct chain *c)
{
	return c->path;
}

int chain_check_owner(int fd, const char *name, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot look at '%s': %m", name);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		err_set(err, -EPERM, "'%s' belongs to another user (uid %u)", name, st.st_uid);
	else if (st.st_mode & (S_IWGRP | S_IWOTH))
		err_set(err, -EPERM, "'%s' can be written by %s", name,
			st.st_mode & S_IWOTH ? "everybody" : "its group");
	else
		return 0;
	err_hint(err, "restarting an image runs what it says: if you trust it, use --trust");
	return -EPERM;
}

/* --- finished ------------------------------------------------------------------------------------
 */

int chain_set_finished(struct chain *c, const char *how, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int rc;

	(void)unlinkat(c->dir, FINISHED_TMP, 0);
	fd = openat(c->dir, FINISHED_TMP, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    0600);
	rc = fd < 0 ? -errno : io_write_full(fd, how, strlen(how));
	if (rc == 0)
		rc = io_write_full(fd, "\n", 1);
	if (rc == 0 && (fsync(fd) < 0 || renameat(c->dir, FINISHED_TMP, c->dir, FINISHED_NAME) < 0))
		rc = -errno;
	if (rc < 0) {
		(void)unlinkat(c->dir, FINISHED_TMP, 0);
		return err_set(err, rc, "cannot mark chain '%s' finished: %m", c->path);
	}
	return chain_sync_dir(c, err);
}

int chain_clear_finished(struct chain *c, struct err *err)
{
	if (unlinkat(c->dir, FINISHED_NAME, 0) < 0)
		return errno == ENOENT
			       ? 0
			       : err_set(err, -errno, "cannot unmark chain '%s': %m", c->path);
	return chain_sync_dir(c, err);
}

int chain_finished(struct chain *c, char how[static 64])
{
	CLEANUP_FD int fd =
		openat(c->dir, FINISHED_NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	ssize_t n;

	if (fd < 0)
		return 0;
	n = io_read_full(fd, how, 63);
	how[n > 0 ? n : 0] = '\0';
	how[strcspn(how, "\n")] = '\0';
	return 1;
}

/* --- clearing ------------------------------------------------------------------------------------
 */

/*
 * Newest first, so that a kill in the middle leaves images whose parents are there. The mark goes
 * before them: a chain is never called finished by what another job left.
 */
int chain_clear(struct chain *c, struct err *err)
{
	int rc = chain_clear_finished(c, err);

	if (rc == 0)
		rc = chain_scan(c, err);
	if (rc < 0)
		return rc;
	for (unsigned i = c->n_items; i-- > 0;)
		if (unlinkat(c->dir, c->items[i].e.name, 0) < 0 && errno != ENOENT)
			return err_set(err, -errno, "cannot remove '%s/%s': %m", c->path,
				       c->items[i].e.name);
	c->n_items = 0;
	c->highest = 0;
	return chain_sync_dir(c, err);
}
