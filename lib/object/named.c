/* SPDX-License-Identifier: BSD-2-Clause */
/* What has a name and no state but an offset: directories, O_PATH, the harmless devices. */
#include "object/kinds.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static bool has_name(const struct open_file *of)
{
	return of->link[0] == '/' && !of->deleted;
}

static int check_type(const struct rebuild *rb, const struct file *f, struct err *err)
{
	struct stat st;
	int rc = check_path(rb, f, &st, err);

	if (rc < 0)
		return rc;
	if ((st.st_mode & S_IFMT) != (f->mode & S_IFMT) ||
	    (S_ISCHR(f->mode) && st.st_rdev != f->rdev))
		return err_set(err, -EINVAL, "'%s' is not what it was at the checkpoint",
			       rebuild_path(rb, f->path));
	return 0;
}

static int open_named(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	return reopen_path(rb, f, ret_fd, err);
}

/* --- FILE_PATH -------------------------------------------------------------------------------- */

static bool path_match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return of->flags & O_PATH;
}

static int path_capture(struct capture *c, const struct open_file *of, struct file *f,
			struct err *err)
{
	(void)c;
	/* a symbolic link itself can only be opened so */
	if (S_ISLNK(of->st.st_mode))
		f->flags |= O_NOFOLLOW;
	return has_name(of)
		       ? 0
		       : refuse(of, err,
				"an O_PATH descriptor of '%s', which has no name, is not supported",
				of->link);
}

const struct file_ops path_ops = {
	.kind = FILE_PATH,
	.match = path_match,
	.capture = path_capture,
	.check = check_type,
	.open = open_named,
};

/* --- FILE_DIRECTORY --------------------------------------------------------------------------- */

static bool directory_match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return S_ISDIR(of->st.st_mode);
}

/* One that was deleted is empty for ever, and as good as any other that is gone: inode number 0. */
static int directory_capture(struct capture *c, const struct open_file *of, struct file *f,
			     struct err *err)
{
	(void)c;
	if (of->deleted)
		f->ino = 0;
	return has_name(of) || of->deleted
		       ? 0
		       : refuse(of, err, "the directory '%s' is not supported", of->link);
}

static int directory_check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	return f->ino ? check_type(rb, f, err) : 0;
}

static int open_gone(const struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const char *above = rebuild_above_gone(rb, rebuild_path(rb, f->path));
	char *path = above ? arena_printf(rb->arena, "%s.ckpt-gone-XXXXXX", above) : NULL;
	char spare[] = "/tmp/.ckpt-gone-XXXXXX";

	if (!path)
		return err_nomem(err);
	if (!mkdtemp(path))
		path = mkdtemp(spare);
	if (!path)
		return err_set(err, -errno,
			       "cannot make a directory in /tmp in place of the deleted '%s': %m",
			       f->path);
	*ret_fd = open(path, reopen_flags(f));
	if (*ret_fd < 0)
		err_set(err, -errno, "cannot open '%s': %m", path);
	(void)rmdir(path);
	return *ret_fd < 0 ? err->code : 0;
}

/*
 * The offset in a directory is a cookie of the file system, which seekdir(3) too takes back after a
 * new open. Some entries are read before it is set: ext4, positioned at the end without ever having
 * been read (seen on Linux 6.18), would find nothing after a rewinddir(3) either, since it takes
 * "never read" for "stands at the beginning".
 */
static int directory_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	CLEANUP_FD int fd = -1;
	_Alignas(8) char entries[1024];
	int rc = f->ino ? reopen_path(rb, f, &fd, err) : open_gone(rb, f, &fd, err);

	if (rc < 0)
		return rc;
	if (f->pos)
		(void)getdents64(fd, entries, sizeof entries);
	if (f->pos && lseek(fd, (off_t)f->pos, SEEK_SET) < 0)
		return err_set(err, -errno, "cannot go on reading the directory '%s': %m", f->path);
	*ret_fd = fd_take(&fd);
	return 0;
}

const struct file_ops directory_ops = {
	.kind = FILE_DIRECTORY,
	.match = directory_match,
	.capture = directory_capture,
	.check = directory_check,
	.open = directory_open,
};

/* --- FILE_DEVICE ------------------------------------------------------------------------------ */

static bool device_match(const struct capture *c, const struct open_file *of)
{
	static const unsigned memory_minors[] = { 3, 5, 7, 8,
						  9 }; /* null, zero, full, random, urandom */

	(void)c;
	if (!S_ISCHR(of->st.st_mode) || major(of->st.st_rdev) != 1)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(memory_minors); i++)
		if (minor(of->st.st_rdev) == memory_minors[i])
			return true;
	return false;
}

static int device_capture(struct capture *c, const struct open_file *of, struct file *f,
			  struct err *err)
{
	(void)c;
	(void)f;
	return has_name(of) ? 0
			    : refuse(of, err, "the device '%s' was deleted; that is not supported",
				     of->link);
}

const struct file_ops device_ops = {
	.kind = FILE_DEVICE,
	.match = device_match,
	.capture = device_capture,
	.check = check_type,
	.open = open_named,
};
