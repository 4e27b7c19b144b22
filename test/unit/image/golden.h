/* SPDX-License-Identifier: BSD-2-Clause */
/* Images that must be refused: each is the golden one with one thing wrong. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Places in the golden image. */
struct layout {
	uint8_t *img;
	size_t len;
	uint8_t *trailer, *dir, *tree, *blocks, *runs;
};

struct bad_image {
	const char *name;
	void (*tamper)(struct layout *l);
	bool fix;    /* checksums are made good again: a hostile file, not a damaged one */
	bool opens;  /* found by reading the tree and the blocks only */
	bool stored; /* a file in the tree, for others to try their readers on; the rest is made on
			the spot */
	const char *msg;
};

extern const struct bad_image bad_images[];
extern const unsigned n_bad_images;

/* The i-th of them, made from the golden one; `to` has room for a few bytes more than that. */
void bad_image_make(unsigned i, const uint8_t *golden, size_t len, uint8_t *to, size_t *ret_len);
