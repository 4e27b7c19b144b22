/* SPDX-License-Identifier: BSD-2-Clause */
/* Whole reads and writes; EINTR is retried here and nowhere else. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads up to len bytes until end of file; the count read, or a negative errno. */
ssize_t io_read_full(int fd, void *buf, size_t len);
ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t off);
/* Writes all: 0 or a negative errno. */
int io_write_full(int fd, const void *buf, size_t len);
int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t off);
/*
 * The whole of a (small, perhaps size-0) file such as those in /proc, NUL-terminated, malloc'ed
 * (the caller frees). ret_len may be NULL. dirfd as for openat. Negative errno on failure.
 */
int io_read_file(int dirfd, const char *path, char **ret_text, size_t *ret_len);
/* The same for a file in /proc that is one record, or records of less than 2 KiB: with one read
 * fewer. */
int io_read_records(int dirfd, const char *path, char **ret_text, size_t *ret_len);
/* open(path, O_WRONLY|O_CLOEXEC) and one write of text. */
int io_write_file(int dirfd, const char *path, const char *text);
/* readlinkat into a malloc'ed string. */
int io_readlink(int dirfd, const char *path, char **ret);
/*
 * The thread leaves the cores and the disk to others as far as they want them (nice level, I/O
 * priority). For good: priority that was given up cannot be had back without privilege.
 */
void io_step_back(pid_t tid);
