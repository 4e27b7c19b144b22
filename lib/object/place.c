/* SPDX-License-Identifier: BSD-2-Clause */
/* Putting descriptors in place inside a process being rebuilt, by calls that it makes itself. */
#include "object/kinds.h"

#include "util/fault.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

int placer_room(struct placer *pl, unsigned n_calls, size_t len, struct err *err)
{
	int rc = 0;

	if (batch_room(pl->b, n_calls, len))
		return 0;
	rc = batch_run(pl->b, pl->tid, err);
	batch_start(pl->b);
	return rc;
}

/*
 * From their numbers at fd_base and above to where they belong; what else is open there is closed.
 */
static int put_all(struct rebuild *rb, const struct process *p, struct placer *pl, struct err *err)
{
	int next = 0, rc = pidfds_place(rb, p, pl, err);

	if (rc == 0)
		rc = procfiles_place(rb, p, pl, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < p->n_fds; i++) {
		const struct fd *fd = &p->fds[i];
		int at = file_index(rb->tree, fd->file);
		const char *what = arena_printf(rb->arena, "put descriptor %d of pid %d in place",
						fd->fd, p->pid);

		if (!what)
			return err_nomem(err);
		if (at < 0 || rb->file_fds[at] < rb->fd_base || fd->fd >= rb->fd_base)
			return err_set(err, -EBADF, "pid %d fd %d: its file was not opened", p->pid,
				       fd->fd);
		rc = placer_room(pl, 2, 0, err);
		if (rc < 0)
			return rc;
		if (fd->fd > next)
			batch_call(pl->b, "close what is not the job's", SYS_close_range, next,
				   fd->fd - 1, 0);
		batch_call(pl->b, what, SYS_dup3, rb->file_fds[at], fd->fd,
			   fd->cloexec ? O_CLOEXEC : 0);
		next = fd->fd + 1;
	}
	rc = placer_room(pl, 1, 0, err);
	if (rc < 0)
		return rc;
	batch_call(pl->b, "close what is not the job's", SYS_close_range, next, ~0U, 0);
	return 0;
}

static int finish_all(struct rebuild *rb, const struct process *p, struct placer *pl,
		      struct err *err)
{
	CLEANUP_FREE bool *done = calloc(rb->tree->n_files + 1, sizeof *done);
	int rc;

	if (!done)
		return err_nomem(err);
	for (unsigned i = 0; i < p->n_fds; i++) {
		int at = file_index(rb->tree, p->fds[i].file);
		const struct file *f = &rb->tree->files[at];
		const struct file_ops *ops = file_ops_of(f->kind);

		if (done[at])
			continue;
		done[at] = true;
		rc = ops && ops->finish ? ops->finish(rb, p, &p->fds[i], f, pl, err) : 0;
		if (rc < 0)
			return err_wrap(err, rc, "pid %d fd %d", p->pid, p->fds[i].fd);
	}
	return 0;
}

int files_place(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		struct err *err)
{
	struct placer pl = { .b = b, .tid = tid };
	int rc = fault_point("files_place", err);

	if (rc < 0)
		return rc;
	batch_start(b);
	rc = put_all(rb, p, &pl, err);
	if (rc == 0)
		rc = finish_all(rb, p, &pl, err);
	if (rc == 0)
		rc = locks_put_posix(rb, p, &pl, err);
	if (rc == 0)
		rc = batch_run(b, tid, err);
	batch_start(b);
	return rc < 0 ? err_wrap(err, rc, "pid %d", p->pid) : 0;
}

/* O_ASYNC only here: SIGIO's si_fd is the number under which it was set. */
static int put_owner(struct rebuild *rb, const struct process *p, const struct file *f, int fd,
		     struct placer *pl, struct err *err)
{
	struct f_owner_ex owner = { .type = f->owner_type };
	int rc = placer_room(pl, 3, sizeof owner + 16, err);

	if (rc < 0)
		return rc;
	if (f->owner_pid)
		owner.pid = rb->new_id ? rb->new_id(rb, f->owner_pid) : f->owner_pid;
	/* someone outside the tree, or who had ended, is not there any more */
	if (owner.pid > 0)
		batch_call(pl->b, "say who gets SIGIO", SYS_fcntl, fd, F_SETOWN_EX,
			   batch_in(pl->b, &owner, sizeof owner));
	if (f->flags & O_ASYNC)
		batch_call(pl->b, "set O_ASYNC", SYS_fcntl, fd, F_SETFL, f->flags);
	return lease_put(rb, p, f, fd, pl, err);
}

int files_place_late(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		     struct err *err)
{
	struct placer pl = { .b = b, .tid = tid };
	int rc = procfiles_place_late(rb, p, &pl, err);

	batch_start(b);
	for (unsigned i = 0; i < rb->tree->n_files && rc == 0; i++) {
		const struct file *f = &rb->tree->files[i];
		const struct fd *fd = NULL;

		if ((!f->owner_pid && !(f->flags & O_ASYNC) && !f->lease) ||
		    f->kind == FILE_OUTSIDE || f->kind == FILE_PATH ||
		    file_first_holder(rb->tree, f->id, &fd) != p)
			continue;
		rc = put_owner(rb, p, f, fd->fd, &pl, err);
	}
	if (rc == 0)
		rc = batch_run(b, tid, err);
	batch_start(b);
	return rc < 0 ? err_wrap(err, rc, "pid %d", p->pid) : 0;
}
