/* SPDX-License-Identifier: BSD-2-Clause */
/* Regular files without a name (unlinked, O_TMPFILE): their content is a space of its own. */
#include "object/kinds.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define FS_HUGETLB   0x958458f6
#define FS_SECRETMEM 0x5345434d
#define FS_NFS       0x6969

/* NFS renames an open file that is deleted; that name goes with the last one who has it open. */
static bool is_silly_renamed(const struct open_file *of)
{
	const char *base = strrchr(of->link, '/');

	return of->fs_magic == FS_NFS && base && !strncmp(base, "/.nfs", 5);
}

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return S_ISREG(of->st.st_mode) && of->link[0] == '/' &&
	       (of->deleted || of->st.st_nlink == 0 || is_silly_renamed(of)) &&
	       of->fs_magic != FS_HUGETLB && of->fs_magic != FS_SECRETMEM;
}

/* --- capture ---------------------------------------------------------------------------------- */

static int capture_content(struct capture *c, const struct open_file *of, struct file_content *d,
			   struct err *err)
{
	char key[SPACE_KEY_LEN], *name = arena_printf(c->arena, "%s (deleted)", of->link);
	int fd = -1, rc;

	if (!name)
		return err_nomem(err);
	space_key(key, SPACE_FILE, major(of->st.st_dev), minor(of->st.st_dev), of->st.st_ino);
	rc = open_readable(of, &fd, err);
	if (rc < 0)
		return rc;
	d->space = capture_space(c, SPACE_FILE, key, name, (uint64_t)of->st.st_size, fd);
	if (rc > 0)
		space_source_is_theirs(c, d->space);
	return d->space ? 0 : err_nomem(err);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_content *d = arena_alloc(c->arena, sizeof *d);

	if (!d)
		return err_nomem(err);
	if (of->st.st_nlink > 0 && !is_silly_renamed(of)) {
		/* A hard link, or linkat(2) gave an O_TMPFILE a name. As a rule that lies in the
		 * same directory. */
		f->path = proc_other_name(c->arena, of->link, &of->st);
		f->kind = FILE_REGULAR;
		if (f->path)
			return 0;
		return refuse(
			of, err,
			"'%s' was deleted, and the file's other name is not in that directory",
			of->link);
	}
	d->nlink_was_zero = 1;
	f->detail = d;
	return capture_content(c, of, d, err);
}

/* --- restore ---------------------------------------------------------------------------------- */

/* A file without a name in a directory: O_TMPFILE, else one that is unlinked at once. */
static int nameless_in(const char *dir)
{
	char path[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	if (snprintf(path, sizeof path, "%s/.ckpt-XXXXXX", dir) >= (int)sizeof path)
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)unlink(path);
	return fd;
}

/* In its old directory, so that it lies on the same file system; else anywhere. */
int deleted_make(struct rebuild *rb, unsigned i, int *ret_fd, struct err *err)
{
	const struct space *sp = &rb->tree->spaces[i];
	const struct file *f = space_file(rb->tree, sp->id, FILE_DELETED);
	const char *path = f && f->path ? f->path : sp->name ? sp->name : "/tmp/file";
	const char *tmp = getenv("TMPDIR");
	char *copy = arena_strdup(rb->arena, rebuild_path(rb, path));
	int fd = -1;

	if (!copy)
		return err_nomem(err);
	if (copy[0] == '/')
		fd = nameless_in(dirname(copy));
	if (fd < 0 && tmp && tmp[0] == '/')
		fd = nameless_in(tmp);
	if (fd < 0)
		fd = nameless_in("/tmp");
	if (fd < 0)
		fd = memfd_create("deleted", MFD_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "cannot make a file for the content of '%s': %m", path);
	*ret_fd = fd;
	return 0;
}

const struct file_ops deleted_ops = {
	.kind = FILE_DELETED,
	.match = match,
	.capture = capture,
	.check = content_check,
	.open = content_open,
};
