/* SPDX-License-Identifier: BSD-2-Clause */
/* A process's memory against the newest state of a chain. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* pid: the first process of the tree, which rests. Prints what differs, and adds to *ret_pages how
 * many pages were compared. What cannot be read ends the program. */
bool compare_newest(const char *chain, pid_t pid, unsigned long *ret_pages);
