/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pipes and FIFOs inside the tree: unread bytes are copied with tee(2), which leaves them where
 * they are.
 *
 * All ends of a pipe are the same on restore: the first one opened makes the pipe and puts the
 * content in; the others are opened through /proc/self/fd/N of one that is there. A FIFO is opened
 * by its name; opening it for both first keeps the other opens from blocking. One that was deleted
 * gets a name for a moment.
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NEVER_WRITTEN                                                                              \
	2 /* file_pipe.no_writers of a FIFO that no writer has opened yet: its reader sees no end  \
	   */

static bool is_pipe(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return S_ISFIFO(of->st.st_mode) && of->link[0] != '/';
}

static bool is_fifo(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return S_ISFIFO(of->st.st_mode) && of->link[0] == '/';
}

/* --- capture ---------------------------------------------------------------------------------- */

/* A pipe whose ring has as many slots as the job's: what fits there fits here. */
static int make_scratch(const struct open_file *of, int capacity, int *in, int *out,
			struct err *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return fd_error(of, err, -errno,
				"cannot make a pipe to copy its content through: %m");
	*in = ends[0];
	*out = ends[1];
	/* Failure shows when not all of the content comes through. */
	(void)fcntl(*out, F_SETPIPE_SZ, capacity);
	return 0;
}

static int add_packet(struct capture *c, struct file_pipe *d, const void *data, size_t len,
		      struct err *err)
{
	struct pipe_packet *packet =
		arena_push(c->arena, &d->packets, &d->n_packets, sizeof *packet);

	if (packet)
		packet->data.data = arena_memdup(c->arena, data, len);
	if (!packet || !packet->data.data)
		return err_nomem(err);
	packet->data.len = (uint32_t)len;
	return 0;
}

/* A read ends where a packet ends, so that boundaries come out by themselves in packet mode. */
static int drain_scratch(struct capture *c, const struct open_file *of, struct file_pipe *d, int in,
			 size_t want, struct err *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(want);
	size_t got = 0;
	int rc;

	if (!buf)
		return err_nomem(err);
	while (got < want) {
		ssize_t n = read(in, buf, want - got);

		if (n <= 0)
			break;
		rc = add_packet(c, d, buf, (size_t)n, err);
		if (rc < 0)
			return rc;
		got += (size_t)n;
	}
	if (got == want)
		return 0;
	fd_error(of, err, -EAGAIN, "cannot copy the %zu unread bytes of '%s'", want, of->link);
	err_hint(err, "the user's pipes may have used up /proc/sys/fs/pipe-user-pages-soft");
	return -EAGAIN;
}

static int capture_content(struct capture *c, const struct open_file *of, struct file_pipe *d,
			   struct err *err)
{
	CLEANUP_FD int in = -1;
	CLEANUP_FD int out = -1;
	int unread = 0, rc;

	if (ioctl(of->dup, FIONREAD, &unread) < 0)
		return fd_error(of, err, -errno, "cannot ask how much '%s' holds: %m", of->link);
	d->has_content = 1;
	*of->content_taken = true;
	if (unread <= 0)
		return 0;
	rc = make_scratch(of, (int)d->capacity, &in, &out, err);
	if (rc < 0)
		return rc;
	if (tee(of->dup, out, (size_t)unread, SPLICE_F_NONBLOCK) < 0)
		return fd_error(of, err, -errno, "cannot copy the content of '%s': %m", of->link);
	return drain_scratch(c, of, d, in, (size_t)unread, err);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_pipe *d = arena_alloc(c->arena, sizeof *d);
	int capacity = fcntl(of->dup, F_GETPIPE_SZ);

	if (!d)
		return err_nomem(err);
	if (capacity < 0)
		return fd_error(of, err, -errno, "cannot ask for the size of '%s': %m", of->link);
	d->pipe = f->ino;
	d->deleted = of->deleted;
	d->capacity = (uint32_t)capacity;
	d->no_readers = of->no_readers;
	d->no_writers = of->never_written ? NEVER_WRITTEN : of->no_writers;
	f->detail = d;
	if ((of->flags & O_ACCMODE) == O_WRONLY || *of->content_taken)
		return 0;
	return capture_content(c, of, d, err);
}

/* --- restore ---------------------------------------------------------------------------------- */

static int check_fifo(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_pipe *d = f->detail;
	struct stat st;
	int rc;

	if (d->deleted)
		return 0;
	rc = check_path(rb, f, &st, err);
	if (rc == 0 && !S_ISFIFO(st.st_mode))
		rc = err_set(err, -EINVAL, "'%s' is not a FIFO any more",
			     rebuild_path(rb, f->path));
	return rc;
}

static bool same_pipe(const struct file *a, const struct file *b)
{
	const struct file_pipe *da = a->detail, *db = b->detail;

	return a->kind == b->kind && da->pipe == db->pipe && a->dev == b->dev;
}

static int by_pipe(const void *pa, const void *pb, void *arg)
{
	const struct tree *t = arg;
	unsigned i = *(const unsigned *)pa, k = *(const unsigned *)pb;
	const struct file *a = &t->files[i], *b = &t->files[k];
	const struct file_pipe *da = a->detail, *db = b->detail;

	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (da->pipe != db->pipe)
		return da->pipe < db->pipe ? -1 : 1;
	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	return i < k ? -1 : i > k;
}

int pipes_link(struct rebuild *rb, struct err *err)
{
	const struct tree *t = rb->tree;
	CLEANUP_FREE unsigned *order = calloc(t->n_files + 1, sizeof *order);
	unsigned n = 0;

	rb->pipe_ends = arena_array(rb->arena, t->n_files, sizeof *rb->pipe_ends);
	if (!order || !rb->pipe_ends)
		return err_nomem(err);
	for (unsigned i = 0; i < t->n_files; i++)
		if (t->files[i].kind == FILE_PIPE || t->files[i].kind == FILE_FIFO)
			order[n++] = i;
	qsort_r(order, n, sizeof *order, by_pipe, (void *)(uintptr_t)t);
	for (unsigned k = 0; k < n; k++) {
		bool more = k && same_pipe(&t->files[order[k - 1]], &t->files[order[k]]);

		rb->pipe_ends[order[k]].first =
			more ? rb->pipe_ends[order[k - 1]].first : (int)order[k];
		rb->pipe_ends[order[k]].next = -1;
		if (more)
			rb->pipe_ends[order[k - 1]].next = (int)order[k];
	}
	return 0;
}

static int first_end(const struct rebuild *rb, const struct file *f)
{
	return rb->pipe_ends[f - rb->tree->files].first;
}

/* The end of f's pipe that carries the content, NULL: there is none (nobody could read it). */
static const struct file_pipe *content_of(const struct rebuild *rb, const struct file *f)
{
	for (int i = first_end(rb, f); i >= 0; i = rb->pipe_ends[i].next) {
		const struct file_pipe *d = rb->tree->files[i].detail;

		if (d->has_content)
			return d;
	}
	return NULL;
}

/* Is one end of f's pipe made already? */
static int made_end(const struct rebuild *rb, const struct file *f)
{
	for (int i = first_end(rb, f); i >= 0; i = rb->pipe_ends[i].next)
		if (rb->file_fds[i] >= 0)
			return rb->file_fds[i];
	return -1;
}

static bool packet_mode(const struct rebuild *rb, const struct file *f)
{
	for (int i = first_end(rb, f); i >= 0; i = rb->pipe_ends[i].next)
		if (rb->tree->files[i].flags & O_DIRECT)
			return true;
	return false;
}

static int set_capacity(const struct file_pipe *d, int fd, struct err *err)
{
	if (fcntl(fd, F_GETPIPE_SZ) == (int)d->capacity ||
	    fcntl(fd, F_SETPIPE_SZ, d->capacity) >= 0)
		return 0;
	err_set(err, -errno, "cannot make a pipe of %u bytes: %m", d->capacity);
	err_hint(err, "see /proc/sys/fs/pipe-max-size and pipe-user-pages-soft");
	return err ? err->code : -EPERM;
}

/* fd: a write end, not blocking. */
static int put_content(const struct rebuild *rb, const struct file *f, int fd, struct err *err)
{
	const struct file_pipe *d = content_of(rb, f);
	int rc = set_capacity(f->detail, fd, err), flags = fcntl(fd, F_GETFL);

	if (rc < 0 || !d)
		return rc;
	if (packet_mode(rb, f) && fcntl(fd, F_SETFL, flags | O_DIRECT) < 0)
		return err_set(err, -errno, "cannot put a pipe into packet mode: %m");
	for (unsigned i = 0; i < d->n_packets; i++) {
		ssize_t n = write(fd, d->packets[i].data.data, d->packets[i].data.len);

		if (n != (ssize_t)d->packets[i].data.len)
			return err_set(err, n < 0 ? -errno : -ENOSPC,
				       "cannot put %u bytes back into a pipe: %m",
				       d->packets[i].data.len);
	}
	(void)fcntl(fd, F_SETFL, flags & ~O_DIRECT);
	return 0;
}

static int end_flags(const struct file *f)
{
	/* not blocking until the common code sets the flags as they were; packet mode comes from
	 * there too */
	return (reopen_flags(f) & ~O_DIRECT) | O_NONBLOCK;
}

/* The ends that pipe2 gives belong to the first reader and the first writer. */
static int open_pipe(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	int there = made_end(rb, f), mode = (int)f->flags & O_ACCMODE, rc;
	CLEANUP_FD int in = -1;
	CLEANUP_FD int out = -1;
	int ends[2];

	if (there < 0) {
		if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
			return err_set(err, -errno, "cannot make a pipe: %m");
		in = ends[0];
		out = ends[1];
		rc = put_content(rb, f, out, err);
		if (rc < 0)
			return rc;
		for (int i = first_end(rb, f); i >= 0; i = rb->pipe_ends[i].next) {
			const struct file *g = &rb->tree->files[i];
			int other = (int)g->flags & O_ACCMODE;
			int *mine = other == O_RDONLY ? &in : &out;

			if (g == f || other == mode || other == O_RDWR || *mine < 0 ||
			    rb->file_fds[i] >= 0)
				continue;
			rc = lift_fd(rb, mine, err);
			if (rc < 0)
				return rc;
			rb->file_fds[i] = fd_take(mine);
		}
		if (mode != O_RDWR) {
			*ret_fd = fd_take(mode == O_RDONLY ? &in : &out);
			return 0;
		}
		there = in >= 0 ? in : made_end(rb, f);
	}
	rc = reopen_fd(there, end_flags(f));
	if (rc < 0)
		return err_set(err, rc, "cannot open an end of a pipe again: %m");
	*ret_fd = rc;
	return 0;
}

/* The content goes in before the first end is opened; someone else's bytes must not be in it. */
static int prepare_fifo(struct rebuild *rb, const struct file *f, int both, struct err *err)
{
	const char *path = rebuild_path(rb, f->path);
	int unread = 0;

	if (made_end(rb, f) >= 0)
		return 0;
	if (ioctl(both, FIONREAD, &unread) == 0 && unread > 0)
		return err_set(err, -EBUSY,
			       "the FIFO '%s' is in use: it holds %d bytes of another program",
			       path, unread);
	return put_content(rb, f, both, err);
}

/* A name for the moment, so that it can be opened. */
static int make_nameless(const struct file *f, int flags)
{
	static const char *const places[] = { "/tmp", "/dev/shm", "/var/tmp" };
	int fd = -1, saved;

	for (size_t i = 0; i < ARRAY_SIZE(places) && fd < 0; i++) {
		char dir[32], path[48];

		(void)snprintf(dir, sizeof dir, "%s/.ckpt-XXXXXX", places[i]);
		if (!mkdtemp(dir))
			continue;
		(void)snprintf(path, sizeof path, "%s/fifo", dir);
		if (mkfifo(path, 0600) == 0)
			fd = open(path, flags);
		saved = errno;
		(void)unlink(path);
		(void)rmdir(dir);
		errno = saved;
	}
	if (fd >= 0)
		(void)fchmod(fd, (f->mode & 07777) | 0600);
	return fd < 0 ? -errno : fd;
}

/* Its first end makes it; the others come from that one. */
static int open_nameless(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_pipe *d = f->detail;
	int there = made_end(rb, f), rc,
	    flags = (d->no_writers == NEVER_WRITTEN ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC;
	CLEANUP_FD int base = there < 0 ? make_nameless(f, flags) : reopen_fd(there, flags);

	if (base < 0)
		return err_set(err, base,
			       "cannot make the FIFO '%s', which has no name any more: %m",
			       f->path);
	rc = there >= 0                       ? 0
	     : d->no_writers == NEVER_WRITTEN ? set_capacity(d, base, err)
					      : put_content(rb, f, base, err);
	if (rc < 0)
		return rc;
	rc = reopen_fd(base, end_flags(f));
	if (rc < 0)
		return err_set(err, rc, "cannot open an end of the FIFO '%s' again: %m", f->path);
	*ret_fd = rc;
	return 0;
}

static int open_fifo(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_pipe *d = f->detail;
	const char *path = rebuild_path(rb, f->path);
	CLEANUP_FD int both = -1;
	int fd, rc;

	if (d->deleted)
		return open_nameless(rb, f, ret_fd, err);
	/* A reader that no writer has met must not meet one now: it would see an end of file when
	 * that goes. */
	if (d->no_writers != NEVER_WRITTEN) {
		both = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (both < 0)
			return err_set(err, -errno, "cannot open the FIFO '%s': %m", path);
		rc = prepare_fifo(rb, f, both, err);
		if (rc < 0)
			return rc;
	}
	fd = open(path, end_flags(f));
	if (fd < 0)
		return err_set(err, -errno, "cannot open the FIFO '%s': %m", path);
	rc = both < 0 ? set_capacity(d, fd, err) : 0;
	if (rc < 0)
		(void)close(fd);
	else
		*ret_fd = fd;
	return rc;
}

const struct file_ops pipe_ops = {
	.kind = FILE_PIPE,
	.match = is_pipe,
	.capture = capture,
	.open = open_pipe,
};

const struct file_ops fifo_ops = {
	.kind = FILE_FIFO,
	.match = is_fifo,
	.capture = capture,
	.check = check_fifo,
	.open = open_fifo,
};
