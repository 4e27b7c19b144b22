/* SPDX-License-Identifier: BSD-2-Clause */
/* Duplicates of a stopped process's descriptors where pidfd_getfd(2) is not allowed. */
#pragma once

#include "inject/remote.h"

struct fetcher;

/* The process that runs b's calls must have a descriptor to spare until fetch_end. number: the
 * lowest that it has not. */
int fetch_begin(struct batch *b, pid_t pid, int number, struct fetcher **ret, struct err *err);
/* A descriptor of our own for the same description, close-on-exec. */
int fetch_one(struct fetcher *f, int fd, int *ret, struct err *err);
/* NULL is fine. */
int fetch_end(struct fetcher *f, struct err *err);
