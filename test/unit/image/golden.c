/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Golden images: version 1 as it was when it was defined must be read for ever, and what must be
 * refused, is. `golden DIR` tests the files in DIR (test/data); `golden make DIR` made them, and is
 * for the next version only.
 */
#include "imgtest.h"

#include "util/bytes.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <string.h>

#define TEXT_PAGES   60u
#define RANDOM_PAGES 5u
#define FIRST        0x10000u
#define GOLDEN       "golden-v1.img"

/* --- making them ---------------------------------------------------------------------------------
 */

static void make_golden(void)
{
	struct image_params params = {
		.state = test_id(1), .seq = 1, .compress = COMPRESS_LZ4, .threads = 1
	};
	struct arena *a = arena_new();
	struct image_writer *w;
	struct err err = { 0 };
	uint8_t *buf;

	OK(image_writer_open(AT_FDCWD, GOLDEN, &params, &w, &err), &err);
	buf = image_writer_buffer(w, &err);
	CHECK(buf);
	for (unsigned i = 0; i < TEXT_PAGES; i++)
		fill_page(buf + (size_t)i * CKPT_PAGE_SIZE, CONTENT_TEXT, 1, i, 1);
	OK(image_writer_submit(w, 1, FIRST, TEXT_PAGES, &err), &err);
	buf = image_writer_buffer(w, &err);
	CHECK(buf);
	for (unsigned i = 0; i < RANDOM_PAGES; i++)
		fill_page(buf + (size_t)i * CKPT_PAGE_SIZE, CONTENT_RANDOM, 2, i, 1);
	OK(image_writer_submit(w, 2, 7, RANDOM_PAGES, &err), &err);
	OK(image_writer_run(w, 3, RUN_ZERO, 0, 10, &err), &err);
	OK(image_writer_commit(w, test_tree(a), NULL, &err), &err);
	arena_free(a);
}

/* Places in the golden image. */
struct layout {
	uint8_t *img;
	size_t len;
	uint8_t *trailer, *dir, *tree, *blocks, *runs;
};

static struct layout layout_of(uint8_t *img, size_t len)
{
	struct layout l = { .img = img, .len = len, .trailer = img + len - IMAGE_TRAILER_BYTES };

	l.dir = img + get_le64(l.trailer);
	l.tree = img + get_le64(l.dir + 8);
	l.blocks = img + get_le64(l.dir + IMAGE_DIR_ENTRY_BYTES + 8);
	l.runs = img + get_le64(l.dir + 2 * IMAGE_DIR_ENTRY_BYTES + 8);
	return l;
}

static void wrong_magic(struct layout *l)
{
	l->img[3] = 'x';
}

static void version_7(struct layout *l)
{
	put_le16(l->img + 8, 7);
}

static void other_arch(struct layout *l)
{
	put_le16(l->img + 10, 183);
}

static void page_size(struct layout *l)
{
	l->img[12] = 16;
}

static void header_flip(struct layout *l)
{
	l->img[50] ^= 1;
}

static void header_reserved(struct layout *l)
{
	l->img[14] = 1;
}

static void truncated(struct layout *l)
{
	l->len /= 2;
}

static void cut_header(struct layout *l)
{
	l->len = 30;
}

static void empty(struct layout *l)
{
	l->len = 0;
}

static void text(struct layout *l)
{
	l->len = (size_t)snprintf((char *)l->img, 64, "#!/bin/sh\necho an image? no\n");
}

static void grown(struct layout *l)
{
	memset(l->img + l->len, 0, 5);
	l->len += 5;
}

static void end_mark(struct layout *l)
{
	l->trailer[63] = 'x';
}

static void trailer_flip(struct layout *l)
{
	l->trailer[40] ^= 4;
}

static void other_trailer(struct layout *l)
{
	l->trailer[40] ^= 4;
}

static void file_length(struct layout *l)
{
	put_le64(l->trailer + 24, 1 << 20);
}

static void dir_place(struct layout *l)
{
	put_le64(l->trailer + 8, UINT64_MAX - 100);
}

static void dir_flip(struct layout *l)
{
	l->dir[9] ^= 1;
}

static void section_place(struct layout *l)
{
	put_le64(l->dir + 16, UINT64_MAX - 8);
}

static void section_twice(struct layout *l)
{
	l->dir[IMAGE_DIR_ENTRY_BYTES] = SECTION_TREE;
}

static void section_missing(struct layout *l)
{
	put_le32(l->dir, 77);
	put_le16(l->dir + 6, 0);
}

static void section_unknown(struct layout *l)
{
	put_le32(l->dir, 77);
}

static void section_version(struct layout *l)
{
	put_le16(l->dir + 4, 2);
}

static void section_flag(struct layout *l)
{
	put_le16(l->dir + 6, 3);
}

static void tree_flip(struct layout *l)
{
	l->tree[100] ^= 32;
}

static void tree_length(struct layout *l)
{
	put_le32(l->tree, 0x7fffffff);
}

static void block_flip(struct layout *l)
{
	l->img[100] ^= 32;
}

static void block_codec(struct layout *l)
{
	l->blocks[14] = 9;
}

static void block_place(struct layout *l)
{
	put_le64(l->blocks + 24, 0);
}

static void block_beyond(struct layout *l)
{
	put_le64(l->blocks, 32);
}

static void block_pages(struct layout *l)
{
	put_le16(l->blocks + 12, 61);
}

static void block_sizes(struct layout *l)
{
	put_le16(l->blocks + 24 + 12, 3);
}

static void run_kind(struct layout *l)
{
	put_le32(l->runs + 4, 4);
}

static void run_order(struct layout *l)
{
	put_le32(l->runs, 3);
}

static void run_block(struct layout *l)
{
	put_le32(l->runs + 24, 2);
}

static void run_length(struct layout *l)
{
	put_le64(l->runs + 16, 66);
}

static void run_parent(struct layout *l)
{
	put_le32(l->runs + 64 + 4, RUN_PARENT);
}

static void run_space(struct layout *l)
{
	put_le32(l->runs + 64, 4);
}

static void run_size(struct layout *l)
{
	put_le64(l->runs + 64 + 16, 257);
}

static void padding(struct layout *l)
{
	l->img[4095] = 1;
}

static const struct {
	const char *name;
	void (*tamper)(struct layout *l);
	bool fix;    /* checksums are made good again: a hostile file, not a damaged one */
	bool opens;  /* found by reading the tree and the blocks only */
	bool stored; /* a file in the tree, for others to try their readers on; the rest is made on
			the spot */
	const char *msg;
} bad[] = {
	{ "wrong-magic", wrong_magic, false, false, true, "is not a ckpt image (wrong magic)" },
	{ "text", text, false, false, true, "is not a ckpt image (wrong magic)" },
	{ "version-7", version_7, true, false, true,
	  "has version 7, this program reads version 1" },
	{ "other-arch", other_arch, true, false, false, "was made on another architecture" },
	{ "page-size", page_size, true, false, false, "has pages of 2^16 bytes" },
	{ "header-flip", header_flip, false, false, true,
	  "header at offset 0 is damaged (checksum)" },
	{ "header-reserved", header_reserved, true, false, false,
	  "header at offset 13 is damaged (reserved" },
	{ "truncated", truncated, false, false, true, "is truncated (it has no end mark)" },
	{ "cut-header", cut_header, false, false, false, "is truncated" },
	{ "empty", empty, false, false, true, "is truncated" },
	{ "grown", grown, false, false, false, "is truncated (it has no end mark)" },
	{ "end-mark", end_mark, false, false, false, "is truncated (it has no end mark)" },
	{ "trailer-flip", trailer_flip, false, false, false, "trailer at offset" },
	{ "other-trailer", other_trailer, true, false, false,
	  "is damaged (belongs to another image)" },
	{ "file-length", file_length, true, false, false, "is truncated (its length" },
	{ "dir-place", dir_place, false, false, false, "trailer at offset" },
	{ "dir-flip", dir_flip, false, false, false, "directory at offset" },
	{ "section-place", section_place, true, false, false, "is damaged (section out of place)" },
	{ "section-twice", section_twice, true, false, false, "is damaged (section occurs twice)" },
	{ "section-missing", section_missing, true, false, false, "section 'tree' is missing" },
	{ "section-unknown", section_unknown, true, false, true,
	  "section 77 is required to read it" },
	{ "section-version", section_version, true, false, false,
	  "section 'tree' has version 2, this program reads version 1" },
	{ "section-flag", section_flag, true, false, false, "is damaged (reserved flag is set)" },
	{ "tree-flip", tree_flip, false, false, true, "section 'tree' at offset" },
	{ "tree-length", tree_length, true, true, true, "section 'tree' at offset" },
	{ "block-flip", block_flip, false, true, true,
	  "block 0 at offset 64 is damaged (checksum)" },
	{ "block-codec", block_codec, true, false, false,
	  "is damaged (block with an unknown codec)" },
	{ "block-place", block_place, true, false, false, "is damaged (block out of order)" },
	{ "block-beyond", block_beyond, true, false, false, "is damaged (block out of order)" },
	{ "block-pages", block_pages, true, true, false,
	  "block 0 at offset 64 is damaged (does not decompress)" },
	{ "block-sizes", block_sizes, true, false, false,
	  "is damaged (raw block with a bad size or alignment)" },
	{ "run-kind", run_kind, true, false, false, "is damaged (run of an unknown kind)" },
	{ "run-order", run_order, true, false, true, "is damaged (run out of order)" },
	{ "run-block", run_block, true, false, false, "is damaged (run outside of the blocks)" },
	{ "run-length", run_length, true, false, false, "is damaged (run beyond the last block)" },
	{ "run-parent", run_parent, true, false, false,
	  "is damaged (run that refers to a parent in a full image)" },
	{ "run-space", run_space, true, true, false, "pages of space 4, which is not in its tree" },
	{ "run-size", run_size, true, true, false, "pages beyond the end of space 3" },
	{ "padding", padding, false, true, true, "padding at offset 4095 is damaged (not zero)" },
};

static void tamper(unsigned i, const uint8_t *golden, size_t len, uint8_t *to, size_t *ret_len)
{
	struct layout l;

	memcpy(to, golden, len);
	l = layout_of(to, len);
	bad[i].tamper(&l);
	if (bad[i].fix)
		fix_sums(to, l.len);
	*ret_len = l.len;
}

static void make(const char *dir)
{
	uint8_t *golden, *copy;
	size_t len, bad_len;
	char name[128];

	CHECK(chdir(dir) == 0);
	make_golden();
	golden = slurp(GOLDEN, &len);
	copy = malloc(len + 64);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		if (!bad[i].stored)
			continue;
		tamper(i, golden, len, copy, &bad_len);
		(void)snprintf(name, sizeof name, "bad/%s.img", bad[i].name);
		spill(name, copy, bad_len);
	}
	free(copy);
	free(golden);
}

/* --- testing them --------------------------------------------------------------------------------
 */

static void test_golden(const uint8_t *img, size_t len)
{
	uint8_t want[CKPT_PAGE_SIZE], got[CKPT_PAGE_SIZE];
	struct arena *a = arena_new();
	struct image_reader *r;
	struct err err = { 0 };
	struct tree *t;

	OK(image_reader_open_mem(img, len, &r, &err), &err);
	OK(image_reader_verify(r, NULL, NULL, &err), &err);
	OK(image_reader_tree(r, a, &t, &err), &err);
	CHECK(image_reader_info(r)->n_blocks == 2 && image_reader_info(r)->n_runs == 3);
	for (unsigned i = 0; i < TEXT_PAGES; i++) {
		fill_page(want, CONTENT_TEXT, 1, i, 1);
		CHECK(read_page(r, 1, FIRST + i, got) == RUN_HERE &&
		      !memcmp(want, got, sizeof got));
	}
	for (unsigned i = 0; i < RANDOM_PAGES; i++) {
		fill_page(want, CONTENT_RANDOM, 2, i, 1);
		CHECK(read_page(r, 2, 7 + i, got) == RUN_HERE && !memcmp(want, got, sizeof got));
	}
	CHECK(read_page(r, 3, 9, got) == RUN_ZERO && read_page(r, 3, 10, got) == 0);
	CHECK(t->n_processes == 1 && t->processes[0].pid == 100 && t->processes[0].n_vmas == 3);
	CHECK(!strcmp(t->processes[0].exe, "/usr/bin/job") &&
	      !strcmp(t->processes[0].threads[1].comm, "thread-101"));
	CHECK(t->processes[0].threads[1].gregs.len == 216 &&
	      t->processes[0].threads[1].gregs.data[1] == 101 + 7);
	CHECK(t->n_files == 4 &&
	      ((struct file_pipe *)tree_file(t, 13)->detail)->packets[0].data.len == 1000);
	arena_free(a);
	image_reader_free(r);
}

/* open, tree and verify: what ckpt-inspect --verify does. */
static int judge(const uint8_t *img, size_t len, bool *ret_opens, struct err *err)
{
	struct image_reader *r;
	int rc = image_reader_open_mem(img, len, &r, err);

	*ret_opens = rc == 0;
	if (rc == 0) {
		rc = image_reader_verify(r, NULL, NULL, err);
		image_reader_free(r);
	}
	return rc;
}

static void refuse(unsigned i, const uint8_t *img, size_t len)
{
	struct err err = { 0 };
	bool opens;

	CHECK(judge(img, len, &opens, &err) < 0 && err.exit_status == EXIT_BAD_IMAGE);
	CHECK_MSG(&err, bad[i].msg);
	CHECK(opens == bad[i].opens);
}

static void test_bad(const char *dir, const uint8_t *golden, size_t golden_len)
{
	uint8_t *img = malloc(golden_len + 64);
	char path[512];
	size_t len;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		tamper(i, golden, golden_len, img, &len);
		refuse(i, img, len);
		if (bad[i].stored) {
			uint8_t *file;

			(void)snprintf(path, sizeof path, "%s/bad/%s.img", dir, bad[i].name);
			file = slurp(path, &len);
			refuse(i, file, len);
			free(file);
		}
	}
	free(img);
}

/* No byte of the file is without a check: header, data, padding, sections, directory, trailer. */
static void test_flips(const uint8_t *golden, size_t len)
{
	uint8_t *copy = malloc(len);
	bool opens;

	memcpy(copy, golden, len);
	for (size_t at = 0; at < len; at++) {
		uint8_t mask = (uint8_t)(1 << at % 8);
		struct err err = { 0 };

		copy[at] ^= mask;
		if (judge(copy, len, &opens, &err) == 0 || err.exit_status != EXIT_BAD_IMAGE) {
			fprintf(stderr, "byte %zu of %zu, mask %#x\n", at, len, mask);
			test_fail(__FILE__, __LINE__, "a flipped bit was not found", err.msg);
		}
		copy[at] ^= mask;
	}
	free(copy);
}

static void test_truncation(const uint8_t *golden, size_t len)
{
	struct image_reader *r;

	for (size_t n = 0; n < len; n++) {
		struct err err = { 0 };

		CHECK(image_reader_open_mem(golden, n, &r, &err) < 0 &&
		      err.exit_status == EXIT_BAD_IMAGE);
		CHECK_MSG(&err, "is truncated");
	}
}

/* A section that this program does not know, and need not know, is no hindrance; its bytes are
 * verified. */
static void test_optional_section(const uint8_t *golden, size_t len)
{
	size_t dir_at = (size_t)get_le64(golden + len - IMAGE_TRAILER_BYTES), at = dir_at;
	size_t dir_len = len - IMAGE_TRAILER_BYTES - dir_at,
	       new_len = len + 16 + IMAGE_DIR_ENTRY_BYTES;
	uint8_t *img = calloc(1, new_len), *entry;
	struct err err = { 0 };
	bool opens;

	memcpy(img, golden, dir_at);
	memcpy(img + at, "something new 12", 16);
	at += 16;
	memcpy(img + at, golden + dir_at, dir_len);
	entry = img + at + dir_len;
	put_le32(entry, 1000);
	put_le16(entry + 4, 3);
	put_le64(entry + 8, dir_at);
	put_le64(entry + 16, 16);
	memcpy(entry + IMAGE_DIR_ENTRY_BYTES, golden + len - IMAGE_TRAILER_BYTES,
	       IMAGE_TRAILER_BYTES);
	put_le64(entry + IMAGE_DIR_ENTRY_BYTES, at);
	put_le64(entry + IMAGE_DIR_ENTRY_BYTES + 8, dir_len + IMAGE_DIR_ENTRY_BYTES);
	put_le64(entry + IMAGE_DIR_ENTRY_BYTES + 24, new_len);
	fix_sums(img, new_len);
	test_golden(img, new_len);
	img[dir_at + 3] ^= 1;
	CHECK(judge(img, new_len, &opens, &err) < 0 && opens);
	CHECK_MSG(&err, "section 1000 at offset");
	free(img);
}

int main(int argc, char **argv)
{
	char path[512];
	uint8_t *golden;
	size_t len;

	if (argc == 3 && !strcmp(argv[1], "make")) {
		make(argv[2]);
		return 0;
	}
	CHECK(argc == 2);
	(void)snprintf(path, sizeof path, "%s/" GOLDEN, argv[1]);
	golden = slurp(path, &len);
	test_golden(golden, len);
	test_bad(argv[1], golden, len);
	test_optional_section(golden, len);
	test_flips(golden, len);
	test_truncation(golden, len);
	free(golden);
	return 0;
}
