/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inotify(7): watches with their numbers.
 *
 * The kernel shows a watch as inode and device; where that is in the file system is found out in
 * proc/watches.c. Unread events cannot be had without taking them from the job, and they are about
 * to be read as a rule: the checkpoint is tried again a little later. If they stay, they are lost
 * to a restarted program, which is told so (inotify_lost.c). Watch numbers only ever grow, so that
 * the gaps between them are made by adding and removing watches on something that has none.
 */
#include "object/inotify.h"
#include "object/kinds.h"
#include "proc/refusals.h"
#include "proc/watches.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_GAP   4000000 /* watch numbers skipped: about 2 us each */
#define ADD_FLAGS (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK)

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return !strcmp(of->link, LINK_INOTIFY);
}

static int by_wd(const void *pa, const void *pb)
{
	const struct inotify_watch *a = pa, *b = pb;

	return a->wd < b->wd ? -1 : a->wd > b->wd;
}

static void find_paths(const struct capture *c, const struct open_file *of, struct file_inotify *d)
{
	struct watch_search s = { .arena = c->arena, .d = d, .n_open = d->n_watches };

	watches_by_handle(&s, of->subject->proc_dirfd, of->fd);
	if (c->watches)
		watches_by_memory(&s, c->watches);
	if (!s.n_open)
		return;
	for (unsigned i = 0; i < c->n_subjects; i++)
		watches_near_process(&s, c->subjects[i].proc_dirfd);
	for (unsigned i = 0; i < c->n_open_files; i++)
		watches_near_file(&s, c->open_files[i].link);
	watches_look_around(&s);
	for (unsigned i = 0; c->watches && i < d->n_watches; i++)
		if (d->watches[i].path)
			watches_remember(c->watches, d->watches[i].path);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_inotify *d = arena_alloc(c->arena, sizeof *d);
	int unread = 0;

	if (d)
		d->watches = arena_array(c->arena, of->info.n_watches, sizeof *d->watches);
	if (!d || !d->watches)
		return err_nomem(err);
	if (ioctl(of->dup, FIONREAD, &unread) < 0)
		return fd_error(of, err, -errno, "cannot ask for unread inotify events: %m");
	if (unread > 0 && !c->lose_events) {
		c->put_off = true;
		return fd_error(of, err, -EAGAIN,
				"inotify holds %d bytes of unread events; will be tried again",
				unread);
	}
	d->unread = (uint32_t)unread;
	d->n_watches = of->info.n_watches;
	for (unsigned i = 0; i < d->n_watches; i++) {
		const struct proc_fdinfo_watch *w = &of->info.watches[i];

		d->watches[i] = (struct inotify_watch){
			.wd = w->fd, .mask = w->events, .ino = w->ino, .dev = w->dev
		};
	}
	qsort(d->watches, d->n_watches, sizeof *d->watches, by_wd);
	f->detail = d;
	find_paths(c, of, d);
	for (unsigned i = 0; i < d->n_watches; i++)
		if (!d->watches[i].path) {
			refuse(of, err, REFUSAL_WATCH " is not supported", d->watches[i].wd,
			       (unsigned long long)d->watches[i].ino);
			err_hint(err, REFUSAL_WATCH_HINT, of->fd);
			return -EOPNOTSUPP;
		}
	return 0;
}

static int check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_inotify *d = f->detail;
	int32_t last = 0;

	for (unsigned i = 0; i < d->n_watches; i++) {
		const struct inotify_watch *w = &d->watches[i];
		struct stat st;

		if (!w->path || w->wd <= last)
			return err_image(err, -EINVAL,
					 "the image's inotify watches are out of order");
		if (w->wd - last > MAX_GAP)
			return err_set(err, -ERANGE,
				       "inotify watch %d cannot be numbered as it was", w->wd);
		last = w->wd;
		if (lstat(rebuild_path(rb, w->path), &st) < 0) {
			int rc = err_set(err, -errno, "cannot watch '%s': %m", w->path);

			err_hint(err, "--map OLD=NEW says where it is now");
			return rc;
		}
	}
	return 0;
}

/* Throws away what is queued: the IN_IGNORED of each watch removed, and what the restart itself did
 * to the files. */
static void drain(int fd)
{
	char buf[65536];

	while (read(fd, buf, sizeof buf) > 0)
		;
}

/* Uses up watch numbers until the next one is wd. */
static int skip_to(int fd, int32_t *next, int32_t wd, const char *spare, struct err *err)
{
	while (*next < wd) {
		int got = inotify_add_watch(fd, spare, IN_MODIFY);

		if (got < 0 || inotify_rm_watch(fd, got) < 0)
			return err_set(err, -errno, "cannot number an inotify watch: %m");
		*next = got + 1;
		if (got % 4096 == 0)
			drain(fd); /* max_queued_events is 16384 as a rule */
	}
	return 0;
}

static int put_watch(const struct rebuild *rb, const struct inotify_watch *w, int fd,
		     struct err *err)
{
	const char *path = rebuild_path(rb, w->path);
	uint32_t mask = w->mask & ADD_FLAGS;
	struct stat st;
	int got;

	/* on a symbolic link itself, not on what it leads to */
	if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && st.st_ino == w->ino)
		mask |= IN_DONT_FOLLOW;
	got = inotify_add_watch(fd, path, mask);
	if (got < 0) {
		int rc = err_set(err, -errno, "cannot watch '%s': %m", path);

		if (rc == -ENOSPC)
			err_hint(err, "see /proc/sys/fs/inotify/max_user_watches");
		return rc;
	}
	if (got != w->wd)
		return err_set(err, -EEXIST, "inotify watch %d on '%s' became %d", w->wd, path,
			       got);
	return 0;
}

static int open_inotify(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_inotify *d = f->detail;
	CLEANUP_FD int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	CLEANUP_FD int spare = memfd_create("spare", MFD_CLOEXEC);
	char path[32];
	int32_t next = 1;
	int rc;

	if (fd < 0 || spare < 0)
		return err_set(err, -errno, "cannot make an inotify: %m");
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", spare);
	for (unsigned i = 0; i < d->n_watches; i++) {
		rc = skip_to(fd, &next, d->watches[i].wd, path, err);
		if (rc == 0)
			rc = put_watch(rb, &d->watches[i], fd, err);
		if (rc < 0)
			return rc;
		next = d->watches[i].wd + 1;
	}
	drain(fd);
	rc = d->unread ? inotify_tell_lost(fd, spare, path, err) : 0;
	if (rc == 0)
		*ret_fd = fd_take(&fd);
	return rc;
}

/* What the restart has done to watched files since is not news to the job; nor to one that must
 * look at everything anew. */
static int finish(struct rebuild *rb, const struct process *p, const struct fd *fd,
		  const struct file *f, struct placer *pl, struct err *err)
{
	enum { ROOM = 16384, READS = 4 };
	uint64_t buf;
	const struct file_inotify *d = f->detail;
	int rc;

	if (d->unread || file_first_holder(rb->tree, f->id, NULL) != p)
		return 0;
	rc = placer_room(pl, READS + 2, ROOM + 16, err);
	if (rc < 0)
		return rc;
	buf = batch_out(pl->b, ROOM);
	batch_call(pl->b, "set the flags of an inotify", SYS_fcntl, fd->fd, F_SETFL,
		   f->flags | O_NONBLOCK);
	for (int i = 0; i < READS; i++)
		batch_call(pl->b, NULL, SYS_read, fd->fd, buf, ROOM);
	batch_call(pl->b, "set the flags of an inotify", SYS_fcntl, fd->fd, F_SETFL, f->flags);
	return 0;
}

const struct file_ops inotify_ops = {
	.kind = FILE_INOTIFY,
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_inotify,
	.finish = finish,
};
