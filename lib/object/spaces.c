/* SPDX-License-Identifier: BSD-2-Clause */
/* Spaces: contents that outlive a mapping or a descriptor, each recorded and made once. */
#include "object/kinds.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- capture ---------------------------------------------------------------------------------- */

void space_key(char key[SPACE_KEY_LEN], enum space_kind kind, unsigned dev_major,
	       unsigned dev_minor, uint64_t ino)
{
	(void)snprintf(key, SPACE_KEY_LEN, "%s:%x:%x:%llu", kind == SPACE_SHM ? "shm" : "file",
		       dev_major, dev_minor, (unsigned long long)ino);
}

static bool has_source(const struct capture *c, uint32_t space)
{
	for (unsigned i = 0; i < c->n_sources; i++)
		if (c->sources[i].space == space)
			return true;
	return false;
}

static bool add_source(struct capture *c, uint32_t space, int fd)
{
	struct space_source *source =
		arena_push(c->arena, &c->sources, &c->n_sources, sizeof *source);

	if (!source)
		return false;
	*source = (struct space_source){ .space = space, .fd = fd };
	return true;
}

uint32_t capture_space(struct capture *c, enum space_kind kind, const char *key, const char *name,
		       uint64_t size, int fd)
{
	CLEANUP_FD int source = fd;
	uint32_t id = c->space_id(c->space_id_arg, key);
	struct space *s;

	if (!id)
		return 0;
	if (!tree_space(c->tree, id)) {
		s = arena_push(c->arena, &c->tree->spaces, &c->tree->n_spaces, sizeof *s);
		if (!s)
			return 0;
		*s = (struct space){
			.id = id, .kind = kind, .size = size, .name = arena_strdup(c->arena, name)
		};
	}
	/* A space that was met as a mapping first gets its descriptor when one turns up. */
	if (source < 0 || has_source(c, id))
		return id;
	if (!add_source(c, id, source))
		return 0;
	source = -1;
	return id;
}

void capture_close_sources(struct capture *c)
{
	for (unsigned i = 0; i < c->n_sources; i++) {
		if (c->sources[i].fd >= 0)
			(void)close(c->sources[i].fd);
		c->sources[i].fd = -1;
	}
}

int open_readable(const struct open_file *of, int *ret_fd, struct err *err)
{
	/* A fresh description first: it has no O_DIRECT, which would ask for aligned reads. */
	int fd = lease_is_write(of) ? -1 : reopen_fd(of->dup, O_RDONLY | O_CLOEXEC), theirs = 0;

	if (fd < 0 && (of->flags & O_ACCMODE) != O_WRONLY && !(of->flags & O_DIRECT)) {
		fd = fcntl(of->dup, F_DUPFD_CLOEXEC, 3);
		theirs = 1;
	}
	if (fd < 0)
		return refuse(of, err, "'%s' has no name any more and cannot be opened for reading",
			      of->link);
	*ret_fd = fd;
	return theirs;
}

void space_source_is_theirs(struct capture *c, uint32_t space)
{
	for (unsigned i = 0; i < c->n_sources; i++)
		if (c->sources[i].space == space)
			c->sources[i].theirs = true;
}

/* --- restore ---------------------------------------------------------------------------------- */

int space_index(const struct tree *t, uint32_t id)
{
	for (unsigned i = 0; i < t->n_spaces; i++)
		if (t->spaces[i].id == id)
			return (int)i;
	return -1;
}

const struct file *space_file(const struct tree *t, uint32_t space, enum file_kind kind)
{
	for (unsigned i = 0; i < t->n_files; i++) {
		const struct file *f = &t->files[i];
		const struct file_content *content = f->kind == (uint32_t)kind ? f->detail : NULL;

		if (content && content->space == space)
			return f;
	}
	return NULL;
}

int spaces_open(struct rebuild *rb, struct err *err)
{
	const struct tree *t = rb->tree;
	int rc;

	for (unsigned i = 0; i < t->n_spaces; i++) {
		const struct space *s = &t->spaces[i];
		CLEANUP_FD int fd = -1;

		if (s->kind != SPACE_SHM && s->kind != SPACE_FILE)
			continue;
		rc = s->kind == SPACE_SHM ? memfd_make(rb, i, &fd, err)
		     : s->path            ? tmpfs_make(rb, i, &fd, err)
					  : deleted_make(rb, i, &fd, err);
		if (rc < 0)
			return rc;
		if (fd < 0)
			continue;
		/* The size at once, content later: what is zero in the image is never written then,
		 * and stays a hole. */
		if (ftruncate(fd, (off_t)s->size) < 0)
			return err_set(err, -errno, "cannot make a file of %llu bytes for '%s': %m",
				       (unsigned long long)s->size,
				       s->name ? s->name : "shared memory");
		rc = lift_fd(rb, &fd, err);
		if (rc < 0)
			return rc;
		rb->space_fds[i] = fd_take(&fd);
	}
	return 0;
}

static const char *name_of(const struct file *f)
{
	return f->path ? f->path : "a file without a name";
}

int content_check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_content *content = f->detail;
	uint32_t kind = f->kind == FILE_MEMFD ? SPACE_SHM : SPACE_FILE;
	int i = space_index(rb->tree, content->space);

	if (i < 0 || rb->tree->spaces[i].kind != kind)
		return err_image(err, -EINVAL, "the image has no content for '%s'", name_of(f));
	return 0;
}

int content_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_content *content = f->detail;
	CLEANUP_FD int fd =
		reopen_fd(rb->space_fds[space_index(rb->tree, content->space)], reopen_flags(f));

	if (fd < 0)
		return err_set(err, fd, "cannot open '%s': %m", name_of(f));
	if (f->pos && lseek(fd, (off_t)f->pos, SEEK_SET) < 0)
		return err_set(err, -errno, "cannot set the offset of '%s': %m", name_of(f));
	*ret_fd = fd_take(&fd);
	return 0;
}

/* Modes come late: a file that not even its owner may read could not be opened a second time. */
static int seal_one(const struct file *f, int fd, struct err *err)
{
	const struct file_content *content = f->detail;
	mode_t mode = f->mode & 07777;
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
				     { .tv_sec = f->mtime_ns / 1000000000,
				       .tv_nsec = f->mtime_ns % 1000000000 } };
	unsigned missing;
	struct stat st;
	int have;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot look at '%s': %m", name_of(f));
	/* a space that is mapped beyond its file's end is recorded with all of the mapping */
	if ((uint64_t)st.st_size != f->size && ftruncate(fd, (off_t)f->size) < 0)
		return err_set(err, -errno, "cannot set the size of '%s': %m", name_of(f));
	if ((st.st_mode & 07777) != mode && fchmod(fd, mode) < 0)
		return err_set(err, -errno, "cannot set the mode of '%s': %m", name_of(f));
	if (f->mtime_ns > 0)
		(void)futimens(fd, times); /* nice to have */
	if (f->kind != FILE_MEMFD || !content->seals)
		return 0;
	have = fcntl(fd, F_GET_SEALS);
	if (have < 0)
		return err_set(err, -errno, "cannot read the seals of '%s': %m", name_of(f));
	missing = content->seals & ~(unsigned)have;
	if (missing && fcntl(fd, F_ADD_SEALS, missing) < 0)
		return err_set(err, -errno, "cannot put the seals 0x%x on '%s': %m", missing,
			       name_of(f));
	return 0;
}

/*
 * Output that the job is going to write again is cut off as late as can be: whatever goes wrong
 * with a restart (a damaged image, no memory) has by then gone wrong, and the longer output is
 * still there.
 */
static int cut_back(struct rebuild *rb, int (*get_fd)(void *arg, int maker_fd), void *arg,
		    struct err *err)
{
	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file *f = &rb->tree->files[i];
		int fd, rc;

		if (f->kind != FILE_REGULAR || (f->flags & O_ACCMODE) == O_RDONLY ||
		    file_inherited(rb, f) >= 0)
			continue;
		fd = get_fd ? get_fd(arg, rb->file_fds[i]) : rb->file_fds[i];
		if (fd < 0)
			return err_set(err, fd, "cannot reach '%s': %m", f->path);
		rc = regular_cut_back(f, fd, err);
		if (get_fd)
			(void)close(fd);
		if (rc < 0)
			return err_wrap(err, rc, "%s", rebuild_file_owner(rb, f));
	}
	return 0;
}

int files_seal(struct rebuild *rb, int (*get_fd)(void *arg, int maker_fd), void *arg,
	       struct err *err)
{
	int cut = cut_back(rb, get_fd, arg, err);

	if (cut < 0)
		return cut;
	for (unsigned i = 0; i < rb->tree->n_spaces; i++) {
		const struct space *s = &rb->tree->spaces[i];
		const struct file *f =
			s->kind == SPACE_SHM    ? space_file(rb->tree, s->id, FILE_MEMFD)
			: s->kind == SPACE_FILE ? space_file(rb->tree, s->id, FILE_DELETED)
						: NULL;
		int fd, rc;

		if ((!f && !s->path) || rb->space_fds[i] < 0)
			continue;
		fd = get_fd ? get_fd(arg, rb->space_fds[i]) : rb->space_fds[i];
		if (fd < 0)
			return err_set(err, fd, "cannot reach '%s' to seal it: %m",
				       s->path ? s->path : name_of(f));
		rc = s->path ? tmpfs_finish(rb, s, fd, err) : seal_one(f, fd, err);
		if (get_fd)
			(void)close(fd);
		if (rc < 0)
			return rc;
	}
	return 0;
}
