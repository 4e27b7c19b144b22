/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * POSIX message queues (mq_overview(7)): opened again by name, or made again. There is no way to
 * look at messages but to take them out, and putting them back needs their lengths, which no batch
 * of calls in the job can know beforehand: a queue that holds messages makes the checkpoint be
 * tried again later, and be refused if they stay.
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <mqueue.h>
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

/* "QSIZE:0 NOTIFY:0 SIGNO:0 NOTIFY_PID:0": what reading the file itself shows. */
static int notified_pid(int fd)
{
	char text[128];
	ssize_t n = pread(fd, text, sizeof text - 1, 0);
	const char *at;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	at = strstr(text, "NOTIFY_PID:");
	return at ? (int)strtol(at + 11, NULL, 10) : 0;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_mqueue *d = arena_alloc(c->arena, sizeof *d);
	struct mq_attr attr;

	if (!d)
		return err_nomem(err);
	if (get_attr(of->dup, &attr) < 0)
		return fd_error(of, err, -errno, "cannot look at a message queue: %m");
	if (of->deleted || of->st.st_nlink == 0)
		return refuse(of, err,
			      "the POSIX message queue '%s', which has been removed, is not "
			      "supported",
			      of->link);
	if (attr.mq_curmsgs)
		return fd_error(of, err, -EAGAIN,
				"the POSIX message queue '%s' holds messages (%ld), which can only "
				"be looked at by taking them out",
				of->link, attr.mq_curmsgs);
	if (notified_pid(of->dup))
		return refuse(of, err, "mq_notify() on the message queue '%s' is not supported",
			      of->link);
	*d = (struct file_mqueue){ .max_messages = (uint64_t)attr.mq_maxmsg,
				   .message_size = (uint64_t)attr.mq_msgsize };
	f->detail = d;
	return 0;
}

static int open_mqueue(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_mqueue *d = f->detail;
	struct mq_attr attr = { .mq_maxmsg = (long)d->max_messages,
				.mq_msgsize = (long)d->message_size };
	const char *name = f->path ? f->path : "";
	CLEANUP_FREE char *drop = malloc(d->message_size ? d->message_size : 1);
	CLEANUP_FD int fd = -1, both = -1;
	struct timespec past = { 0 };
	mode_t mask;

	(void)rb;
	if (!drop || name[0] != '/' || strchr(name + 1, '/'))
		return err_image(err, -EINVAL, "the image has no name of a message queue");
	mask = umask(0);
	both = mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC, f->mode & 0777, &attr);
	(void)umask(mask);
	fd = both < 0 ? -1 : mq_open(name, ((int)f->flags & (O_ACCMODE | O_NONBLOCK)) | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "cannot open the POSIX message queue '%s': %m", name);
	if (get_attr(fd, &attr) < 0 || attr.mq_maxmsg != (long)d->max_messages ||
	    attr.mq_msgsize != (long)d->message_size)
		return err_set(err, -EEXIST, "the POSIX message queue '%s' is another than it was",
			       name);
	/* what it holds now is of a time that has not been */
	while (mq_timedreceive(both, drop, d->message_size, NULL, &past) >= 0)
		;
	*ret_fd = fd_take(&fd);
	return 0;
}

const struct file_ops mqueue_ops = {
	.kind = FILE_MQUEUE,
	.match = match,
	.capture = capture,
	.open = open_mqueue,
};
