/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Regular files with a name: reopened by path. Output that was written after the checkpoint is cut
 * off, since the job will write it again; input must be what it was.
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define FS_MQUEUE    0x19800202
#define FS_SECRETMEM 0x5345434d

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return S_ISREG(of->st.st_mode) && of->link[0] == '/' && of->fs_magic != FS_MQUEUE &&
	       of->fs_magic != FS_SECRETMEM;
}

bool regular_reachable(const struct open_file *of)
{
	return proc_reaches(of->subject->pid, of->link, &of->st, of->flags);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	if (!regular_reachable(of)) {
		if (errno == ESTALE)
			return refuse(of, err,
				      "'%s' is not the open file any more: another lies there",
				      of->link);
		return refuse(of, err, "'%s' could not be opened again: %s", of->link,
			      strerror(errno));
	}
	return tmpfs_capture_file(c, of, f, err);
}

/* --- restore ---------------------------------------------------------------------------------- */

static bool is_output(const struct file *f)
{
	return f->kind == FILE_REGULAR && (f->flags & O_ACCMODE) != O_RDONLY;
}

/* A file that the job also has open for writing was its own to change. */
static bool written_by_tree(const struct rebuild *rb, const struct file *f)
{
	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file *g = &rb->tree->files[i];

		if (is_output(g) && g->dev == f->dev && g->ino == f->ino)
			return true;
	}
	return false;
}

/* Device numbers change with a reboot; with --map it is another file anyway. */
static bool replaced(const struct file *f, const char *path, const struct stat *st)
{
	return path == f->path && st->st_ino != f->ino;
}

/* As a log does that others write: what was read is still before the offset. */
bool file_has_grown(const struct rebuild *rb, const struct file *f)
{
	const char *path;
	struct stat st;

	if (f->kind != FILE_REGULAR || is_output(f) || written_by_tree(rb, f))
		return false;
	path = rebuild_path(rb, f->path);
	return path == f->path && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
	       st.st_ino == f->ino && (uint64_t)st.st_size > f->size;
}

static int check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const char *path = rebuild_path(rb, f->path);
	unsigned long long was = f->size, is;
	struct stat st;
	int rc;

	if (tmpfs_remakes(rb, f))
		return 0;
	rc = check_path(rb, f, &st, err);
	if (rc < 0)
		return rc;
	is = (unsigned long long)st.st_size;
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "'%s' is not a regular file any more", path);
	if (is_output(f)) {
		if (replaced(f, path, &st))
			return err_set(err, -ESTALE, "'%s' was replaced since the checkpoint",
				       path);
		if (is < was)
			return err_set(err, -ESTALE,
				       "'%s' is shorter than at the checkpoint (%llu < %llu bytes)",
				       path, is, was);
	} else if (is != was && !written_by_tree(rb, f) && !file_has_grown(rb, f)) {
		return err_set(
			err, -ESTALE,
			"'%s' has changed since the checkpoint (it had %llu bytes, now %llu)", path,
			was, is);
	}
	if (faccessat(AT_FDCWD, path, proc_access_mode((int)f->flags), AT_EACCESS) < 0 &&
	    (errno != EACCES || st.st_uid != geteuid()))
		return err_set(err, -errno, "cannot open '%s': %m", path);
	return 0;
}

static int open_regular(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	int space = f->content ? space_index(rb->tree, f->content) : -1, rc;
	CLEANUP_FD int fd = -1;
	struct stat st;

	if (space >= 0 && rb->space_fds[space] >= 0)
		return tmpfs_open(rb, f, ret_fd, err);
	rc = reopen_path(rb, f, &fd, err);
	if (rc < 0)
		return rc;
	/* Once more, on what was really opened: nothing below may ever touch another file. */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (is_output(f) && replaced(f, rebuild_path(rb, f->path), &st)))
		return err_set(err, -ESTALE, "'%s' was replaced during the restart", f->path);
	if (f->pos && lseek(fd, (off_t)f->pos, SEEK_SET) < 0)
		return err_set(err, -errno, "cannot go to offset %llu of '%s': %m",
			       (unsigned long long)f->pos, f->path);
	*ret_fd = fd_take(&fd);
	return 0;
}

int regular_cut_back(const struct file *f, int fd, struct err *err)
{
	struct stat st;

	if (!is_output(f) || fd < 0)
		return 0;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(err, -ESTALE, "'%s' was replaced during the restart", f->path);
	if ((uint64_t)st.st_size < f->size)
		return err_set(err, -ESTALE, "'%s' became shorter during the restart", f->path);
	/* An inode that is open several times is cut once: the second time it has its size. */
	if ((uint64_t)st.st_size > f->size && ftruncate(fd, (off_t)f->size) < 0)
		return err_set(err, -errno, "cannot cut '%s' back to %llu bytes: %m", f->path,
			       (unsigned long long)f->size);
	return 0;
}

const struct file_ops regular_ops = {
	.kind = FILE_REGULAR,
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_regular,
};
