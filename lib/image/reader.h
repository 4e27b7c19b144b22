/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads one image; trusts nothing in it. */
#pragma once

#include "image/format.h"
#include "state/tree.h"
#include "util/arena.h"
#include "util/err.h"

struct image_reader;

struct image_info {
	uint32_t version, arch;
	struct id128 state, parent; /* parent all zero: full */
	uint64_t seq;
	uint64_t file_bytes;
	uint32_t n_blocks;
	unsigned n_runs;
};

/*
 * Opens path (relative to dirfd; O_NOFOLLOW, regular files only), checks magic, version,
 * architecture, directory and all section checksums. Errors name the file, section and offset, and
 * carry EXIT_BAD_IMAGE.
 */
int image_reader_open(int dirfd, const char *path, struct image_reader **ret, struct err *err);
/* name: what it is called in messages. */
int image_reader_open_as(int dirfd, const char *path, const char *name, struct image_reader **ret,
			 struct err *err);
/* The same from an open descriptor (taken over on success) or, for fuzzing, memory (borrowed). */
int image_reader_open_fd(int fd, const char *name, struct image_reader **ret, struct err *err);
int image_reader_open_mem(const void *data, size_t len, struct image_reader **ret, struct err *err);
/* Only the header: version, arch, ids, number and file size of *ret are set. */
int image_reader_peek(int dirfd, const char *path, struct image_info *ret, struct err *err);
void image_reader_free(struct image_reader *r);

const struct image_info *image_reader_info(const struct image_reader *r);
const char *image_reader_name(const struct image_reader *r);
int image_reader_fd(const struct image_reader *r);
/* Decodes the tree into the arena; checks its invariants (ids resolve, ranges ordered, counts
 * sane). */
int image_reader_tree(struct image_reader *r, struct arena *arena, struct tree **ret,
		      struct err *err);
/* The runs, sorted by (space, page), not overlapping, blocks in range: valid as long as the reader.
 */
const struct page_run *image_reader_runs(const struct image_reader *r, unsigned *ret_n);
/* Number of pages in a block. */
unsigned image_reader_block_pages(const struct image_reader *r, uint32_t block);
/*
 * Reads and decompresses one block, checking its checksum. buf has room for IMAGE_BLOCK_PAGES
 * pages. Thread-safe (pread; scratch is the caller's: IMAGE_BLOCK_SCRATCH bytes).
 */
#define IMAGE_BLOCK_SCRATCH (IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE + 65536)
int image_reader_block(const struct image_reader *r, uint32_t block, void *buf, void *scratch,
		       struct err *err);
/* File offset, stored bytes and codec of a block (for reading raw pages in place). */
void image_reader_block_where(const struct image_reader *r, uint32_t block, uint64_t *ret_offset,
			      uint32_t *ret_stored, enum block_codec *ret_codec);

/*
 * Reads blocks [first, first + n), n <= IMAGE_BULK_BLOCKS, checks and decompresses each, and hands
 * its pages to use(), which must be done with them when it returns. What is not in the page cache
 * is read all at once, several times as fast as block by block. scratch: IMAGE_BULK_SCRATCH bytes,
 * page-aligned; pages: IMAGE_BLOCK_PAGES pages. Thread-safe.
 */
#define IMAGE_BULK_BLOCKS  16u
#define IMAGE_BULK_SCRATCH ((IMAGE_BULK_BLOCKS + 1) * IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE)
typedef int image_block_fn(void *arg, uint32_t block, const uint8_t *pages, struct err *err);
int image_reader_each(const struct image_reader *r, uint32_t first, uint32_t n, void *scratch,
		      void *pages, image_block_fn *use, void *arg, struct err *err);
/*
 * The block's stored bytes, unchecked, to dst; ahead: so many blocks from it on will be asked for,
 * in order. Reads as image_reader_each does.
 */
struct image_window {
	const struct image_reader *of;
	uint32_t first, n;
	const uint8_t *bytes;
	uint8_t *scratch; /* IMAGE_BULK_SCRATCH bytes, page-aligned */
};
int image_reader_stored(const struct image_reader *r, uint32_t block, uint32_t ahead,
			struct image_window *win, void *dst, struct err *err);
/* The checksum of the block's stored bytes. */
uint64_t image_reader_block_sum(const struct image_reader *r, uint32_t block);
/* The error for a block whose stored bytes do not have it. */
int image_reader_block_damaged(const struct image_reader *r, uint32_t block, struct err *err);
/*
 * Lets image_reader_each read around the page cache, as images are written, where the file system
 * can do that. Opens the file a second time: before threads and sandboxes.
 */
void image_reader_direct(struct image_reader *r);
/*
 * Where page run->page + skip of a RUN_HERE run lies (skip < run->npages), without walking the
 * blocks.
 */
void image_reader_seek(const struct image_reader *r, const struct page_run *run, uint64_t skip,
		       uint32_t *ret_block, uint32_t *ret_block_page);

/*
 * Reads every byte and checks it: blocks (that they decompress, too), padding, sections, the tree's
 * invariants. progress (may be NULL) is told bytes done and bytes in all, now and then.
 */
int image_reader_verify(struct image_reader *r,
			void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
			struct err *err);
