/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pidfd_open(2): a descriptor of a process. It can be had only when that process is there, which it
 * is not yet while files are opened; so the root stands in, and each process that holds one opens
 * its own just before descriptors are put in place.
 */
#include "object/kinds.h"
#include "proc/refusals.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return refusal_link_is_pidfd(of->link);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_pidfd *d = arena_alloc(c->arena, sizeof *d);
	int32_t pid = of->info.pidfd_pid;

	if (!d)
		return err_nomem(err);
	f->detail = d;
	if (pid < 0) /* ended, and waited for */
		return 0;
	for (unsigned i = 0; i < c->n_subjects; i++)
		if (c->subjects[i].status.tgid == pid) /* not its thread that speaks for it */
			d->pid = c->subjects[i].process->pid;
	for (unsigned i = 0; i < c->tree->n_zombies; i++)
		if (!d->pid && c->tree->zombies[i].pid == of->info.pidfd_nspid)
			d->pid = of->info.pidfd_nspid;
	if (d->pid)
		return 0;
	return refuse(of, err,
		      "a pidfd of process %d, which is not in the job, or of a single thread, is "
		      "not supported",
		      pid);
}

/* Of a child that has ended and been waited for. */
static int of_the_dead(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
	int fd;

	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return -1;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	(void)waitpid(pid, NULL, __WALL);
	return fd;
}

static int open_pidfd(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_pidfd *d = f->detail;

	if (d->pid && relay_needed(rb->tree, f))
		return relay_make(ret_fd, err);
	*ret_fd = d->pid ? (int)syscall(SYS_pidfd_open, getpid(), 0) : of_the_dead();
	return *ret_fd < 0 ? err_set(err, -errno, "cannot open a pidfd: %m") : 0;
}

int pidfds_place(struct rebuild *rb, const struct process *p, struct placer *pl, struct err *err)
{
	for (unsigned i = 0; i < p->n_fds; i++) {
		int at = file_index(rb->tree, p->fds[i].file), rc;
		const struct file *f = at < 0 ? NULL : &rb->tree->files[at];
		const struct file_pidfd *d = f && f->kind == FILE_PIDFD ? f->detail : NULL;

		if (!d || !d->pid || relay_opened(p, i))
			continue;
		rc = relay_open(rb, p, at, pl,
				&(struct relay_call){ .what = "open a pidfd",
						      .nr = SYS_pidfd_open,
						      .arg = (uint64_t)rb->new_id(rb, d->pid),
						      .flags = f->flags & O_NONBLOCK },
				err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

const struct file_ops pidfd_ops = {
	.kind = FILE_PIDFD,
	.match = match,
	.capture = capture,
	.open = open_pidfd,
};
