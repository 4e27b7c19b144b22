/* SPDX-License-Identifier: BSD-2-Clause */
/* The processes that stay while a job's memory comes. */
#pragma once

#include "restore/internal.h"

/* In a process that is to stay: it holds no one's output open, and is called something else. */
void keeper_withdraw(const char *name);

/* Holds the userfaultfds (those that are not -1) for as long as any process lives, or until
 * guard_end. Should we be killed before that, it says so when the job is gone. */
int guard_start(struct guard *g, const struct restoring *r, const int *uffds, unsigned n,
		struct err *err);
void guard_end(struct guard *g);
