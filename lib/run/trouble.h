/* SPDX-License-Identifier: BSD-2-Clause */
/* Remembers which troubles were told already, so that a failure that repeats every interval is told
 * once. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { TROUBLE_MAX = 16 };

/* Zeroed is empty. The oldest is forgotten when there are too many. */
struct trouble {
	uint64_t hashes[TROUBLE_MAX];
	unsigned n;
};

/* True the first time that it is asked about this message. */
bool trouble_is_new(struct trouble *t, const char *msg);
/* All went well: should the trouble come back, that is news again. */
void trouble_forget(struct trouble *t);
