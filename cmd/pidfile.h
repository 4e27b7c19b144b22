/* SPDX-License-Identifier: BSD-2-Clause */
/* --pidfile of ckpt-restart: opened before anything is made, so that it does not fail afterwards.
 */
#pragma once

#include "util/err.h"

#include <sys/types.h>

/* path NULL: none is wanted, and *ret_fd is left as it is. */
int pidfile_open(const char *path, int *ret_fd, struct err *err);
/* fd -1: none is wanted. */
int pidfile_write(int fd, const char *path, pid_t pid, struct err *err);
