/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the job wrote to its files lies in the page cache. An image records their sizes and relies
 * on their content, so it is worth nothing after a power cut unless they reached the disk before it
 * did. Files that it has open are synced one by one. Those that it has written and closed nobody
 * can name, so the file systems that it works in are synced as a whole (syncfs), unless the
 * kernel's accounts say that it wrote nothing since the last checkpoint: others write there too,
 * and would have to be waited for.
 */
#include "dump/internal.h"
#include "util/cleanup.h"
#include "util/io.h"
#include "util/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOG_ROOM         "dump"
#define MAX_FILE_SYSTEMS 32

/* By path, with a description of our own: a duplicate of the job's would keep its locks alive. */
static int sync_path(const char *path, uint64_t ino, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_ino != ino || !S_ISREG(st.st_mode))
		return 0; /* write-only to us, or replaced already: not ours to judge */
	if (fdatasync(fd) < 0 && errno != EINVAL && errno != EROFS)
		return err_set(err, -errno, "cannot write '%s' to disk: %m", path);
	return 0;
}

static int sync_open(const struct tree *t, struct err *err)
{
	for (unsigned i = 0; i < t->n_files; i++) {
		const struct file *f = &t->files[i];
		int rc;

		if (f->kind != FILE_REGULAR || (f->flags & O_ACCMODE) == O_RDONLY || !f->path)
			continue;
		/* to open it would break the lease; what is in it comes with its file system */
		if (f->lease == F_WRLCK + 1)
			continue;
		rc = sync_path(f->path, f->ino, err);
		if (rc < 0)
			return rc;
	}
	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *p = &t->processes[i];

		for (unsigned j = 0; j < p->n_vmas; j++) {
			const struct vma *v = &p->vmas[j];
			int rc = 0;

			if (v->kind == VMA_FILE && (v->flags & MAP_SHARED) &&
			    (v->prot & PROT_WRITE))
				rc = sync_path(v->path, v->ino, err);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

/* The value of "NAME: VALUE" in /proc/PID/io. */
static bool account(const char *text, const char *name, uint64_t *ret)
{
	const char *p = strstr(text, name);

	return p && sscanf(p + strlen(name), ": %" SCNu64, ret) == 1;
}

/*
 * What the process has written so far. wchar: by calls; write_bytes: pages made dirty, through
 * mappings too; and faults of children that it waited for, which may have written.
 */
static bool read_accounts(pid_t pid, struct written *ret)
{
	CLEANUP_FREE char *text = NULL, *stat = NULL;
	char path[48], *end;

	*ret = (struct written){ .pid = (uint64_t)pid };
	(void)snprintf(path, sizeof path, "/proc/%d/io", pid);
	if (io_read_file(-1, path, &text, NULL) < 0 || !account(text, "wchar", &ret->wchar) ||
	    !account(text, "\nwrite_bytes", &ret->write_bytes))
		return false;
	(void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (io_read_file(-1, path, &stat, NULL) < 0)
		return false;
	end = strrchr(stat, ')');
	return end && sscanf(end, ") %*c %*d %*d %*d %*d %*d %*u %*u %" SCNu64,
			     &ret->children_faults) == 1;
}

/* May something have been written since then? now: the accounts, to be remembered. */
static bool has_written(const struct dumper *d, const struct written *then, struct written *now)
{
	if (d->cap.n_subjects != 1 || !read_accounts(d->cap.subjects[0].pid, now)) {
		*now = (struct written){ 0 };
		return true;
	}
	return memcmp(now, then, sizeof *now) != 0;
}

static int sync_file_system(const char *path, dev_t *done, unsigned *n, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0; /* gone, or not for us to read */
	for (unsigned i = 0; i < *n; i++)
		if (done[i] == st.st_dev)
			return 0;
	if (syncfs(fd) < 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT))
		return err_set(err, -errno, "cannot write the file system of '%s' to disk: %m",
			       path);
	log_debug("the file system of '%s' is on disk", path);
	if (*n < MAX_FILE_SYSTEMS)
		done[(*n)++] = st.st_dev;
	return 0;
}

/* The directory of a file. */
static int sync_around(const char *path, dev_t *done, unsigned *n, struct err *err)
{
	CLEANUP_FREE char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash)
		return 0;
	slash[slash == dir] = '\0';
	return sync_file_system(dir, done, n, err);
}

static int sync_closed(const struct tree *t, struct err *err)
{
	dev_t done[MAX_FILE_SYSTEMS];
	unsigned n = 0;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < t->n_processes; i++)
		if (t->processes[i].cwd)
			rc = sync_file_system(t->processes[i].cwd, done, &n, err);
	for (unsigned i = 0; rc == 0 && i < t->n_files; i++) {
		const struct file *f = &t->files[i];

		if (f->kind == FILE_REGULAR && (f->flags & O_ACCMODE) != O_RDONLY && f->path)
			rc = sync_around(f->path, done, &n, err);
	}
	return rc;
}

int sync_files(struct dumper *d, struct err *err)
{
	struct written now;
	bool closed_too = has_written(d, &d->job->written, &now);
	int rc = sync_open(d->tree, err);

	if (rc == 0 && closed_too)
		rc = sync_closed(d->tree, err);
	if (rc == 0)
		d->job->written = now;
	return rc;
}
