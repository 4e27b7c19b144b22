/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes and FIFOs: content, capacity, packets, ends that are closed. */
#include "harness.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static void make_pipe(int in, int out, int flags)
{
	int ends[2];

	CHECK(pipe2(ends, flags) == 0);
	CHECK(dup3(ends[0], in + 100, 0) >= 0 && dup3(ends[1], out + 100, 0) >= 0);
	CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
	move_fd(in + 100, in);
	move_fd(out + 100, out);
}

static short polled(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	CHECK(poll(&p, 1, 0) >= 0);
	return p.revents;
}

static void put(int fd, const char *s)
{
	CHECK_EQ(write(fd, s, strlen(s)), strlen(s));
}

static void expect(int fd, const char *s)
{
	char buf[256] = "";

	CHECK_EQ(read(fd, buf, sizeof buf - 1), strlen(s));
	if (strcmp(buf, s))
		fail(__FILE__, __LINE__, "read '%s', not '%s'", buf, s);
}

static int flags_of(int fd)
{
	return fcntl(fd, F_GETFL) & ~0100000;
}

static void pipe_setup(void)
{
	char block[4096];

	make_pipe(10, 11, 0);
	put(11, "unread");
	CHECK(dup3(10, 12, O_CLOEXEC) == 12);
	make_pipe(20, 21, O_NONBLOCK);
	CHECK(fcntl(21, F_SETPIPE_SZ, 256 * 1024) == 256 * 1024);
	memset(block, 'x', sizeof block);
	while (write(21, block, sizeof block) > 0)
		;
	make_pipe(30, 31, 0); /* both ends opened once more */
	move_fd(open("/proc/self/fd/30", O_WRONLY), 32);
	move_fd(open("/proc/self/fd/30", O_RDWR), 33);
	put(33, "four");
}

static void pipe_verify(void)
{
	char block[4096];
	size_t n = 0;

	expect(10, "unread");
	CHECK(shares_description(10, 12));
	CHECK_EQ(fcntl(12, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(flags_of(10), O_RDONLY);
	CHECK_EQ(flags_of(11), O_WRONLY);
	put(11, "more");
	expect(12, "more");
	CHECK_EQ(fcntl(20, F_GETPIPE_SZ), 256 * 1024);
	CHECK_EQ(flags_of(20), O_RDONLY | O_NONBLOCK);
	CHECK_EQ(flags_of(21), O_WRONLY | O_NONBLOCK);
	CHECK_EQ(polled(21, POLLOUT), 0);
	while (n < 256 * 1024 && read(20, block, sizeof block) == (ssize_t)sizeof block) {
		CHECK(block[0] == 'x' && block[4095] == 'x');
		n += sizeof block;
	}
	CHECK_EQ(n, 256 * 1024);
	CHECK_EQ(polled(20, POLLIN), 0);
	expect(33, "four");
	CHECK_EQ(flags_of(33), O_RDWR);
	CHECK_EQ(close(31), 0);
	put(32, "x");
	expect(30, "x");
}

static void half_setup(void)
{
	make_pipe(10, 11, 0);
	put(11, "last words");
	CHECK(close(11) == 0);
	make_pipe(20, 21, 0);
	CHECK(close(20) == 0);
	make_pipe(30, 31, 0); /* empty and closed */
	CHECK(close(31) == 0);
}

static void half_verify(void)
{
	CHECK_EQ(polled(10, POLLIN), POLLIN | POLLHUP);
	expect(10, "last words");
	expect(10, "");
	CHECK_EQ(polled(21, POLLOUT) & POLLERR, POLLERR);
	CHECK_EQ(polled(30, POLLIN), POLLHUP);
}

static void packet_setup(void)
{
	make_pipe(10, 11, O_DIRECT);
	put(11, "one");
	put(11, "three");
	put(11, "x");
}

static void packet_verify(void)
{
	expect(10, "one");
	expect(10, "three");
	expect(10, "x");
	CHECK_EQ(flags_of(11), O_WRONLY | O_DIRECT);
	put(11, "a");
	put(11, "b");
	expect(10, "a");
}

static void fifo_setup(void)
{
	CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
	move_fd(open(in_dir("fifo"), O_RDWR), 30);
	move_fd(open(in_dir("fifo"), O_RDONLY), 10);
	move_fd(open(in_dir("fifo"), O_WRONLY | O_NONBLOCK), 11);
	put(11, "in the fifo");
	CHECK(close(30) == 0);
	CHECK(mkfifo(in_dir("waiting"), 0600) == 0);
	move_fd(open(in_dir("waiting"), O_RDONLY | O_NONBLOCK), 12);
	CHECK(mkfifo(in_dir("ended"), 0600) == 0);
	move_fd(open(in_dir("ended"), O_RDONLY | O_NONBLOCK), 13);
	move_fd(open(in_dir("ended"), O_WRONLY), 30);
	put(30, "bye");
	CHECK(close(30) == 0);
}

static void fifo_verify(void)
{
	struct stat a, b;

	CHECK(fstat(10, &a) == 0 && stat(in_dir("fifo"), &b) == 0 && a.st_ino == b.st_ino);
	expect(10, "in the fifo");
	CHECK_EQ(flags_of(10), O_RDONLY);
	CHECK_EQ(flags_of(11), O_WRONLY | O_NONBLOCK);
	put(11, "on");
	expect(10, "on");
	/* no writer has come yet: that is not the end */
	CHECK_EQ(polled(12, POLLIN), 0);
	CHECK_EQ(polled(13, POLLIN), POLLIN | POLLHUP);
	expect(13, "bye");
	expect(13, "");
}

static const struct test tests[] = {
	{ "pipes", pipe_setup, NULL, pipe_verify },
	{ "half-closed pipes", half_setup, NULL, half_verify },
	{ "packet mode", packet_setup, NULL, packet_verify },
	{ "FIFOs", fifo_setup, NULL, fifo_verify },
};

int main(void)
{
	return run_tests(tests, ARRAY_SIZE(tests));
}
