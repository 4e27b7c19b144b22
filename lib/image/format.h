/* SPDX-License-Identifier: BSD-2-Clause */
/* The image format's constants (version 1), as documented in ckpt-image(5). Disk constants, not
 * memory ones. */
#pragma once

#include <stdint.h>

#define IMAGE_MAGIC       "CKPTIMG\n" /* first 8 bytes of the file */
#define IMAGE_END_MAGIC   "CKPTEND\n" /* last 8 bytes of the file */
#define IMAGE_VERSION     1
#define IMAGE_ARCH_X86_64 62 /* ELF's EM_X86_64 */
#define IMAGE_BLOCK_PAGES 64 /* pages in a full block: 256 KiB */

/* Sizes on disk of the fixed records. */
#define IMAGE_PAGE_SHIFT        12
#define IMAGE_HEADER_BYTES      64
#define IMAGE_TRAILER_BYTES     64
#define IMAGE_DIR_ENTRY_BYTES   32
#define IMAGE_BLOCK_ENTRY_BYTES 24
#define IMAGE_RUN_ENTRY_BYTES   32
#define IMAGE_RAW_ALIGN         4096 /* of a raw block's file offset */
#define IMAGE_SECTION_ALIGN     8    /* of a section's file offset */
#define IMAGE_MAX_GAP           4096 /* padding between two parts is shorter than this, and zero */
#define IMAGE_MAX_SECTIONS      256
#define IMAGE_SECTION_REQUIRED                                                                     \
	0x0001 /* section flag: a reader that does not know it must refuse                         \
		*/
#define IMAGE_MAX_PAGE ((uint64_t)1 << 52) /* page numbers are below this */

/* What an image says of a range of pages; a page in no run is absent (never touched, or gone). */
enum run_kind {
	RUN_HERE = 1,   /* content is in this image's blocks */
	RUN_ZERO = 2,   /* present, all zero */
	RUN_PARENT = 3, /* as in the parent state */
};

enum block_codec { BLOCK_RAW = 0, BLOCK_LZ4 = 1 };

enum section_type {
	SECTION_TREE = 1,   /* the encoded struct tree */
	SECTION_BLOCKS = 2, /* where each block lies */
	SECTION_RUNS = 3,   /* what each page is */
};

/* A run of pages of one space. block/block_page: where the first page lies (RUN_HERE); the run goes
 * on page by page to the end of that block and then with the next blocks. */
struct page_run {
	uint32_t space;
	uint32_t kind; /* enum run_kind */
	uint64_t page; /* first page number in the space */
	uint64_t npages;
	uint32_t block;
	uint32_t block_page;
};
