/* SPDX-License-Identifier: BSD-2-Clause */
/* The reader's blocks: where they lie, reading one or many, and the verification of the whole file.
 */
#include "image/reader_int.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <lz4.h>
#include <string.h>
#include <sys/uio.h>

#define BLOCK_BYTES  ((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE)
#define DIRECT_ALIGN ((uint64_t)4096)

/* --- where pages lie ----------------------------------------------------------------------------
 */

const struct page_run *image_reader_runs(const struct image_reader *r, unsigned *ret_n)
{
	*ret_n = r->runs ? r->info.n_runs : 0;
	return r->runs;
}

unsigned image_reader_block_pages(const struct image_reader *r, uint32_t block)
{
	return r->blocks[block].npages;
}

void image_reader_block_where(const struct image_reader *r, uint32_t block, uint64_t *ret_offset,
			      uint32_t *ret_stored, enum block_codec *ret_codec)
{
	*ret_offset = r->blocks[block].offset;
	*ret_stored = r->blocks[block].stored;
	*ret_codec = (enum block_codec)r->blocks[block].codec;
}

void image_reader_seek(const struct image_reader *r, const struct page_run *run, uint64_t skip,
		       uint32_t *ret_block, uint32_t *ret_block_page)
{
	uint64_t ordinal = r->blocks[run->block].first + run->block_page + skip;
	uint32_t lo = run->block, hi = r->info.n_blocks;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (r->blocks[mid].first <= ordinal)
			lo = mid;
		else
			hi = mid;
	}
	*ret_block = lo;
	*ret_block_page = (uint32_t)(ordinal - r->blocks[lo].first);
}

/* --- reading -------------------------------------------------------------------------------------
 */

static int block_damaged(const struct image_reader *r, uint32_t block, const char *why,
			 struct err *err)
{
	char what[32];

	(void)snprintf(what, sizeof what, "block %u", block);
	return reader_damaged(r, what, r->blocks[block].offset, why, err);
}

/* The block's stored bytes are at hand: checks them, and brings its pages to buf (which may be
 * where they are). */
static int unpack(const struct image_reader *r, uint32_t block, const void *stored, void *buf,
		  struct err *err)
{
	const struct block_where *b = &r->blocks[block];
	int raw = (int)(b->npages * CKPT_PAGE_SIZE);

	if (!reader_sum_ok(stored, b->stored, b->sum))
		return block_damaged(r, block, "checksum", err);
	if (b->codec == BLOCK_RAW) {
		if (stored != buf)
			memcpy(buf, stored, b->stored);
		return 0;
	}
	if (LZ4_decompress_safe(stored, buf, (int)b->stored, raw) != raw)
		return block_damaged(r, block, "does not decompress", err);
	return 0;
}

int image_reader_block(const struct image_reader *r, uint32_t block, void *buf, void *scratch,
		       struct err *err)
{
	void *stored;
	int rc;

	if (block >= r->info.n_blocks)
		return err_image(err, -EBADMSG, "image '%s' has no block %u", r->name, block);
	stored = r->blocks[block].codec == BLOCK_RAW ? buf : scratch;
	rc = reader_read(r, r->blocks[block].offset, stored, r->blocks[block].stored, err);
	return rc < 0 ? rc : unpack(r, block, stored, buf, err);
}

void image_reader_direct(struct image_reader *r)
{
	char path[64];

	if (r->fd < 0 || r->direct >= 0)
		return;
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", r->fd);
	r->direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

/* What the page cache holds is there at once; what it does not, is not read through it. */
static bool read_cached(const struct image_reader *r, uint64_t from, uint64_t to, uint8_t *scratch)
{
	struct iovec iov = { .iov_base = scratch, .iov_len = (size_t)(to - from) };

	return preadv2(r->fd, &iov, 1, (off_t)from, RWF_NOWAIT) == (ssize_t)(to - from);
}

/* Bytes [from, to), of which the first is at the returned address; NULL with err set. */
static const uint8_t *read_range(const struct image_reader *r, uint64_t from, uint64_t to,
				 uint8_t *scratch, struct err *err)
{
	uint64_t start = from & ~(DIRECT_ALIGN - 1),
		 end = (to + DIRECT_ALIGN - 1) & ~(DIRECT_ALIGN - 1);

	if (to > r->size) /* reader_read says so */
		start = end = to;
	if (r->direct >= 0 && start < end && read_cached(r, from, to, scratch))
		return scratch;
	if (r->direct >= 0 && start < end &&
	    io_pread_full(r->direct, scratch, (size_t)(end - start), start) >=
		    (ssize_t)(to - start))
		return scratch + (from - start);
	return reader_read(r, from, scratch, (size_t)(to - from), err) < 0 ? NULL : scratch;
}

int image_reader_blocks(const struct image_reader *r, uint32_t first, uint32_t n, void *buf,
			void *scratch, struct err *err)
{
	const struct block_where *last;
	const uint8_t *bytes;
	uint64_t from;

	if (!n || n > IMAGE_BULK_BLOCKS || first >= r->info.n_blocks ||
	    n > r->info.n_blocks - first)
		return err_image(err, -EBADMSG, "image '%s' has no blocks %u+%u", r->name, first,
				 n);
	last = &r->blocks[first + n - 1];
	from = r->blocks[first].offset;
	/* gaps are shorter than a page, and only before raw blocks: the scratch's extra block holds
	 * them all */
	bytes = read_range(r, from, last->offset + last->stored, scratch, err);
	if (!bytes)
		return err ? err->code : -EIO;
	for (uint32_t i = 0; i < n; i++) {
		int rc = unpack(r, first + i, bytes + (r->blocks[first + i].offset - from),
				(uint8_t *)buf + i * BLOCK_BYTES, err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

/* --- verification --------------------------------------------------------------------------------
 */

static int verify_blocks(struct image_reader *r, void (*progress)(void *, uint64_t, uint64_t),
			 void *arg, struct err *err)
{
	uint32_t bulk = MIN(r->info.n_blocks, IMAGE_BULK_BLOCKS);
	CLEANUP_FREE uint8_t *mem = NULL;
	CLEANUP_FREE uint8_t *scratch = NULL;
	uint64_t end = IMAGE_HEADER_BYTES;

	/* no more than a small image needs: inspection and fuzzing open many of these */
	mem = malloc(MAX(bulk, 1u) * BLOCK_BYTES);
	scratch = aligned_alloc(DIRECT_ALIGN, bulk == IMAGE_BULK_BLOCKS
						      ? IMAGE_BULK_SCRATCH
						      : (r->blocks_end | (DIRECT_ALIGN - 1)) + 1);
	if (!mem || !scratch)
		return err_nomem(err);
	for (uint32_t i = 0; i < r->info.n_blocks;) {
		uint32_t n = MIN(r->info.n_blocks - i, bulk);
		int rc = image_reader_blocks(r, i, n, mem, scratch, err);

		for (; rc == 0 && n; n--, i++) {
			rc = reader_check_gap(r, end, r->blocks[i].offset, err);
			end = r->blocks[i].offset + r->blocks[i].stored;
		}
		if (rc < 0)
			return rc;
		if (progress)
			progress(arg, end, r->size);
	}
	return 0;
}

int image_reader_verify(struct image_reader *r,
			void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
			struct err *err)
{
	struct arena *arena = arena_new();
	struct tree *tree;
	int rc;

	if (!arena)
		return err_nomem(err);
	rc = image_reader_tree(r, arena, &tree, err);
	arena_free(arena);
	if (rc == 0)
		rc = verify_blocks(r, progress, arg, err);
	if (rc == 0)
		rc = reader_verify_sections(r, err);
	if (rc == 0 && progress)
		progress(arg, r->size, r->size);
	return rc;
}
