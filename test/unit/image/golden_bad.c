/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be wrong with an image, one small change of the golden one each, and what must be said.
 */
#include "golden.h"

#include "imgtest.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#include <string.h>

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

const struct bad_image bad_images[] = {
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

const unsigned n_bad_images = ARRAY_SIZE(bad_images);

void bad_image_make(unsigned i, const uint8_t *golden, size_t len, uint8_t *to, size_t *ret_len)
{
	struct layout l;

	memcpy(to, golden, len);
	l = layout_of(to, len);
	bad_images[i].tamper(&l);
	if (bad_images[i].fix)
		fix_sums(to, l.len);
	*ret_len = l.len;
}
