/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's interfaces to page tables, for systems whose headers are older than their kernel. */
#pragma once

#include "util/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* ioctl(PAGEMAP_SCAN) on /proc/PID/pagemap, Linux 6.7: Documentation/admin-guide/mm/pagemap.rst. */
struct pagemap_region {
	uint64_t start, end;
	uint64_t categories; /* enum pagemap_category */
};

struct pagemap_scan {
	uint64_t size;  /* of this struct */
	uint64_t flags; /* enum pagemap_scan_flag */
	uint64_t start, end;
	uint64_t walk_end; /* out: where it stopped */
	uint64_t vec;      /* struct pagemap_region[vec_len] */
	uint64_t vec_len;
	uint64_t max_pages;           /* 0 = no limit */
	uint64_t category_inverted;   /* these count as set when they are not */
	uint64_t category_mask;       /* a page must have all of these */
	uint64_t category_anyof_mask; /* and, if not 0, one of these */
	uint64_t return_mask;         /* what regions report (and are split by) */
};

#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct pagemap_scan)

enum pagemap_category {
	CATEGORY_WPALLOWED = 1 << 0,
	CATEGORY_WRITTEN = 1 << 1,
	CATEGORY_FILE = 1 << 2,
	CATEGORY_PRESENT = 1 << 3,
	CATEGORY_SWAPPED = 1 << 4,
	CATEGORY_PFNZERO = 1 << 5,
	CATEGORY_HUGE = 1 << 6,
	CATEGORY_SOFT_DIRTY = 1 << 7,
	CATEGORY_GUARD = 1 << 8, /* Linux 6.16 */
};

enum pagemap_scan_flag {
	SCAN_WP_MATCHING = 1 << 0,   /* write-protect the pages that match */
	SCAN_CHECK_WPASYNC = 1 << 1, /* -EPERM where userfaultfd does not watch */
};

/* Is this category known here? (Asked once for each process of ours; pagemap_fd: any.) */
bool proc_pagemap_has_guard(void);
/*
 * PAGEMAP_SCAN of [start, end), as often as it takes; each is called for every region, ascending;
 * flags and masks are taken from `what`, the rest of it is ours.
 */
typedef int (*pagemap_region_fn)(void *arg, const struct pagemap_region *r, struct err *err);
int proc_pagemap_query(int pagemap_fd, uint64_t start, uint64_t end,
		       const struct pagemap_scan *what, pagemap_region_fn each, void *arg,
		       struct err *err);

/*
 * Measured on Linux 6.18, with UFFD_FEATURE_WP_ASYNC | WP_UNPOPULATED registered:
 * - SCAN_WP_MATCHING with category_mask WRITTEN alone also protects what is not there: it writes a
 *   marker for each page (8 bytes of page table: 32 GiB for a reservation of 16 TiB), and markers
 *   then look swapped, here and in pagemap. With category_anyof_mask PRESENT | SWAPPED added, only
 *   pages that exist are protected, and one that comes into being later counts as WRITTEN anyway.
 * - a page given up by MADV_DONTNEED is neither present nor swapped: it is found by its absence.
 * - walk_end may lie before regions that were returned (see pagemap.c).
 */

/*
 * Is [at, 2 MiB further) memory of the process's own that may be joined to a huge page: all there
 * (what was given up is not to come back) and nobody else's too (a child of its that has a copy
 * would be left with one of its own)?
 */
bool proc_pagemap_joinable(int pagemap_fd, uint64_t at);

/* The 64-bit entries of /proc/PID/pagemap itself. */
#define PAGEMAP_SOFT_DIRTY (1ull << 55)
#define PAGEMAP_EXCLUSIVE  (1ull << 56) /* mapped once; never set for the zero page */
#define PAGEMAP_GUARD      (1ull << 58) /* Linux 6.15 */
#define PAGEMAP_FILE       (1ull << 61)
#define PAGEMAP_SWAPPED    (1ull << 62)
#define PAGEMAP_PRESENT    (1ull << 63)
