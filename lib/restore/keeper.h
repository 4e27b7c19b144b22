/* SPDX-License-Identifier: BSD-2-Clause */
/* The processes that stay while a job's memory comes. */
#pragma once

#include "restore/internal.h"

/* In a process that is to stay: it holds no one's output open, and is called something else. */
void keeper_withdraw(const char *name);

struct guard {
	pid_t pid;
	int fd;
};

/* Holds the userfaultfds (those that are not -1) for as long as any process lives, or until
 * guard_end. */
int guard_start(struct guard *g, const struct restoring *r, const int *uffds, unsigned n,
		struct err *err);
void guard_end(struct guard *g);
