/* SPDX-License-Identifier: BSD-2-Clause */
/* The descriptors of ckpt-restart that the job is given. */
#pragma once

#include "state/tree.h"
#include "util/err.h"

#include <stdint.h>

struct inherit {
	int *fds; /* malloc'ed, the caller's to make and to free */
	unsigned n;
	uint64_t open_at_start[16]; /* as bits: what a caller may have meant for the job */
};

/* Before we open any of our own. */
void inherit_note_open(struct inherit *h);
/* ckpt-run --fd N=inherit: as if --inherit N were given here. -EBADF: N is not open. */
int inherit_by_rule(struct inherit *h, const struct settings *s, struct err *err);
