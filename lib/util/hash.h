/* SPDX-License-Identifier: BSD-2-Clause */
/* XXH3: 64 bits to find damage, 128 bits to tell pages apart. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct hash128 {
	uint64_t lo, hi;
};

uint64_t hash64(const void *p, size_t len);
/* Chained: hash64_more(hash64(a), b) covers a and b in order. */
uint64_t hash64_more(uint64_t seed, const void *p, size_t len);
/* hash64 of what comes in pieces. NULL: out of memory. hash64_end frees; NULL is fine, and gives 0.
 */
struct hash64;
struct hash64 *hash64_begin(void);
void hash64_add(struct hash64 *h, const void *p, size_t len);
uint64_t hash64_end(struct hash64 *h);
struct hash128 hash128(const void *p, size_t len);
