/* SPDX-License-Identifier: BSD-2-Clause */
/* --pid: a running process that we did not start: may we, and what is it called? */
#pragma once

#include "state/tree.h"
#include "util/arena.h"
#include "util/err.h"

#include <sys/types.h>

/*
 * Checks that the process is there, may be traced by us, and is not one that we depend on
 * ourselves; opens a pidfd of it. Nothing is done to the process.
 */
int attach_check(pid_t pid, int *ret_pidfd, struct err *err);
/* Its program's base name and arguments, for the chain's name and the settings. */
int attach_describe(pid_t pid, struct arena *a, struct settings *settings, struct err *err);
