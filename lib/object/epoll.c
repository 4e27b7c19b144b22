/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll(7): which descriptions are watched, under which numbers, for what.
 *
 * A watch belongs to a description and the number it had when it was added; the number may since
 * have been closed (a dup keeps the description, and the watch) or mean another file.
 * KCMP_EPOLL_TFD says which description it really is. On restore the watch is added under its old
 * number, for a moment put in the place of what lies there now if need be. A disarmed EPOLLONESHOT
 * watch comes back by its mask, which has no events then; the kernel adds EPOLLERR and EPOLLHUP to
 * every mask that is set, so that those two alone may still be reported.
 */
#include "object/kinds.h"
#include "proc/refusals.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return !strcmp(of->link, LINK_EPOLL);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_epoll *d = arena_alloc(c->arena, sizeof *d);

	if (d)
		d->watches = arena_array(c->arena, of->info.n_watches, sizeof *d->watches);
	if (!d || !d->watches)
		return err_nomem(err);
	d->n_watches = of->info.n_watches;
	for (unsigned i = 0; i < d->n_watches; i++) {
		d->watches[i].fd = of->info.watches[i].fd;
		d->watches[i].events = of->info.watches[i].events;
		d->watches[i].data = of->info.watches[i].data;
	}
	f->detail = d;
	return 0;
}

/* Is target what watch w of epoll watches? nth: which of the watches with this number, in fdinfo's
 * order. */
static bool is_watched(const struct open_file *epoll, const struct proc_fdinfo_watch *w,
		       unsigned nth, const struct open_file *target)
{
	struct kcmp_epoll_slot slot = { .efd = (uint32_t)epoll->dup,
					.tfd = (uint32_t)w->fd,
					.toff = nth };
	pid_t me = getpid();
	uint64_t dev = (uint64_t)major(target->st.st_dev) << 20 | minor(target->st.st_dev);
	long rc;

	/* fdinfo shows the inode (not for kernels before 4.13): a difference settles it without a
	 * call */
	if (w->ino && (w->ino != target->st.st_ino || w->dev != dev))
		return false;
	rc = syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, (unsigned long)target->dup, &slot);
	return rc == 0 || (rc < 0 && w->ino);
}

/* The lowest descriptor of a file in p, with the wanted number if it has that; NULL: none. */
static const struct fd *find_fd(const struct process *p, uint32_t file, int wanted)
{
	const struct fd *found = NULL;

	for (unsigned i = 0; i < p->n_fds; i++)
		if (p->fds[i].file == file && (!found || p->fds[i].fd == wanted))
			found = &p->fds[i];
	return found;
}

/* The first process that has both the epoll and the watched file: it can add the watch. */
static const struct process *holder_of_both(const struct tree *t, uint32_t epoll,
					    const struct epoll_watch *w)
{
	for (unsigned i = 0; i < t->n_processes; i++)
		if (find_fd(&t->processes[i], epoll, -1) &&
		    find_fd(&t->processes[i], w->file, w->fd))
			return &t->processes[i];
	return NULL;
}

static uint32_t find_watched(struct capture *c, const struct open_file *of,
			     const struct proc_fdinfo_watch *w, unsigned nth)
{
	const struct file *f = files_by_fd(c, of->subject, w->fd);

	if (f && is_watched(of, w, nth, &c->open_files[f->id - 1]))
		return f->id;
	for (unsigned i = 0; i < c->n_open_files; i++)
		if (is_watched(of, w, nth, &c->open_files[i]))
			return i + 1;
	return 0;
}

/* Its descriptor is left out of the image because the user says so: then the watch is, too. */
static bool is_left_out(const struct capture *c, const struct open_file *of, int fd)
{
	return fd_rule(&c->tree->settings, fd) == FD_CLOSE ||
	       fd_rule(&c->tree->settings, fd) == FD_NULL ||
	       (c->tree->settings.close_unsupported &&
		!files_by_fd((struct capture *)(uintptr_t)c, of->subject, fd));
}

static int link_watches(struct capture *c, const struct open_file *of, struct file *f,
			struct err *err)
{
	struct file_epoll *d = f->detail;
	CLEANUP_FREE unsigned *seen = NULL;
	int32_t top = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < d->n_watches; i++)
		top = MAX(top, d->watches[i].fd);
	seen = calloc((size_t)top + 1, sizeof *seen);
	if (!seen)
		return err_nomem(err);
	for (unsigned i = 0; i < d->n_watches; i++) {
		struct epoll_watch *w = &d->watches[i];

		w->file = find_watched(c, of, &of->info.watches[i], seen[w->fd]++);
		if (is_left_out(c, of, w->fd))
			continue;
		d->watches[n++] = *w;
		if (!w->file || !holder_of_both(c->tree, f->id, w))
			return refuse(of, err,
				      "epoll watches a file (added as descriptor %d) that is no "
				      "longer open "
				      "beside it; that is not supported",
				      w->fd);
	}
	d->n_watches = n;
	return 0;
}

static int check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_epoll *d = f->detail;

	for (unsigned i = 0; i < d->n_watches; i++)
		if (d->watches[i].fd < 0 || !holder_of_both(rb->tree, f->id, &d->watches[i]))
			return err_image(err, -EINVAL,
					 "the image has no file for epoll's descriptor %d",
					 d->watches[i].fd);
	return 0;
}

static int open_epoll(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	(void)rb;
	(void)f;
	if (fd < 0)
		return err_set(err, -errno, "cannot make an epoll: %m");
	*ret_fd = fd;
	return 0;
}

static const struct fd *fd_numbered(const struct process *p, int number)
{
	for (unsigned i = 0; i < p->n_fds; i++)
		if (p->fds[i].fd == number)
			return &p->fds[i];
	return NULL;
}

static void add_watch(const struct rebuild *rb, const struct process *p, int epfd,
		      const struct epoll_watch *w, struct batch *b)
{
	struct epoll_event ev = { .events = w->events, .data.u64 = w->data };
	const struct fd *src = find_fd(p, w->file, w->fd), *there = NULL;
	bool moved = src->fd != w->fd;
	int aside = rb->fd_base;

	if (moved) {
		there = fd_numbered(p, w->fd);
		if (there)
			batch_call(b, "move a descriptor aside", SYS_dup3, w->fd, aside, O_CLOEXEC);
		batch_call(b, "put a watched descriptor in place", SYS_dup3, src->fd, w->fd,
			   O_CLOEXEC);
	}
	batch_call(b, "add a watch to an epoll", SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, w->fd,
		   batch_in(b, &ev, sizeof ev));
	if (moved && there) {
		batch_call(b, "move a descriptor back", SYS_dup3, aside, w->fd,
			   there->cloexec ? O_CLOEXEC : 0);
		batch_call(b, "close a descriptor", SYS_close, aside);
	} else if (moved) {
		batch_call(b, "close a descriptor", SYS_close, w->fd);
	}
}

static int finish(struct rebuild *rb, const struct process *p, const struct fd *fd,
		  const struct file *f, struct placer *pl, struct err *err)
{
	const struct file_epoll *d = f->detail;

	for (unsigned i = 0; i < d->n_watches; i++) {
		int rc;

		if (holder_of_both(rb->tree, f->id, &d->watches[i]) != p)
			continue;
		rc = placer_room(pl, 5, 64, err);
		if (rc < 0)
			return rc;
		add_watch(rb, p, fd->fd, &d->watches[i], pl->b);
	}
	return 0;
}

const struct file_ops epoll_ops = {
	.kind = FILE_EPOLL,
	.match = match,
	.capture = capture,
	.link = link_watches,
	.check = check,
	.open = open_epoll,
	.finish = finish,
};
