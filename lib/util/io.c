/* SPDX-License-Identifier: BSD-2-Clause */
/* Whole reads and writes. */
#include "util/io.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

ssize_t io_read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return done ? (ssize_t)done : -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int io_write_full(int fd, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

/*
 * A seq_file gives as many whole records as fit in half a page at least (fs/seq_file.c), so a read
 * of less is the last one where no record is longer than that.
 */
#define SHORT_READ 2048

static int read_whole(int dirfd, const char *path, bool short_is_last, char **ret_text,
		      size_t *ret_len)
{
	CLEANUP_FD int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE char *text = NULL;
	size_t have = 0, size = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n;

		if (size - have < 4096) {
			char *bigger = realloc(text, size ? size * 2 : 16384);

			if (!bigger)
				return -ENOMEM;
			text = bigger;
			size = size ? size * 2 : 16384;
		}
		n = read(fd, text + have, size - have - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		have += (size_t)n;
		if (n == 0 || (short_is_last && n <= SHORT_READ))
			break;
	}
	text[have] = '\0';
	if (ret_len)
		*ret_len = have;
	*ret_text = ptr_take(&text);
	return 0;
}

int io_read_file(int dirfd, const char *path, char **ret_text, size_t *ret_len)
{
	return read_whole(dirfd, path, false, ret_text, ret_len);
}

int io_read_records(int dirfd, const char *path, char **ret_text, size_t *ret_len)
{
	return read_whole(dirfd, path, true, ret_text, ret_len);
}

int io_write_file(int dirfd, const char *path, const char *text)
{
	CLEANUP_FD int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return io_write_full(fd, text, strlen(text));
}

int io_readlink(int dirfd, const char *path, char **ret)
{
	char buf[PATH_MAX + 64];
	ssize_t n = readlinkat(dirfd, path, buf, sizeof buf - 1);
	char *copy;

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	copy = strdup(buf);
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

/* ioprio_set(2) has no wrapper: best effort, lowest level, for one thread. */
#define IOPRIO_ONE_THREAD 1
#define IOPRIO_LOWEST     (2 << 13 | 7)
#define IOPRIO_IDLE       (3 << 13)
/* About a tenth of a core beside a job that wants all of it; all that it leaves. */
#define BACKGROUND_NICE 10

void io_step_back(pid_t tid)
{
	/* who was started with less keeps that: under nice(1), ionice -c idle */
	if (getpriority(PRIO_PROCESS, (id_t)tid) < BACKGROUND_NICE)
		(void)setpriority(PRIO_PROCESS, (id_t)tid, BACKGROUND_NICE);
	if (syscall(SYS_ioprio_get, IOPRIO_ONE_THREAD, tid) < IOPRIO_IDLE)
		(void)syscall(SYS_ioprio_set, IOPRIO_ONE_THREAD, tid, IOPRIO_LOWEST);
}
