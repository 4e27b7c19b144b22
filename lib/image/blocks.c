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
static bool read_cached(const struct image_reader *r, const struct block_where *b, void *scratch)
{
	struct iovec iov = { .iov_base = scratch, .iov_len = b->stored };

	return preadv2(r->fd, &iov, 1, (off_t)b->offset, RWF_NOWAIT) == (ssize_t)b->stored;
}

/* The blocks' stored bytes from `first` to `last`, with one read around the page cache; NULL: it
 * could not. */
static const uint8_t *read_around(const struct image_reader *r, const struct block_where *first,
				  const struct block_where *last, uint8_t *scratch)
{
	const uint64_t mask = DIRECT_ALIGN - 1;
	uint64_t from = first->offset, to = last->offset + last->stored, start = from & ~mask;

	if (to > r->size) /* reader_read says so */
		return NULL;
	if (io_pread_full(r->direct, scratch, (size_t)(((to + mask) & ~mask) - start), start) <
	    (ssize_t)(to - start))
		return NULL;
	return scratch + (from - start);
}

/*
 * Block by block where the page cache has them, so that the data stays in the CPU's own cache on
 * its way; where it has not, all the rest at once.
 */
int image_reader_each(const struct image_reader *r, uint32_t first, uint32_t n, void *scratch,
		      void *pages, image_block_fn *use, void *arg, struct err *err)
{
	const struct block_where *b, *last, *bulk_at = NULL;
	const uint8_t *bulk = NULL;

	if (!n || n > IMAGE_BULK_BLOCKS || first >= r->info.n_blocks ||
	    n > r->info.n_blocks - first)
		return err_image(err, -EBADMSG, "image '%s' has no blocks %u+%u", r->name, first,
				 n);
	b = &r->blocks[first];
	last = b + n - 1;
	for (; b <= last; b++, first++) {
		const uint8_t *stored = scratch;
		bool raw = b->codec == BLOCK_RAW;
		int rc = 0;

		if (!bulk && r->direct >= 0 && !read_cached(r, b, scratch)) {
			bulk = read_around(r, b, last, scratch);
			bulk_at = b;
		}
		if (bulk)
			stored = bulk + (b->offset - bulk_at->offset);
		else if (r->direct < 0 || bulk_at)
			rc = reader_read(r, b->offset, scratch, b->stored, err);
		/* raw pages are handed on where they are */
		if (rc == 0)
			rc = unpack(r, first, stored, raw ? (void *)(uintptr_t)stored : pages, err);
		if (rc == 0)
			rc = use(arg, first, raw ? stored : pages, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static bool in_window(const struct image_window *w, const struct image_reader *r, uint32_t block)
{
	return w->bytes && w->of == r && block >= w->first && block - w->first < w->n;
}

int image_reader_stored(const struct image_reader *r, uint32_t block, uint32_t ahead,
			struct image_window *w, void *dst, struct err *err)
{
	const struct block_where *b = &r->blocks[block];

	if (!in_window(w, r, block) && r->direct >= 0 && read_cached(r, b, dst))
		return 0;
	if (!in_window(w, r, block) && r->direct >= 0) {
		w->of = r;
		w->first = block;
		w->n = MIN(MAX(ahead, 1u), MIN(IMAGE_BULK_BLOCKS, r->info.n_blocks - block));
		w->bytes = read_around(r, b, b + w->n - 1, w->scratch);
	}
	if (!in_window(w, r, block))
		return reader_read(r, b->offset, dst, b->stored, err);
	memcpy(dst, w->bytes + (b->offset - r->blocks[w->first].offset), b->stored);
	return 0;
}

uint64_t image_reader_block_sum(const struct image_reader *r, uint32_t block)
{
	return r->blocks[block].sum;
}

int image_reader_block_damaged(const struct image_reader *r, uint32_t block, struct err *err)
{
	return block_damaged(r, block, "checksum", err);
}

/* --- verification --------------------------------------------------------------------------------
 */

struct verifier {
	const struct image_reader *r;
	void (*progress)(void *, uint64_t, uint64_t);
	void *arg;
	uint64_t end;
};

static int verify_block(void *arg, uint32_t block, const uint8_t *pages, struct err *err)
{
	struct verifier *v = arg;
	const struct block_where *b = &v->r->blocks[block];
	int rc = reader_check_gap(v->r, v->end, b->offset, err);

	(void)pages;
	v->end = b->offset + b->stored;
	if (rc == 0 && v->progress && block % IMAGE_BULK_BLOCKS == 0)
		v->progress(v->arg, v->end, v->r->size);
	return rc;
}

static int verify_blocks(struct image_reader *r, void (*progress)(void *, uint64_t, uint64_t),
			 void *arg, struct err *err)
{
	struct verifier v = { r, progress, arg, IMAGE_HEADER_BYTES };
	CLEANUP_FREE uint8_t *pages = NULL;
	CLEANUP_FREE uint8_t *scratch = NULL;
	int rc;

	/* no more than a small image needs: inspection and fuzzing open many of these */
	pages = malloc(r->info.n_blocks ? BLOCK_BYTES : 1);
	scratch = aligned_alloc(DIRECT_ALIGN,
				MIN((r->blocks_end | (DIRECT_ALIGN - 1)) + 1, IMAGE_BULK_SCRATCH));
	rc = pages && scratch ? 0 : err_nomem(err);

	for (uint32_t i = 0, n; rc == 0 && i < r->info.n_blocks; i += n) {
		n = MIN(r->info.n_blocks - i, IMAGE_BULK_BLOCKS);
		rc = image_reader_each(r, i, n, scratch, pages, verify_block, &v, err);
	}
	return rc;
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
