/* SPDX-License-Identifier: BSD-2-Clause */
/* signalfd(2): a set of signals; what is pending lies with the process and its threads. */
#include "object/kinds.h"
#include "proc/refusals.h"

#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return !strcmp(of->link, LINK_SIGNALFD);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_signalfd *d = arena_alloc(c->arena, sizeof *d);

	if (!d)
		return err_nomem(err);
	if (!of->info.has_sigmask)
		return refuse(of, err, "the kernel does not show the mask of a signalfd");
	d->mask = of->info.sigmask;
	f->detail = d;
	return 0;
}

static int open_signalfd(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_signalfd *d = f->detail;
	/* the kernel's own call: glibc's sigset_t has no way to be filled from 64 bits */
	long fd = syscall(SYS_signalfd4, -1, &d->mask, sizeof d->mask, SFD_CLOEXEC | SFD_NONBLOCK);

	(void)rb;
	if (fd < 0)
		return err_set(err, -errno, "cannot make a signalfd: %m");
	*ret_fd = (int)fd;
	return 0;
}

const struct file_ops signalfd_ops = {
	.kind = FILE_SIGNALFD,
	.match = match,
	.capture = capture,
	.open = open_signalfd,
};
