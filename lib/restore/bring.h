/* SPDX-License-Identifier: BSD-2-Clause */
/* What a system call is about to touch, brought. */
#pragma once

#include "restore/calls.h"
#include "restore/demand.h"

/* Of the memory (demand_of) of a process. 1: what it touches is not known, or not to be had before
 * all is there. */
int calls_bring(struct demand *d, unsigned memory, pid_t pid, const struct call *c,
		struct err *err);
