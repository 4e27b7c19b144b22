/* SPDX-License-Identifier: BSD-2-Clause */
/* XXH3 through libxxhash. */
#include "util/hash.h"

#include <xxhash.h>

uint64_t hash64(const void *p, size_t len)
{
	return XXH3_64bits(p, len);
}

uint64_t hash64_more(uint64_t seed, const void *p, size_t len)
{
	return XXH3_64bits_withSeed(p, len, seed);
}

struct hash64 *hash64_begin(void)
{
	XXH3_state_t *state = XXH3_createState();

	if (state)
		(void)XXH3_64bits_reset(state);
	return (struct hash64 *)state;
}

void hash64_add(struct hash64 *h, const void *p, size_t len)
{
	(void)XXH3_64bits_update((XXH3_state_t *)h, p, len);
}

uint64_t hash64_end(struct hash64 *h)
{
	uint64_t sum = h ? XXH3_64bits_digest((XXH3_state_t *)h) : 0;

	(void)XXH3_freeState((XXH3_state_t *)h);
	return sum;
}

struct hash128 hash128(const void *p, size_t len)
{
	XXH128_hash_t h = XXH3_128bits(p, len);

	return (struct hash128){ .lo = h.low64, .hi = h.high64 };
}
