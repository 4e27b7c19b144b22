/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Golden images: version 1 as it was when it was defined must be read for ever, and what must be
 * refused, is. `golden DIR` tests the files in DIR (test/data); `golden make DIR` made them, and is
 * for the next version only.
 */
#include "golden.h"
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

static void make(const char *dir)
{
	uint8_t *golden, *copy;
	size_t len, bad_len;
	char name[128];

	CHECK(chdir(dir) == 0);
	make_golden();
	golden = slurp(GOLDEN, &len);
	copy = malloc(len + 64);
	for (unsigned i = 0; i < n_bad_images; i++) {
		if (!bad_images[i].stored)
			continue;
		bad_image_make(i, golden, len, copy, &bad_len);
		(void)snprintf(name, sizeof name, "bad/%s.img", bad_images[i].name);
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
	CHECK_MSG(&err, bad_images[i].msg);
	CHECK(opens == bad_images[i].opens);
}

static void test_bad(const char *dir, const uint8_t *golden, size_t golden_len)
{
	uint8_t *img = malloc(golden_len + 64);
	char path[512];
	size_t len;

	for (unsigned i = 0; i < n_bad_images; i++) {
		bad_image_make(i, golden, golden_len, img, &len);
		refuse(i, img, len);
		if (bad_images[i].stored) {
			uint8_t *file;

			(void)snprintf(path, sizeof path, "%s/bad/%s.img", dir, bad_images[i].name);
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
