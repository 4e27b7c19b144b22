/* SPDX-License-Identifier: BSD-2-Clause */
/* Filters for a job: system calls that it is to do without. */
#pragma once

#include "util/err.h"

/*
 * io_uring_setup(2) and its like fail with ENOSYS from here on, as if the kernel did not have them,
 * for this process and all that it starts. Sets no_new_privs. Single-threaded callers only.
 */
int deny_io_uring(struct err *err);
