/* SPDX-License-Identifier: BSD-2-Clause */
/* Scope attributes: what a block acquired is given back on every path out of it; errno is kept. */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(func) __attribute__((cleanup(func)))

static inline void cleanup_fd_(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	errno = saved;
}

static inline void cleanup_free_(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_file_(FILE **f)
{
	int saved = errno;

	if (*f)
		(void)fclose(*f);
	errno = saved;
}

static inline void cleanup_dir_(DIR **d)
{
	int saved = errno;

	if (*d)
		(void)closedir(*d);
	errno = saved;
}

#define CLEANUP_FD   CLEANUP(cleanup_fd_)
#define CLEANUP_FREE CLEANUP(cleanup_free_)
#define CLEANUP_FILE CLEANUP(cleanup_file_)
#define CLEANUP_DIR  CLEANUP(cleanup_dir_)

/* Hands a descriptor on: the scope no longer owns it. */
static inline int fd_take(int *fd)
{
	int ret = *fd;

	*fd = -1;
	return ret;
}

/* Hands an allocation on: p = ptr_take(&scoped). */
#define ptr_take(pp)                                                                               \
	({                                                                                         \
		__auto_type taken_ = *(pp);                                                        \
		*(pp) = NULL;                                                                      \
		taken_;                                                                            \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
