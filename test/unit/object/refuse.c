/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be restored is refused by its name, with pid and descriptor. */
#include "harness.h"

#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

static void packet_socket(void)
{
	move_fd(socket(AF_PACKET, SOCK_DGRAM, 0), 9);
}

static void raw_socket(void)
{
	move_fd(socket(AF_INET, SOCK_RAW, 1), 9);
}

static void on_its_way(void)
{
	char room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { "x", 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};
	struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
	int sv[2], fd = (int)syscall(SYS_pidfd_open, getppid(), 0);

	CHECK(fd >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	CHECK(sendmsg(sv[0], &msg, 0) == 1 && close(fd) == 0);
	move_fd(sv[1], 9);
}

static void not_accepted(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = sizeof sa;
	int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK(l >= 0 && c >= 0 && bind(l, (void *)&sa, sizeof sa.sun_family) == 0 &&
	      listen(l, 1) == 0 && getsockname(l, (void *)&sa, &len) == 0 &&
	      connect(c, (void *)&sa, len) == 0 && send(c, "early", 5, 0) == 5);
	move_fd(c, 9);
}

static void io_uring(void)
{
	char params[256] = { 0 };

	move_fd((int)syscall(SYS_io_uring_setup, 4, params), 9);
}

static void uffd(void)
{
	move_fd((int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */), 9);
}

static void pidfd(void)
{
	move_fd((int)syscall(SYS_pidfd_open, getppid(), 0), 9);
}

static void fanotify(void)
{
	move_fd(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY), 9);
}

static void other_name(void)
{
	move_fd(open(in_dir("f"), O_CREAT | O_RDWR, 0600), 9);
	CHECK(mkdir(in_dir("d"), 0700) == 0);
	CHECK(link(in_dir("f"), in_dir("d/f")) == 0 && unlink(in_dir("f")) == 0);
}

static void namespace_file(void)
{
	move_fd(open("/proc/self/ns/net", O_RDONLY), 9);
}

static void other_process(void)
{
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/%d/stat", getppid());
	move_fd(open(path, O_RDONLY), 9);
}

static void device(void)
{
	move_fd(open("/dev/kmsg", O_RDONLY), 9);
}

static void epoll_lost(void)
{
	struct epoll_event ev = { .events = EPOLLIN };

	move_fd(epoll_create1(0), 9);
	move_fd(eventfd(0, 0), 10);
	CHECK(epoll_ctl(9, EPOLL_CTL_ADD, 10, &ev) == 0);
	/* a child keeps the watched description, which the job itself has closed */
	if (fork() == 0) {
		(void)alarm(30);
		for (;;)
			(void)pause();
	}
	CHECK(close(10) == 0);
}

#define REFUSED(n, setup_, text)                                                                   \
	{                                                                                          \
		.name = n, .setup = setup_, .fails = "fd 9: " text, .code = -EOPNOTSUPP            \
	}

static const struct test tests[] = {
	{ .name = "packet socket",
	  .setup = packet_socket,
	  .fails = "fd 9: a packet socket is not supported",
	  .root_only = true },
	{ .name = "raw socket",
	  .setup = raw_socket,
	  .fails = "fd 9: a raw socket is not supported",
	  .root_only = true },
	REFUSED("descriptor on its way", on_its_way, "on its way in this socket: "),
	{ .name = "data before accept",
	  .setup = not_accepted,
	  .fails = "fd 9: data sent on a connection that accept has not taken yet",
	  .code = -EAGAIN },
	REFUSED("io_uring", io_uring, "io_uring is not supported"),
	REFUSED("userfaultfd", uffd, "userfaultfd is not supported"),
	REFUSED("pidfd", pidfd, "a pidfd of process"),
	{ .name = "fanotify",
	  .setup = fanotify,
	  .fails = "fd 9: fanotify is not supported",
	  .root_only = true },
	REFUSED("deleted file with a name elsewhere", other_name, "'/tmp"),
	REFUSED("namespace", namespace_file, "a network namespace is not supported"),
	REFUSED("/proc file of another process", other_process, "'/proc/"),
	{ .name = "device",
	  .setup = device,
	  .fails = "fd 9: character device '/dev/kmsg' (1:11) is not supported",
	  .root_only = true },
	REFUSED("epoll watch on a closed file", epoll_lost,
		"epoll watches a file (added as descriptor 10)"),
};

int main(void)
{
	return run_tests(tests, ARRAY_SIZE(tests));
}
