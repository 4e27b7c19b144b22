/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A container's seccomp filter, as it comes with Docker, allows ptrace but not pidfd_getfd(2). So
 * the process sends its descriptors, as SCM_RIGHTS (unix(7)), from a socket that it is made to open
 * and to close again, to one of ours under an abstract name that nobody else knows. A message of
 * somebody else has not our nonce.
 */
#include "inject/fetch.h"

#include "util/cleanup.h"

#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

struct fetcher {
	struct batch *b;
	pid_t pid;
	int ours, theirs;
	struct sockaddr_un name;
	socklen_t name_len;
	uint8_t nonce[16];
};

/* The kernel chooses a name. */
static int open_ours(struct fetcher *f, struct err *err)
{
	const struct sockaddr_un none = { .sun_family = AF_UNIX };

	f->ours = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	f->name_len = sizeof f->name;
	if (f->ours < 0 ||
	    bind(f->ours, (const struct sockaddr *)&none, sizeof none.sun_family) < 0 ||
	    getsockname(f->ours, (struct sockaddr *)&f->name, &f->name_len) < 0 ||
	    getrandom(f->nonce, sizeof f->nonce, 0) != (ssize_t)sizeof f->nonce)
		return err_set(err, -errno, "cannot make a socket: %m");
	return 0;
}

/* Should we be killed, it closes it by itself. */
static int open_theirs(struct fetcher *f, int number, struct err *err)
{
	unsigned call;
	int rc = batch_undo(f->b, SYS_close, (uint64_t)number, 0, 0, err);

	if (rc < 0)
		return rc;
	batch_start(f->b);
	call = batch_call(f->b, NULL, SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	rc = batch_run(f->b, f->pid, err);
	if (rc < 0)
		return rc;
	f->theirs = (int)batch_ret(f->b, call);
	if (f->theirs >= 0)
		return 0;
	rc = err_set(err, f->theirs, "process %d: cannot make a socket to send descriptors by: %m",
		     f->pid);
	(void)batch_undone(f->b, NULL);
	return rc;
}

int fetch_begin(struct batch *b, pid_t pid, int number, struct fetcher **ret, struct err *err)
{
	struct fetcher *f = calloc(1, sizeof *f);
	int rc;

	if (!f)
		return err_nomem(err);
	*f = (struct fetcher){ .b = b, .pid = pid, .ours = -1, .theirs = -1 };
	rc = open_ours(f, err);
	if (rc == 0)
		rc = open_theirs(f, number, err);
	if (rc < 0) {
		(void)fetch_end(f, NULL);
		return rc;
	}
	*ret = f;
	return 0;
}

static int send_one(struct fetcher *f, int fd, struct err *err)
{
	union {
		struct cmsghdr head;
		uint8_t room[CMSG_SPACE(sizeof fd)];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof fd),
				.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { .iov_len = sizeof f->nonce };
	struct msghdr msg = { .msg_namelen = f->name_len,
			      .msg_iovlen = 1,
			      .msg_controllen = sizeof control };

	memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
	batch_start(f->b);
	/* NOLINTBEGIN(performance-no-int-to-ptr): addresses in the other process */
	iov.iov_base = (void *)(uintptr_t)batch_in(f->b, f->nonce, sizeof f->nonce);
	msg.msg_name = (void *)(uintptr_t)batch_in(f->b, &f->name, f->name_len);
	msg.msg_control = (void *)(uintptr_t)batch_in(f->b, &control, sizeof control);
	msg.msg_iov = (void *)(uintptr_t)batch_in(f->b, &iov, sizeof iov);
	/* NOLINTEND(performance-no-int-to-ptr) */
	(void)batch_call(f->b, "send a descriptor", SYS_sendmsg, f->theirs,
			 batch_in(f->b, &msg, sizeof msg), MSG_DONTWAIT | MSG_NOSIGNAL);
	return batch_run(f->b, f->pid, err);
}

/* 1: it is here; 0: that was somebody else's message. */
static int receive_one(struct fetcher *f, int *ret, struct err *err)
{
	union {
		struct cmsghdr head;
		uint8_t room[CMSG_SPACE(sizeof *ret)];
	} control;
	uint8_t nonce[sizeof f->nonce] = { 0 };
	struct iovec iov = { nonce, sizeof nonce };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof control };
	ssize_t n = recvmsg(f->ours, &msg, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	int fd = -1;

	if (n < 0)
		return errno == EINTR ? 0 : err_set(err, -errno, "no descriptor came: %m");
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fd))
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
	if (n == (ssize_t)sizeof nonce && !memcmp(nonce, f->nonce, sizeof nonce)) {
		*ret = fd;
		return fd < 0 ? err_set(err, -EMFILE, "no descriptor left: %m") : 1;
	}
	if (fd >= 0)
		(void)close(fd);
	return 0;
}

int fetch_one(struct fetcher *f, int fd, int *ret, struct err *err)
{
	int rc = send_one(f, fd, err);

	while (rc == 0)
		rc = receive_one(f, ret, err);
	return MIN(rc, 0);
}

int fetch_end(struct fetcher *f, struct err *err)
{
	int rc = 0;

	if (!f)
		return 0;
	if (f->theirs >= 0) {
		batch_start(f->b);
		(void)batch_call(f->b, "close a socket", SYS_close, f->theirs);
		rc = batch_run(f->b, f->pid, err);
		if (rc == 0)
			rc = batch_undone(f->b, err);
	}
	if (f->ours >= 0)
		(void)close(f->ours);
	free(f);
	return rc;
}
