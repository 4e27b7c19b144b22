/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * POSIX message queues (mq_overview(7)): opened again by name, or made again, with the messages in
 * them (mqueue_peek.c) and whoever wanted to be told of the next one (mq_notify).
 *
 * With what value he is told the kernel does not show. It does not matter to a handler that takes
 * no siginfo_t; a program that can see it is refused.
 */
#include "object/mqueues.h"
#include "proc/refusals.h"

#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FS_MQUEUE 0x19800202

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return S_ISREG(of->st.st_mode) && of->fs_magic == FS_MQUEUE;
}

static int get_attr(int fd, struct mq_attr *attr)
{
	return (int)syscall(SYS_mq_getsetattr, fd, NULL, attr);
}

/* --- capture ---------------------------------------------------------------------------------- */

/* Can the process see the value that comes with the signal? */
static bool sees_value(const struct process *p, int signo)
{
	bool blocked = true;

	for (unsigned i = 0; i < p->n_sigactions; i++)
		if (p->sigactions[i].signo == (uint32_t)signo &&
		    (p->sigactions[i].flags & SA_SIGINFO))
			return true;
	/* blocked everywhere, it is for sigwaitinfo() or a signalfd */
	for (unsigned i = 0; i < p->n_threads; i++)
		blocked &= !!(p->threads[i].sigmask & 1ULL << (signo - 1));
	return blocked;
}

static int capture_notify(const struct capture *c, const struct open_file *of,
			  struct file_mqueue *d, struct err *err)
{
	const struct process *p = NULL;
	struct mq_told told;

	if (!proc_mq_told(of->dup, &told))
		return 0;
	for (unsigned i = 0; i < c->n_subjects; i++)
		if (c->subjects[i].status.tgid == told.pid)
			p = c->subjects[i].process;
	d->notify = (uint32_t)told.how;
	d->notify_signo = (uint32_t)told.signo;
	if (!p)
		return refuse(of, err, REFUSAL_TOLD_OUTSIDE " is not supported", of->link,
			      told.pid);
	if (d->notify == SIGEV_THREAD)
		return refuse(of, err, REFUSAL_TOLD_THREAD " is not supported", of->link);
	if (d->notify == SIGEV_SIGNAL && d->notify_signo - 1 < 64 &&
	    sees_value(p, (int)d->notify_signo)) {
		refuse(of, err, REFUSAL_TOLD_VALUE " is not supported", of->link, d->notify_signo);
		err_hint(err, "%s", refusal_hint_told_value);
		return -EOPNOTSUPP;
	}
	/* it would be asked for with its descriptors, and it is given none of its own */
	if (p->files_of) {
		refuse(of, err, REFUSAL_TOLD_SHARED " is not supported", of->link, p->pid,
		       p->files_of);
		err_hint(err, "%s", refusal_hint_told_shared);
		return -EOPNOTSUPP;
	}
	d->notify_pid = p->pid;
	return 0;
}

static bool is_first(const struct capture *c, const struct open_file *of)
{
	for (const struct open_file *o = c->open_files; o < of; o++)
		if (same_inode(&o->st, &of->st))
			return false;
	return true;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_mqueue *d = arena_alloc(c->arena, sizeof *d);
	const char *slash = strrchr(of->link, '/');
	struct mq_attr attr;
	int rc;

	if (!d)
		return err_nomem(err);
	if (get_attr(of->dup, &attr) < 0)
		return fd_error(of, err, -errno, "cannot look at a message queue: %m");
	*d = (struct file_mqueue){ .max_messages = (uint64_t)attr.mq_maxmsg,
				   .message_size = (uint64_t)attr.mq_msgsize,
				   .removed = of->deleted || of->st.st_nlink == 0 };
	f->detail = d;
	/* it may have been opened below /dev/mqueue */
	f->path = slash ? arena_strdup(c->arena, slash) : f->path;
	if (slash && !f->path)
		return err_nomem(err);
	rc = capture_notify(c, of, d, err);
	if (rc == 0 && attr.mq_curmsgs && is_first(c, of))
		rc = mqueue_peek(c, of, d, (unsigned)attr.mq_curmsgs, err);
	return rc;
}

/* --- restore ---------------------------------------------------------------------------------- */

/* The same queue, made already through another description of it: its number in the tree, or -1. */
static int made_before(const struct rebuild *rb, const struct file *f)
{
	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file *o = &rb->tree->files[i];

		if (o == f)
			break;
		if (o->kind == FILE_MQUEUE && o->dev == f->dev && o->ino == f->ino &&
		    rb->file_fds[i] >= 0)
			return (int)i;
	}
	return -1;
}

/* Opens the queue, or makes it, for both directions. One that had been removed gets a name of ours
 * for a moment. */
static int open_both(const struct rebuild *rb, const struct file *f, const char *name, int *ret_fd,
		     struct err *err)
{
	const struct file_mqueue *d = f->detail;
	struct mq_attr attr = { .mq_maxmsg = (long)d->max_messages,
				.mq_msgsize = (long)d->message_size };
	int flags = O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC;
	char own[48];
	mode_t mask;

	(void)snprintf(own, sizeof own, "/.ckpt-%d-%u", rb->tag, f->id);
	mask = umask(0);
	*ret_fd = mq_open(d->removed ? own : name, d->removed ? flags | O_EXCL : flags,
			  f->mode & 0777, &attr);
	(void)umask(mask);
	if (*ret_fd < 0) {
		int rc = err_set(err, -errno, "cannot open the POSIX message queue '%s': %m", name);

		if (rc == -EINVAL || rc == -EMFILE)
			err_hint(err, "see /proc/sys/fs/mqueue, and ulimit -q");
		return rc;
	}
	if (d->removed)
		(void)mq_unlink(own);
	if (get_attr(*ret_fd, &attr) < 0 || attr.mq_maxmsg != (long)d->max_messages ||
	    attr.mq_msgsize != (long)d->message_size)
		return err_set(err, -EEXIST, "the POSIX message queue '%s' is another than it was",
			       name);
	return 0;
}

/* What it holds now is of a time that has not been. */
static int fill(const struct file_mqueue *d, const char *name, int both, struct err *err)
{
	CLEANUP_FREE char *drop = malloc(d->message_size ? d->message_size : 1);
	struct timespec past = { 0 };

	if (!drop)
		return err_nomem(err);
	while (mq_timedreceive(both, drop, d->message_size, NULL, &past) >= 0)
		;
	for (unsigned i = 0; i < d->n_messages; i++) {
		const struct mqueue_message *m = &d->messages[i];

		if (mq_timedsend(both, (const char *)m->data.data, m->data.len, m->priority,
				 &past) < 0)
			return err_set(err, -errno,
				       "cannot put a message of %u bytes into the POSIX message "
				       "queue '%s': %m",
				       m->data.len, name);
	}
	return 0;
}

static int open_mqueue(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_mqueue *d = f->detail;
	int flags = ((int)f->flags & (O_ACCMODE | O_NONBLOCK)) | O_CLOEXEC;
	const char *name = f->path ? f->path : "";
	int before = made_before(rb, f), rc = 0;
	CLEANUP_FD int both = -1;

	if (!d || name[0] != '/' || strchr(name + 1, '/'))
		return err_image(err, -EINVAL, "the image has no name of a message queue");
	if (before < 0) {
		rc = open_both(rb, f, name, &both, err);
		rc = rc < 0 ? rc : fill(d, name, both, err);
	}
	if (rc < 0)
		return rc;
	*ret_fd = reopen_fd(before < 0 ? both : rb->file_fds[before], flags);
	if (*ret_fd < 0)
		return err_set(err, -errno, "cannot open the POSIX message queue '%s': %m", name);
	return 0;
}

/* Is fd the first descriptor of p for its queue? */
static bool first_of_queue(const struct rebuild *rb, const struct process *p, const struct fd *fd,
			   const struct file *f)
{
	for (const struct fd *o = p->fds; o < fd; o++) {
		const struct file *g = tree_file(rb->tree, o->file);

		if (g && g->kind == FILE_MQUEUE && g->dev == f->dev && g->ino == f->ino)
			return false;
	}
	return true;
}

static int finish(struct rebuild *rb, const struct process *p, const struct fd *fd,
		  const struct file *f, struct placer *pl, struct err *err)
{
	const struct file_mqueue *d = f->detail;
	struct sigevent event = { .sigev_notify = (int)d->notify,
				  .sigev_signo = (int)d->notify_signo };
	int rc;

	if (d->notify_pid != p->pid || !first_of_queue(rb, p, fd, f))
		return 0;
	rc = placer_room(pl, 1, sizeof event + 16, err);
	if (rc < 0)
		return rc;
	batch_call(pl->b, "ask to be told of a message (mq_notify)", SYS_mq_notify, fd->fd,
		   batch_in(pl->b, &event, sizeof event));
	return 0;
}

const struct file_ops mqueue_ops = {
	.kind = FILE_MQUEUE,
	.match = match,
	.capture = capture,
	.open = open_mqueue,
	.finish = finish,
};
