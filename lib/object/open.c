/* SPDX-License-Identifier: BSD-2-Clause */
/* Restoring open files: what must hold before, and making every description, in the maker. */
#include "object/kinds.h"

#include "util/fault.h"

#include <fcntl.h>
#include <unistd.h>

#define STATUS_FLAGS (O_APPEND | O_NONBLOCK | O_DIRECT) /* O_ASYNC: in place.c */

/* --- checks ----------------------------------------------------------------------------------- */

static bool needs_path(uint32_t kind)
{
	return kind == FILE_REGULAR || kind == FILE_DIRECTORY || kind == FILE_PATH ||
	       kind == FILE_DEVICE || kind == FILE_FIFO || kind == FILE_PROC;
}

/* --inherit FD: does some process have this file under one of those numbers? Then the caller's is
 * used. */
int file_inherited(const struct rebuild *rb, const struct file *f)
{
	for (unsigned n = 0; rb->opts && n < rb->opts->n_inherit; n++)
		for (unsigned i = 0; i < rb->tree->n_processes; i++) {
			const struct process *p = &rb->tree->processes[i];

			for (unsigned k = 0; k < p->n_fds; k++)
				if (p->fds[k].fd == rb->opts->inherit[n] && p->fds[k].file == f->id)
					return rb->opts->inherit[n];
		}
	return -1;
}

static int check_inherit(const struct rebuild *rb, int fd, struct err *err)
{
	if (fcntl(fd, F_GETFD) < 0) {
		err_set(err, -EBADF, "--inherit %d: descriptor %d is not open here", fd, fd);
		err_hint(err, "for example: ckpt-restart --inherit %d ... %d<>FILE", fd, fd);
		return -EBADF;
	}
	for (unsigned i = 0; i < rb->tree->n_processes; i++)
		for (unsigned k = 0; k < rb->tree->processes[i].n_fds; k++)
			if (rb->tree->processes[i].fds[k].fd == fd)
				return 0;
	return err_set(err, -EINVAL, "--inherit %d: the job has no descriptor %d", fd, fd);
}

/* An image may say anything: what the code below and the kinds rely on is checked here. */
static int check_sanity(const struct rebuild *rb, struct err *err)
{
	const struct tree *t = rb->tree;

	for (unsigned i = 0; i < t->n_files; i++) {
		const struct file *f = &t->files[i];

		if (file_kind_schema(f->kind) && !f->detail)
			return err_image(err, -EINVAL, "the image has no details of file %u (%s)",
					 f->id, file_kind_name(f->kind));
		if (needs_path(f->kind) && (!f->path || f->path[0] != '/'))
			return err_image(err, -EINVAL, "the image has no path of file %u (%s)",
					 f->id, file_kind_name(f->kind));
	}
	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *p = &t->processes[i];

		for (unsigned k = 0; k < p->n_fds; k++)
			if (p->fds[k].fd < 0 || (k && p->fds[k].fd <= p->fds[k - 1].fd) ||
			    file_index(t, p->fds[k].file) < 0)
				return err_image(err, -EINVAL,
						 "pid %d fd %d: the image contradicts itself",
						 p->pid, p->fds[k].fd);
	}
	return 0;
}

static int check_file(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_ops *ops = file_ops_of(f->kind);

	if (!ops)
		return err_image(err, -EOPNOTSUPP,
				 "this version cannot restore a file of kind %u (%s)", f->kind,
				 file_kind_name(f->kind));
	return ops->check ? ops->check(rb, f, err) : 0;
}

int files_check(const struct rebuild *rb, struct err *err)
{
	int rc = check_sanity(rb, err);

	for (unsigned n = 0; rc == 0 && rb->opts && n < rb->opts->n_inherit; n++)
		rc = check_inherit(rb, rb->opts->inherit[n], err);
	for (unsigned i = 0; rc == 0 && i < rb->tree->n_files; i++) {
		const struct file *f = &rb->tree->files[i];

		if (file_inherited(rb, f) >= 0)
			continue;
		rc = check_file(rb, f, err);
		if (rc < 0)
			return err_wrap(err, rc, "%s", rebuild_file_owner(rb, f));
	}
	return rc;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int prepare(struct rebuild *rb, struct err *err)
{
	const struct tree *t = rb->tree;

	if (!rb->file_fds)
		rb->file_fds = arena_array(rb->arena, t->n_files, sizeof *rb->file_fds);
	if (!rb->space_fds)
		rb->space_fds = arena_array(rb->arena, t->n_spaces, sizeof *rb->space_fds);
	if (!rb->file_fds || !rb->space_fds)
		return err_nomem(err);
	for (unsigned i = 0; i < t->n_files; i++)
		rb->file_fds[i] = -1;
	for (unsigned i = 0; i < t->n_spaces; i++)
		rb->space_fds[i] = -1;
	/* above every number that is to be put in place later */
	for (unsigned i = 0; i < t->n_processes; i++)
		for (unsigned k = 0; k < t->processes[i].n_fds; k++)
			rb->fd_base = MAX(rb->fd_base, t->processes[i].fds[k].fd + 1);
	return pipes_link(rb, err);
}

static int open_one(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_ops *ops = file_ops_of(f->kind);
	CLEANUP_FD int fd = -1;
	int rc;

	if (rb->file_fds[i] >= 0) /* came along with another (the other end of a pipe) */
		return 0;
	if (!ops)
		return err_image(err, -EOPNOTSUPP, "this version cannot restore a file of kind %u",
				 f->kind);
	rc = ops->open(rb, f, &fd, err);
	if (rc == 0)
		rc = lift_fd(rb, &fd, err);
	if (rc < 0)
		return rc;
	rb->file_fds[i] = fd_take(&fd);
	return 0;
}

/* What open(2) of the kinds does not set itself. */
static int set_status(const struct file *f, int fd, struct err *err)
{
	int now, want;

	if (f->kind == FILE_OUTSIDE || f->kind == FILE_PATH)
		return 0;
	now = fcntl(fd, F_GETFL);
	want = (now & ~STATUS_FLAGS) | ((int)f->flags & STATUS_FLAGS);
	if (now < 0 || (want != now && fcntl(fd, F_SETFL, want) < 0))
		return err_set(err, -errno, "cannot set the flags of '%s' to 0%o: %m",
			       f->path ? f->path : file_kind_name(f->kind), f->flags);
	if (f->owner_sig && fcntl(fd, F_SETSIG, f->owner_sig) < 0)
		return err_set(err, -errno, "cannot set signal %d for '%s': %m", f->owner_sig,
			       f->path ? f->path : file_kind_name(f->kind));
	return 0;
}

enum pass {
	PASS_CALLER, /* first, while 0, 1 and 2 are sure to be the caller's */
	PASS_MOST,
	PASS_SOCKETS,
	PASS_INOTIFY, /* last, so that it sees nothing of the others being opened */
	PASS_COUNT
};

static enum pass pass_of(const struct file *f, bool inherit)
{
	return inherit || f->kind == FILE_OUTSIDE ? PASS_CALLER
	       : f->kind == FILE_SOCKET           ? PASS_SOCKETS
	       : f->kind == FILE_INOTIFY          ? PASS_INOTIFY
						  : PASS_MOST;
}

static int open_pass(struct rebuild *rb, enum pass pass, struct err *err)
{
	int rc;

	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file *f = &rb->tree->files[i];
		int callers = file_inherited(rb, f);

		if (pass_of(f, callers >= 0) != pass)
			continue;
		if (callers >= 0) {
			rc = lift_copy(rb, callers, &rb->file_fds[i], err);
		} else {
			rc = open_one(rb, i, err);
			if (rc == 0)
				rc = set_status(f, rb->file_fds[i], err);
			if (rc == 0)
				rc = locks_open(f, rb->file_fds[i], err);
		}
		if (rc < 0)
			return err_wrap(err, rc, "%s", rebuild_file_owner(rb, f));
	}
	return 0;
}

int files_open(struct rebuild *rb, struct err *err)
{
	int rc = prepare(rb, err);

	if (rc == 0)
		rc = fault_point("files_open", err);
	if (rc == 0)
		rc = open_pass(rb, PASS_CALLER, err);
	if (rc == 0)
		rc = sysv_make(rb, err);
	if (rc == 0)
		rc = spaces_open(rb, err);
	if (rc == 0)
		rc = open_pass(rb, PASS_MOST, err);
	if (rc == 0)
		rc = sockets_make(rb, err);
	if (rc == 0)
		rc = open_pass(rb, PASS_SOCKETS, err);
	if (rc == 0)
		rc = open_pass(rb, PASS_INOTIFY, err);
	return rc < 0 ? rc : sockets_fill(rb, err);
}
