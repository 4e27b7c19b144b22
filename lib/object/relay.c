/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptions that can be opened only when all processes are there (pidfds, files of /proc about
 * processes), and that several of them have: the first holder opens it, the others get it from him.
 *
 * Until then a datagram socket that is connected to itself stands at the description's number in
 * all processes. The first sends the descriptor into it (SCM_RIGHTS), the others look at what lies
 * there (MSG_PEEK), which gives each of them one.
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Those that share another's descriptors have none of their own to be put in place. */
static bool holds(const struct process *p, uint32_t file)
{
	for (unsigned i = 0; !p->files_of && i < p->n_fds; i++)
		if (p->fds[i].file == file)
			return true;
	return false;
}

bool relay_needed(const struct tree *t, const struct file *f)
{
	unsigned n = 0;

	for (unsigned i = 0; n < 2 && i < t->n_processes; i++)
		n += holds(&t->processes[i], f->id);
	return n > 1;
}

static bool is_first(const struct tree *t, const struct file *f, const struct process *p)
{
	for (const struct process *o = t->processes; o < p; o++)
		if (holds(o, f->id))
			return false;
	return true;
}

bool relay_opened(const struct process *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (p->fds[i].file == p->fds[n].file)
			return true;
	return false;
}

int relay_make(int *ret_fd, struct err *err)
{
	struct sockaddr_un self = { .sun_family = AF_UNIX };
	socklen_t len = sizeof self;
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	/* an abstract name of the kernel's choice */
	if (fd < 0 || bind(fd, (const void *)&self, sizeof self.sun_family) < 0 ||
	    getsockname(fd, (void *)&self, &len) < 0 || connect(fd, (const void *)&self, len) < 0)
		return err_set(err, -errno, "cannot make a socket to pass descriptors through: %m");
	*ret_fd = fd_take(&fd);
	return 0;
}

/* A message of one byte with room for a descriptor, which is 0 where one is sent. */
static uint64_t message(struct batch *b)
{
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct cmsghdr *c = (void *)control;
	struct iovec iov = { .iov_len = 1 };
	struct msghdr m = { .msg_iovlen = 1, .msg_controllen = sizeof control };

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	iov.iov_base = (void *)(uintptr_t)batch_out(b, 1);
	m.msg_iov = (void *)(uintptr_t)batch_in(b, &iov, sizeof iov);
	m.msg_control = (void *)(uintptr_t)batch_in(b, control, sizeof control);
	return batch_in(b, &m, sizeof m);
}

int relay_open(const struct rebuild *rb, const struct process *p, int at, struct placer *pl,
	       const struct relay_call *call, struct err *err)
{
	const struct file *f = &rb->tree->files[at];
	size_t path_len = call->path ? strlen(call->path) + 1 : 0;
	bool shared = relay_needed(rb->tree, f);
	int to = rb->file_fds[at], rc = placer_room(pl, 5, path_len + 512, err);

	if (rc < 0)
		return rc;
	/* what is the job's is not there yet: what is opened comes as 0, the lowest */
	batch_call(pl->b, NULL, SYS_close, 0);
	if (is_first(rb->tree, f, p)) {
		batch_call(pl->b, call->what, call->nr,
			   call->path ? batch_in(pl->b, call->path, path_len) : call->arg,
			   call->flags);
		if (shared)
			batch_call(pl->b, "pass a descriptor on", SYS_sendmsg, to, message(pl->b),
				   0);
	} else {
		batch_call(pl->b, "take a descriptor that was passed on", SYS_recvmsg, to,
			   message(pl->b), MSG_PEEK | MSG_DONTWAIT);
	}
	batch_call(pl->b, call->what, SYS_dup3, 0, to, O_CLOEXEC);
	batch_call(pl->b, NULL, SYS_close, 0);
	return 0;
}
