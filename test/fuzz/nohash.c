/* SPDX-License-Identifier: BSD-2-Clause */
/* A hash that is always 0, linked in place of util/hash.c: otherwise no mutated image gets past its
 * checksums. */
#include "util/hash.h"

#include <stdlib.h>

uint64_t hash64(const void *p, size_t len)
{
	(void)p;
	(void)len;
	return 0;
}

uint64_t hash64_more(uint64_t seed, const void *p, size_t len)
{
	(void)seed;
	return hash64(p, len);
}

struct hash64 *hash64_begin(void)
{
	return malloc(1);
}

void hash64_add(struct hash64 *h, const void *p, size_t len)
{
	(void)h;
	(void)p;
	(void)len;
}

uint64_t hash64_end(struct hash64 *h)
{
	free(h);
	return 0;
}

struct hash128 hash128(const void *p, size_t len)
{
	return (struct hash128){ hash64(p, len), 0 };
}
