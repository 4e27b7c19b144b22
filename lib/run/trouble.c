/* SPDX-License-Identifier: BSD-2-Clause */
/* Remembers which troubles were told already, so that a failure that repeats every interval is told
 * once. */
#include "run/trouble.h"

#include "util/hash.h"

#include <string.h>

bool trouble_is_new(struct trouble *t, const char *msg)
{
	uint64_t hash = hash64(msg, strlen(msg));

	for (unsigned i = 0; i < t->n && i < TROUBLE_MAX; i++)
		if (t->hashes[i] == hash)
			return false;
	t->hashes[t->n % TROUBLE_MAX] = hash;
	/* n counts on past the size of the ring, by whole turns once it is full */
	t->n = t->n + 1 < 2 * TROUBLE_MAX ? t->n + 1 : TROUBLE_MAX;
	return true;
}

void trouble_forget(struct trouble *t)
{
	t->n = 0;
}
