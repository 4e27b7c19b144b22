/* SPDX-License-Identifier: BSD-2-Clause */
/* A dump that does as it is told, in place of the real one. */
#pragma once

#include "dump/dump.h"

enum { FAKE_STEPS = 16 };

/*
 * What the attempts do, one after the other (the last one goes on). rc 0 writes a small image into
 * the chain, of the kind that full_every and the like ask for.
 */
struct fake {
	int n_steps;
	int rc[FAKE_STEPS];
	const char *msg; /* of failures; NULL: "made to fail" */
	int report_fd;   /* -1, or gets one byte as an attempt begins: 'a', or 'k' with DUMP_KILL */
	int hold_fd;     /* -1, or an attempt ends only when a byte can be read here */
	unsigned attempts;
	bool want_full;
	struct id128 last;
	unsigned since_full;
};

extern struct fake fake;

/* Writes image `name` (full if parent is zero) of a little tree with one page of memory. */
int fake_image(int dirfd, const char *name, uint64_t seq, struct id128 state, struct id128 parent,
	       const struct settings *settings, struct err *err);
