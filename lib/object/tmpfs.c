/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Named files that are memory (tmpfs: POSIX shared memory in /dev/shm, files in such a /tmp). They
 * are gone after a reboot, and what the job shares by mapping them is as much its memory as the
 * rest: the image holds their content as a space that has a name.
 *
 * A restart makes what was mapped anew, under another name in the same directory, and renames it
 * over the old one when it is filled: whoever still uses that (another copy of the job) keeps it.
 * What was only open is made if it is missing, and else left as any other file.
 */
#include "object/kinds.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FS_TMPFS 0x01021994
#define MAX_OPEN_ONLY                                                                              \
	(64u << 20) /* more than that costs more at each checkpoint than it is worth */

/* --- capture ---------------------------------------------------------------------------------- */

static bool in_dev_shm(const char *path)
{
	return !strncmp(path, "/dev/shm/", 9);
}

/* dev as /proc/PID/maps has it */
static bool is_device(const struct stat *st, uint64_t dev)
{
	return makedev((unsigned)(dev >> 20), (unsigned)(dev & 0xfffff)) == st->st_dev;
}

/* Adds the space; fd (its content) is taken over. */
static uint32_t add(struct capture *c, const char *path, const struct stat *st, bool mapped, int fd)
{
	char key[SPACE_KEY_LEN];
	uint32_t id;

	space_key(key, SPACE_FILE, major(st->st_dev), minor(st->st_dev), st->st_ino);
	id = capture_space(c, SPACE_FILE, key, path, (uint64_t)st->st_size, fd);
	for (unsigned i = 0; i < c->tree->n_spaces; i++) {
		struct space *s = &c->tree->spaces[i];

		if (s->id != id)
			continue;
		s->path = arena_strdup(c->arena, path);
		s->file_size = (uint64_t)st->st_size;
		s->mode = st->st_mode & 07777;
		s->uid = st->st_uid;
		s->gid = st->st_gid;
		s->mapped |= mapped;
		return s->path ? id : 0;
	}
	return 0;
}

int tmpfs_capture_file(struct capture *c, const struct open_file *of, struct file *f,
		       struct err *err)
{
	bool writes = (of->flags & O_ACCMODE) != O_RDONLY;
	int fd = -1, rc;

	if (of->fs_magic != FS_TMPFS ||
	    !(in_dev_shm(of->link) || (writes && of->st.st_size <= MAX_OPEN_ONLY)))
		return 0;
	rc = open_readable(of, &fd, NULL);
	if (rc < 0) /* write-only, and not for us to read: it must be there at the restart */
		return 0;
	f->content = add(c, of->link, &of->st, in_dev_shm(of->link), fd);
	if (rc > 0)
		space_source_is_theirs(c, f->content);
	return f->content ? 0 : err_nomem(err);
}

/*
 * sem_open(3) makes a semaphore under one name, and then gives it its own: the mapping shows the
 * first, which is gone.
 */
static const char *name_now(struct capture *c, const char *path, uint64_t dev, uint64_t ino)
{
	CLEANUP_DIR DIR *d = in_dev_shm(path) ? opendir("/dev/shm") : NULL;
	const struct dirent *e;
	struct stat st;

	while (d && (e = readdir(d)))
		if (e->d_ino == ino &&
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_ino == ino && is_device(&st, dev))
			return arena_printf(c->arena, "/dev/shm/%s", e->d_name);
	return NULL;
}

int tmpfs_capture_mapping(struct capture *c, const struct proc_map *m, uint32_t *ret,
			  struct err *err)
{
	const char *path = m->deleted ? name_now(c, m->path, m->dev, m->ino) : m->path;
	CLEANUP_FD int fd = -1;
	struct statfs fs;
	struct stat st;

	*ret = 0;
	if (!path || path[0] != '/' || (!(m->advice & ADVICE_MAYWRITE) && !in_dev_shm(path)))
		return 0;
	if (statfs(path, &fs) < 0 || fs.f_type != FS_TMPFS)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_ino != m->ino ||
	    !is_device(&st, m->dev))
		return 0;
	*ret = add(c, path, &st, true, fd_take(&fd));
	return *ret ? 0 : err_nomem(err);
}

/* --- restore ---------------------------------------------------------------------------------- */

static const struct space *space_of(const struct rebuild *rb, const struct file *f)
{
	int i = f->content ? space_index(rb->tree, f->content) : -1;

	return i >= 0 && rb->tree->spaces[i].path ? &rb->tree->spaces[i] : NULL;
}

bool tmpfs_remakes(const struct rebuild *rb, const struct file *f)
{
	const struct space *s = space_of(rb, f);

	return s && (s->mapped || access(rebuild_path(rb, s->path), F_OK) < 0);
}

/* The name under which it is filled, in the directory where it belongs. */
static char *working_name(const struct rebuild *rb, const struct space *s)
{
	const char *path = rebuild_path(rb, s->path), *slash = strrchr(path, '/');

	if (!slash)
		return NULL;
	return arena_printf(rb->arena, "%.*s/.ckpt-%d-%u", (int)(slash - path), path, rb->tag,
			    s->id);
}

int tmpfs_make(struct rebuild *rb, unsigned i, int *ret_fd, struct err *err)
{
	const struct space *s = &rb->tree->spaces[i];
	const char *path = rebuild_path(rb, s->path);
	char *name;

	*ret_fd = -1;
	if (!s->mapped && access(path, F_OK) == 0)
		return 0;
	name = working_name(rb, s);
	if (!name)
		return err_nomem(err);
	*ret_fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return *ret_fd < 0 ? err_set(err, -errno, "cannot make '%s' again: %m", path) : 0;
}

int tmpfs_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct space *s = space_of(rb, f);
	CLEANUP_FD int fd = reopen_fd(rb->space_fds[s - rb->tree->spaces], reopen_flags(f));

	if (fd < 0)
		return err_set(err, fd, "cannot open '%s': %m", f->path);
	if (f->pos && lseek(fd, (off_t)f->pos, SEEK_SET) < 0)
		return err_set(err, -errno, "cannot set the offset of '%s': %m", f->path);
	*ret_fd = fd_take(&fd);
	return 0;
}

int tmpfs_finish(struct rebuild *rb, const struct space *s, int fd, struct err *err)
{
	const char *path = rebuild_path(rb, s->path), *name = working_name(rb, s);

	if (!name)
		return err_nomem(err);
	if (ftruncate(fd, (off_t)s->file_size) < 0)
		return err_set(err, -errno, "cannot set the size of '%s': %m", path);
	/* an owner that cannot be had is as when the job had made the file now */
	(void)!fchown(fd, s->uid, s->gid);
	if (fchmod(fd, s->mode) < 0)
		return err_set(err, -errno, "cannot set the mode of '%s': %m", path);
	if (rename(name, path) < 0)
		return err_set(err, -errno, "cannot put '%s' back: %m", path);
	return 0;
}

void tmpfs_undo(const struct rebuild *rb)
{
	for (unsigned i = 0; i < rb->tree->n_spaces; i++) {
		const char *name =
			rb->tree->spaces[i].path ? working_name(rb, &rb->tree->spaces[i]) : NULL;

		if (name)
			(void)unlink(name);
	}
}
