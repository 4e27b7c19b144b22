/* SPDX-License-Identifier: BSD-2-Clause */
/* The reader's way from the directory to the sections: the block index and the runs, checked entry
 * by entry. */
#include "image/reader_int.h"

#include "util/bytes.h"
#include "util/cleanup.h"

#include <string.h>

/* More than any real job needs; what a hostile file can make us allocate. */
#define MAX_TREE_BYTES ((uint64_t)1 << 30)
#define MAX_BLOCKS     ((uint64_t)1 << 27)
#define MAX_RUNS       ((uint64_t)1 << 27)
#define READ_CHUNK     (1u << 20)

static const struct id128 none;

static const char *section_name(uint32_t type, char buf[static 32])
{
	static const char *const names[] = {
		[SECTION_TREE] = "section 'tree'",
		[SECTION_BLOCKS] = "section 'blocks'",
		[SECTION_RUNS] = "section 'runs'",
	};

	if (type && type < ARRAY_SIZE(names))
		return names[type];
	(void)snprintf(buf, 32, "section %u", type);
	return buf;
}

static int section_damaged(const struct image_reader *r, const struct section *s, const char *why,
			   struct err *err)
{
	char buf[32];

	return reader_damaged(r, section_name(s->type, buf), s->offset, why, err);
}

/* An index of zeros only is a hole in a file that pretends to be big. */
static bool all_zero(const uint8_t *p, size_t len)
{
	return len && !p[0] && !memcmp(p, p + 1, len - 1);
}

/* Reads a section into fresh memory and checks its sum. max bounds what is allocated. */
static int load(const struct image_reader *r, const struct section *s, uint64_t max, uint8_t **ret,
		struct err *err)
{
	CLEANUP_FREE uint8_t *p = NULL;

	if (s->len > max)
		return section_damaged(r, s, "longer than any real one", err);
	p = malloc(MAX((size_t)s->len, 1u));
	if (!p)
		return err_nomem(err);
	for (uint64_t at = 0; at < s->len; at += READ_CHUNK) {
		size_t part = (size_t)MIN(s->len - at, (uint64_t)READ_CHUNK);
		int rc = reader_read(r, s->offset + at, p + at, part, err);

		if (rc < 0)
			return rc;
		if (part == READ_CHUNK && (s->type == SECTION_BLOCKS || s->type == SECTION_RUNS) &&
		    all_zero(p + at, part))
			return section_damaged(r, s, "a megabyte of zeros", err);
	}
	if (!reader_sum_ok(p, (size_t)s->len, s->sum))
		return section_damaged(r, s, "checksum", err);
	*ret = ptr_take(&p);
	return 0;
}

/* --- blocks --------------------------------------------------------------------------------------
 */

static const char *block_fault(const struct block_where *b, uint64_t end, uint64_t limit)
{
	uint64_t raw = (uint64_t)b->npages * CKPT_PAGE_SIZE;

	if (!b->npages || b->npages > IMAGE_BLOCK_PAGES)
		return "block with a bad page count";
	if (b->codec != BLOCK_RAW && b->codec != BLOCK_LZ4)
		return "block with an unknown codec";
	if (b->codec == BLOCK_RAW && (b->stored != raw || b->offset % IMAGE_RAW_ALIGN))
		return "raw block with a bad size or alignment";
	if (b->codec == BLOCK_LZ4 && (!b->stored || b->stored >= raw))
		return "compressed block with a bad size";
	if (b->offset < end || b->offset - end >= IMAGE_MAX_GAP)
		return "block out of order";
	if (b->offset > limit || b->stored > limit - b->offset)
		return "block outside of the file";
	return NULL;
}

static int load_blocks(struct image_reader *r, const struct section *s, struct err *err)
{
	CLEANUP_FREE uint8_t *raw = NULL;
	uint64_t n = s->len / IMAGE_BLOCK_ENTRY_BYTES, limit = r->sections[0].offset;
	int rc = load(r, s, MAX_BLOCKS * IMAGE_BLOCK_ENTRY_BYTES, &raw, err);

	if (rc < 0)
		return rc;
	if (s->len % IMAGE_BLOCK_ENTRY_BYTES)
		return section_damaged(r, s, "not a whole number of entries", err);
	r->blocks = calloc(MAX((size_t)n, 1u), sizeof *r->blocks);
	if (!r->blocks)
		return err_nomem(err);
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *p = raw + i * IMAGE_BLOCK_ENTRY_BYTES;
		struct block_where *b = &r->blocks[i];
		const char *fault;

		b->offset = get_le64(p);
		b->stored = get_le32(p + 8);
		b->npages = get_le16(p + 12);
		b->codec = p[14];
		b->sum = get_le64(p + 16);
		b->first = r->stored_pages;
		fault = p[15] ? "reserved byte is not zero" : block_fault(b, r->blocks_end, limit);
		if (fault)
			return section_damaged(r, s, fault, err);
		r->stored_pages += b->npages;
		r->blocks_end = b->offset + b->stored;
	}
	r->info.n_blocks = (uint32_t)n;
	return 0;
}

/* --- runs ----------------------------------------------------------------------------------------
 */

static const char *run_fault(const struct image_reader *r, const struct page_run *run,
			     const struct page_run *prev)
{
	if (run->kind < RUN_HERE || run->kind > RUN_PARENT)
		return "run of an unknown kind";
	if (!run->space || !run->npages || run->page >= IMAGE_MAX_PAGE ||
	    run->npages > IMAGE_MAX_PAGE - run->page)
		return "run with a bad page range";
	if (prev && (run->space < prev->space ||
		     (run->space == prev->space && run->page < prev->page + prev->npages)))
		return "run out of order";
	if (run->kind != RUN_HERE && (run->block || run->block_page))
		return "reserved bytes of a run are not zero";
	if (run->kind == RUN_PARENT && !memcmp(&r->info.parent, &none, sizeof none))
		return "run that refers to a parent in a full image";
	if (run->kind != RUN_HERE)
		return NULL;
	if (run->block >= r->info.n_blocks || run->block_page >= r->blocks[run->block].npages)
		return "run outside of the blocks";
	if (run->npages > r->stored_pages - r->blocks[run->block].first - run->block_page)
		return "run beyond the last block";
	return NULL;
}

_Static_assert(sizeof(struct page_run) == IMAGE_RUN_ENTRY_BYTES, "runs are decoded in place");

static int load_runs(struct image_reader *r, const struct section *s, struct err *err)
{
	uint8_t *raw;
	uint64_t n = s->len / IMAGE_RUN_ENTRY_BYTES;
	int rc = load(r, s, MAX_RUNS * IMAGE_RUN_ENTRY_BYTES, &raw, err);

	if (rc < 0)
		return rc;
	r->runs = (struct page_run *)(void *)raw;
	if (s->len % IMAGE_RUN_ENTRY_BYTES)
		return section_damaged(r, s, "not a whole number of entries", err);
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *p = raw + i * IMAGE_RUN_ENTRY_BYTES;
		const char *fault;
		struct page_run run = {
			.space = get_le32(p),
			.kind = get_le32(p + 4),
			.page = get_le64(p + 8),
			.npages = get_le64(p + 16),
			.block = get_le32(p + 24),
			.block_page = get_le32(p + 28),
		};

		r->runs[i] = run;
		fault = run_fault(r, &run, i ? &r->runs[i - 1] : NULL);
		if (fault)
			return section_damaged(r, s, fault, err);
	}
	r->info.n_runs = (unsigned)n;
	return 0;
}

/* --- the directory -------------------------------------------------------------------------------
 */

static int check_entry(const struct image_reader *r, unsigned i, uint64_t end, struct err *err)
{
	const struct section *s = &r->sections[i];
	char buf[32];

	if (s->flags & ~IMAGE_SECTION_REQUIRED)
		return reader_damaged(r, "directory", r->dir_offset, "reserved flag is set", err);
	if (s->offset % IMAGE_SECTION_ALIGN || s->offset < end || s->offset > r->dir_offset ||
	    s->len > r->dir_offset - s->offset)
		return reader_damaged(r, "directory", r->dir_offset, "section out of place", err);
	for (unsigned j = 0; j < i; j++)
		if (r->sections[j].type == s->type)
			return reader_damaged(r, "directory", r->dir_offset, "section occurs twice",
					      err);
	if (s->type >= SECTION_TREE && s->type <= SECTION_RUNS) {
		if (s->version == 1)
			return 0;
		return err_image(err, -EPROTONOSUPPORT,
				 "image '%s': %s has version %u, this program reads version 1",
				 r->name, section_name(s->type, buf), s->version);
	}
	if (s->flags & IMAGE_SECTION_REQUIRED)
		return err_image(
			err, -EPROTONOSUPPORT,
			"image '%s': %s is required to read it and not known to this program",
			r->name, section_name(s->type, buf));
	return 0;
}

static int load_directory(struct image_reader *r, uint64_t len, uint64_t sum, struct err *err)
{
	uint8_t raw[IMAGE_MAX_SECTIONS * IMAGE_DIR_ENTRY_BYTES];
	uint64_t end = IMAGE_HEADER_BYTES;
	int rc;

	if (!len || len > sizeof raw || len % IMAGE_DIR_ENTRY_BYTES)
		return reader_damaged(r, "directory", r->dir_offset, "bad length", err);
	rc = reader_read(r, r->dir_offset, raw, (size_t)len, err);
	if (rc < 0)
		return rc;
	if (!reader_sum_ok(raw, (size_t)len, sum))
		return reader_damaged(r, "directory", r->dir_offset, "checksum", err);
	r->n_sections = (unsigned)(len / IMAGE_DIR_ENTRY_BYTES);
	r->sections = calloc(r->n_sections, sizeof *r->sections);
	if (!r->sections)
		return err_nomem(err);
	for (unsigned i = 0; i < r->n_sections && rc == 0; i++) {
		const uint8_t *p = raw + (size_t)i * IMAGE_DIR_ENTRY_BYTES;

		r->sections[i] = (struct section){
			.type = get_le32(p),
			.version = get_le16(p + 4),
			.flags = get_le16(p + 6),
			.offset = get_le64(p + 8),
			.len = get_le64(p + 16),
			.sum = get_le64(p + 24),
		};
		rc = check_entry(r, i, end, err);
		end = r->sections[i].offset + r->sections[i].len;
	}
	return rc;
}

static int need(const struct image_reader *r, uint32_t type, const struct section **ret,
		struct err *err)
{
	char buf[32];

	for (unsigned i = 0; i < r->n_sections; i++)
		if (r->sections[i].type == type) {
			*ret = &r->sections[i];
			return 0;
		}
	return err_image(err, -EBADMSG, "image '%s': %s is missing", r->name,
			 section_name(type, buf));
}

int reader_load_sections(struct image_reader *r, uint64_t off, uint64_t len, uint64_t sum,
			 struct err *err)
{
	const struct section *tree = NULL, *blocks = NULL, *runs = NULL;
	int rc;

	r->dir_offset = off;
	r->blocks_end = IMAGE_HEADER_BYTES;
	rc = load_directory(r, len, sum, err);
	if (rc == 0)
		rc = need(r, SECTION_TREE, &tree, err);
	if (rc == 0)
		rc = need(r, SECTION_BLOCKS, &blocks, err);
	if (rc == 0)
		rc = need(r, SECTION_RUNS, &runs, err);
	if (rc == 0)
		rc = load_blocks(r, blocks, err);
	if (rc == 0)
		rc = load_runs(r, runs, err);
	if (rc == 0)
		rc = load(r, tree, MAX_TREE_BYTES, &r->tree, err);
	if (rc < 0)
		return rc;
	r->tree_len = (size_t)tree->len;
	r->tree_offset = tree->offset;
	if (r->sections[0].offset - r->blocks_end >= IMAGE_MAX_GAP)
		return reader_damaged(r, "space", r->blocks_end, "belongs to nothing", err);
	return 0;
}

int reader_verify_sections(const struct image_reader *r, struct err *err)
{
	uint64_t end = r->blocks_end;
	int rc = 0;

	for (unsigned i = 0; i < r->n_sections && rc == 0; i++) {
		CLEANUP_FREE uint8_t *p = NULL;

		rc = reader_check_gap(r, end, r->sections[i].offset, err);
		if (rc == 0)
			rc = load(r, &r->sections[i], MAX_RUNS * IMAGE_RUN_ENTRY_BYTES, &p, err);
		end = r->sections[i].offset + r->sections[i].len;
	}
	return rc < 0 ? rc : reader_check_gap(r, end, r->dir_offset, err);
}
