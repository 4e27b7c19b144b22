/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside the image reader: its source of bytes, and what it knows of the file once that is open. */
#pragma once

#include "image/reader.h"

#include <stdbool.h>
#include <stddef.h>

struct section {
	uint32_t type;
	uint16_t version, flags;
	uint64_t offset, len, sum;
};

struct block_where {
	uint64_t offset, sum;
	uint64_t first; /* stored pages in the blocks before it */
	uint32_t stored;
	uint16_t npages;
	uint8_t codec;
};

struct image_reader {
	int fd;     /* -1: in memory */
	int direct; /* the same file with O_DIRECT, or -1 */
	const uint8_t *mem;
	uint64_t size;
	char *name;
	struct image_info info;

	struct section *sections; /* ascending by offset */
	unsigned n_sections;
	uint64_t dir_offset;

	struct block_where *blocks;
	uint64_t stored_pages; /* in all blocks */
	uint64_t blocks_end;   /* where the last block ends, or the header */
	struct page_run *runs;
	uint8_t *tree;
	size_t tree_len;
	uint64_t tree_offset;
};

/* Exactly len bytes at off, or an error that says the image is truncated. */
int reader_read(const struct image_reader *r, uint64_t off, void *buf, size_t len, struct err *err);
/* "image 'NAME': WHAT at offset N is damaged (WHY)". */
int reader_damaged(const struct image_reader *r, const char *what, uint64_t off, const char *why,
		   struct err *err);
/* Whether the checksum of the bytes is as said; always true in a fuzzing build, which must get past
 * it. */
bool reader_sum_ok(const void *p, size_t len, uint64_t sum);
/* The bytes from..to are padding: fewer than IMAGE_MAX_GAP, and zero. */
int reader_check_gap(const struct image_reader *r, uint64_t from, uint64_t to, struct err *err);

/* Reads the directory at [off, off + len) and all sections that are known. */
int reader_load_sections(struct image_reader *r, uint64_t off, uint64_t len, uint64_t sum,
			 struct err *err);
/* Reads and checks again what no other part of a verification touches: padding, sections that are
 * not known. */
int reader_verify_sections(const struct image_reader *r, struct err *err);
