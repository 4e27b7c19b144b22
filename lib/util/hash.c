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

struct hash128 hash128(const void *p, size_t len)
{
	XXH128_hash_t h = XXH3_128bits(p, len);

	return (struct hash128){ .lo = h.low64, .hi = h.high64 };
}
