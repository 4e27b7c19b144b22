/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * eventfd(2): a counter, and whether reading takes one (EFD_SEMAPHORE) or all of it.
 *
 * fdinfo shows the counter; the semaphore flag only since Linux 6.5. On older kernels the process
 * itself is made to try it out, in a batch of calls that leaves the counter as it was whatever the
 * answer is, and whoever dies meanwhile:
 *
 *   count >= 2:  read a, write a          a is 1 for a semaphore, else all of it: back either way
 *   count == 1:  write 1, read a, read b, write 1     a semaphore gives 1 and 1, else 2 and EAGAIN
 *   count == 0:  write 2, read a, read b                                                 likewise
 *
 * What a program can notice is one more edge for EPOLLET, which may always be spurious.
 */
#include "object/kinds.h"
#include "proc/refusals.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

bool eventfd_force_try;

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return !strcmp(of->link, LINK_EVENTFD);
}

/* Does fdinfo say so of a semaphore of our own? */
static bool kernel_tells(struct arena *a)
{
	static int known; /* 0: not asked yet, 1: no, 2: yes */
	struct proc_fdinfo info = { 0 };
	CLEANUP_FD int dirfd = -1;
	CLEANUP_FD int fd = -1;

	if (known)
		return known == 2;
	fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	if (fd >= 0 && proc_open_pid(getpid(), &dirfd, NULL) == 0)
		(void)proc_fdinfo_read(dirfd, fd, a, &info, NULL);
	known = info.eventfd_semaphore ? 2 : 1;
	return known == 2;
}

static int try_out(const struct open_file *of, uint64_t count, uint32_t *ret, struct err *err)
{
	struct batch *b = of->subject->batch;
	uint64_t one = 1, two = 2, at, a, second;
	int fd = of->fd, rc;

	if (!b)
		return refuse(of, err, "an eventfd is not supported by this kernel there");
	batch_start(b);
	a = batch_out(b, sizeof(uint64_t));
	second = batch_out(b, sizeof(uint64_t));
	at = count == 0 ? batch_in(b, &two, sizeof two) : batch_in(b, &one, sizeof one);
	if (count >= 2) {
		batch_call(b, "try out an eventfd", SYS_read, fd, a, sizeof(uint64_t));
		batch_call(b, "put an eventfd back", SYS_write, fd, a, sizeof(uint64_t));
	} else {
		batch_call(b, "try out an eventfd", SYS_fcntl, fd, F_SETFL, of->flags | O_NONBLOCK);
		batch_call(b, "try out an eventfd", SYS_write, fd, at, sizeof(uint64_t));
		batch_call(b, "try out an eventfd", SYS_read, fd, a, sizeof(uint64_t));
		batch_call(b, NULL, SYS_read, fd, second, sizeof(uint64_t));
		if (count == 1)
			batch_call(b, "put an eventfd back", SYS_write, fd, at, sizeof(uint64_t));
		batch_call(b, "put an eventfd back", SYS_fcntl, fd, F_SETFL, of->flags);
	}
	rc = batch_run(b, of->subject->pid, err);
	if (rc < 0)
		return err_wrap(err, rc, "pid %d fd %d", of->subject->pid, fd);
	memcpy(&one, batch_result(b, a), sizeof one);
	*ret = one == 1;
	return 0;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_eventfd *d = arena_alloc(c->arena, sizeof *d);

	if (!d)
		return err_nomem(err);
	if (!of->info.has_eventfd)
		return refuse(of, err, "the kernel does not show the counter of an eventfd");
	d->count = of->info.eventfd_count;
	d->semaphore = of->info.eventfd_semaphore;
	f->detail = d;
	if (!eventfd_force_try && kernel_tells(c->arena))
		return 0;
	return try_out(of, d->count, &d->semaphore, err);
}

static int open_eventfd(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_eventfd *d = f->detail;
	CLEANUP_FD int fd =
		eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (d->semaphore ? EFD_SEMAPHORE : 0));

	(void)rb;
	if (fd < 0)
		return err_set(err, -errno, "cannot make an eventfd: %m");
	/* not as the initial value, which has only 32 bits */
	if (d->count && write(fd, &d->count, sizeof d->count) != sizeof d->count)
		return err_set(err, -errno, "cannot set an eventfd to %llu: %m",
			       (unsigned long long)d->count);
	*ret_fd = fd_take(&fd);
	return 0;
}

const struct file_ops eventfd_ops = {
	.kind = FILE_EVENTFD,
	.match = match,
	.capture = capture,
	.open = open_eventfd,
};
