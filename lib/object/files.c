/* SPDX-License-Identifier: BSD-2-Clause */
/* Capturing open files: the table of kinds, and the driver that asks each what it is. */
#include "object/kinds.h"

#include "util/fault.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/*
 * The first match wins. Special things come before the general ones that they look like (a memfd is
 * a regular file without a name, a standard stream may be anything); what nothing above recognises
 * ends in a refusal.
 */
static const struct file_ops *const kinds[] = {
	&path_ops,    &outside_ops, &pty_ops,         &tty_ops,      &device_ops,    &pipe_ops,
	&fifo_ops,    &eventfd_ops, &timerfd_ops,     &signalfd_ops, &epoll_ops,     &inotify_ops,
	&pidfd_ops,   &mqueue_ops,  &memfd_ops,       &procfile_ops, &directory_ops, &deleted_ops,
	&regular_ops, &socket_ops,  &unsupported_ops,
};

const struct file_ops *file_ops_of(uint32_t kind)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->kind == kind && kinds[i]->open)
			return kinds[i];
	return NULL;
}

static int say(const struct open_file *of, struct err *err, int code, const char *fmt, va_list ap)
{
	char what[640];

	errno = -code;
	(void)vsnprintf(what, sizeof what, fmt, ap);
	/* a descriptor on its way has no number: the socket's is named */
	return err_set(err, code, "pid %d fd %d: %s%s", of->subject->pid,
		       of->carrier >= 0 ? of->carrier_fd : of->fd,
		       of->carrier >= 0 ? "on its way in this socket: " : "", what);
}

int refuse(const struct open_file *of, struct err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(of, err, -EOPNOTSUPP, fmt, ap);
	va_end(ap);
	return -EOPNOTSUPP;
}

int fd_error(const struct open_file *of, struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(of, err, code, fmt, ap);
	va_end(ap);
	return code;
}

/* Who gets SIGIO is a process, thread or group by its id as we see it; the job's own view is
 * recorded. */
static int capture_owner(struct capture *c, const struct open_file *of, struct file *f)
{
	struct f_owner_ex owner = { 0 };
	struct proc_status status;
	CLEANUP_FD int dirfd = -1;
	int sig;

	if (of->flags & O_PATH)
		return 0;
	sig = fcntl(of->dup, F_GETSIG);
	f->owner_sig = sig > 0 ? sig : 0;
	if (fcntl(of->dup, F_GETOWN_EX, &owner) < 0 || owner.pid <= 0)
		return 0;
	/* One that has ended gets no signals any more, so that it is as good as none. */
	if (proc_open_pid(owner.pid, &dirfd, NULL) < 0 ||
	    proc_status_read(dirfd, c->arena, &status, NULL) < 0)
		return 0;
	f->owner_type = (int32_t)owner.type;
	f->owner_pid = status.ns_pid;
	return 0;
}

static void fill(const struct open_file *of, struct file *f)
{
	f->flags = (uint32_t)of->flags;
	f->mode = of->st.st_mode;
	f->pos = of->info.pos;
	f->path = of->link[0] == '/' ? of->link : NULL;
	f->dev = of->st.st_dev;
	f->ino = of->st.st_ino;
	f->rdev = of->st.st_rdev;
	f->size = (uint64_t)of->st.st_size;
	f->mtime_ns = of->st.st_mtim.tv_sec * INT64_C(1000000000) + of->st.st_mtim.tv_nsec;
}

static const struct file_ops *kind_of(const struct capture *c, const struct open_file *of)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->match(c, of))
			return kinds[i];
	return &unsupported_ops;
}

static int capture_one(struct capture *c, const struct open_file *of, struct file *f,
		       struct err *err)
{
	const struct file_ops *ops = kind_of(c, of);
	int rc;

	fill(of, f);
	f->kind = ops->kind;
	rc = ops->kind == FILE_OUTSIDE ? 0 : lease_capture(c, of, f, err);
	if (rc == 0 && ops->capture)
		rc = ops->capture(c, of, f, err);
	if (rc < 0 || ops->kind == FILE_OUTSIDE)
		return rc;
	rc = capture_owner(c, of, f);
	return rc < 0 ? rc : locks_capture(c, of, f, err);
}

/* What can be done about any descriptor, where nothing better was said. */
static int hint_at_rules(const struct open_file *of, int rc, struct err *err)
{
	if (rc == -EOPNOTSUPP && of->carrier < 0)
		(void)err_hint(
			err,
			"--fd %d=close leaves it out, --unsupported close all that cannot be "
			"restored",
			of->fd);
	return rc;
}

static int capture_all(struct capture *c, struct err *err)
{
	int rc;

	for (unsigned i = 0; i < c->n_open_files; i++) {
		rc = capture_one(c, &c->open_files[i], &c->tree->files[i], err);
		if (rc < 0 && rules_drop(c, &c->tree->files[i], rc)) {
			err_clear(err);
			continue;
		}
		if (rc < 0)
			return hint_at_rules(&c->open_files[i], rc, err);
	}
	for (unsigned i = 0; i < c->n_open_files; i++) {
		struct file *f = &c->tree->files[i];
		const struct file_ops *ops = file_ops_of(f->kind);

		rc = ops && ops->link ? ops->link(c, &c->open_files[i], f, err) : 0;
		if (rc < 0)
			return hint_at_rules(&c->open_files[i], rc, err);
	}
	return 0;
}

int files_capture(struct capture *c, struct err *err)
{
	struct inode_list own = { 0 };
	int rc;

	rc = fault_point("files_capture", err);
	if (rc == 0)
		rc = pipes_own(c->arena, &own, err);
	if (rc == 0)
		rc = files_gather(c, err);
	if (rc == 0)
		rc = sockets_survey(c, &own, err);
	if (rc == 0)
		rc = pipes_survey(c, &own, err);
	if (rc == 0)
		rc = ptys_survey(c, err);
	if (rc == 0)
		rc = outside_survey(c, err);
	if (rc == 0)
		rc = terminal_capture(c, err);
	if (rc == 0)
		rc = capture_all(c, err);
	if (rc < 0)
		files_capture_done(c);
	return rc;
}

void files_capture_done(struct capture *c)
{
	for (unsigned i = 0; i < c->n_open_files; i++) {
		if (c->open_files[i].dup >= 0)
			(void)close(c->open_files[i].dup);
		c->open_files[i].dup = -1;
	}
	if (c->flight && c->flight->proc_dirfd >= 0)
		(void)close(c->flight->proc_dirfd);
	c->flight = NULL;
	idmap_fini(&c->job_pids);
}

void forsake(int *fd)
{
	if (*fd > STDERR_FILENO) /* a slot that was not filled yet is 0 */
		(void)close(*fd);
	*fd = -1;
}

void files_forsaken(struct capture *c)
{
	gather_forsaken(c);
	for (unsigned i = 0; i < c->n_open_files; i++)
		forsake(&c->open_files[i].dup);
	for (unsigned i = 0; i < c->n_sources; i++)
		forsake(&c->sources[i].fd);
	if (c->n_held && c->held[c->n_held - 1] <= STDERR_FILENO)
		c->n_held--;
	files_let_go(c, false);
}

struct file *files_by_fd(struct capture *c, const struct subject *s, int fd)
{
	unsigned lo = 0, hi = s->process->n_fds;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct fd *d = &s->process->fds[mid];

		if (d->fd == fd)
			return &c->tree->files[d->file - 1]; /* ids are 1, 2, ... in table order */
		if (d->fd < fd)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}
