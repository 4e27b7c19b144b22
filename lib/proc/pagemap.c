/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages of a mapping there are, by PAGEMAP_SCAN or by reading /proc/PID/pagemap. */
/*
 * PAGEMAP_SCAN skips what is not there at the cost of the page tables that exist; pagemap itself
 * is 8 bytes for every page there could be.
 *
 * Guard pages are entries in the swap format. Their own category is younger (6.16) than the bit in
 * pagemap (6.15), and that is younger than guard pages (6.13): in between, what looks swapped is
 * looked up in pagemap, and on 6.13 and 6.14 a guard page stays PAGE_SWAPPED; reading it fails with
 * EFAULT or EIO, and that tells.
 */
#include "proc/pagemap.h"
#include "proc/proc.h"

#include "proc/probe.h"
#include "proc/text.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <pthread.h>

#define REGIONS    4096  /* a call of PAGEMAP_SCAN: 96 KiB */
#define ENTRIES    32768 /* a read of pagemap: 256 KiB, 128 MiB of addresses */
#define PAGE       ((uint64_t)CKPT_PAGE_SIZE)
#define HUGE_PAGES ((2u << 20) / CKPT_PAGE_SIZE)
#define USER_END   (1ull << 56)      /* no user's page lies beyond (x86-64, five-level tables) */
#define USER_END4  0x7ffffffff000ull /* where page tables have four levels */

bool proc_pagemap_force_classic;

/* Runs come in pieces (calls, mappings, blocks); neighbours of one class are handed on as one. */
struct merger {
	struct page_class_run run; /* end 0: none yet */
	bool marks, soft;
	uint32_t usual; /* LOOK_MOSTLY_*: what pages are that the kernel does not name */
	uint64_t at;    /* and up to where all is named */
	uint32_t more;  /* marks that pagemap cannot tell */
	int fd;
	page_run_fn each;
	void *arg;
};

static int merger_flush(struct merger *m, struct err *err)
{
	struct page_class_run run = m->run;

	m->run.end = 0;
	return run.end ? m->each(m->arg, &run, err) : 0;
}

static int merger_add(struct merger *m, uint64_t start, uint64_t end, uint32_t classes,
		      struct err *err)
{
	int rc;

	if (m->run.end == start && m->run.end && m->run.classes == classes) {
		m->run.end = end;
		return 0;
	}
	rc = merger_flush(m, err);
	m->run = (struct page_class_run){ .start = start, .end = end, .classes = classes };
	return rc < 0 ? rc : 0;
}

int proc_pagemap_open(int dirfd, int *ret_fd, struct err *err)
{
	int fd = openat(dirfd, "pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return text_fail(dirfd, "pagemap", -errno, err);
	*ret_fd = fd;
	return 0;
}

/* --- the classic way ---------------------------------------------------------------------- */

static uint32_t soft_marks(uint64_t entry)
{
	return (entry & PAGEMAP_SOFT_DIRTY ? PAGE_SOFTDIRTY : 0u) |
	       (entry & PAGEMAP_EXCLUSIVE ? PAGE_EXCLUSIVE : 0u);
}

static uint32_t classify_entry(uint64_t entry)
{
	if (entry & PAGEMAP_GUARD)
		return PAGE_GUARD;
	if (entry & PAGEMAP_PRESENT)
		return entry & PAGEMAP_FILE ? PAGE_FILE : PAGE_ANON;
	/* with PAGEMAP_FILE: a file's page on its way to another memory node */
	if (entry & PAGEMAP_SWAPPED)
		return entry & PAGEMAP_FILE ? PAGE_FILE : PAGE_SWAPPED;
	return 0;
}

static int scan_classic(int fd, uint64_t start, uint64_t end, struct merger *m, struct err *err)
{
	CLEANUP_FREE uint64_t *entries =
		malloc(MIN(ENTRIES, (end - start) / PAGE) * sizeof *entries);

	if (!entries)
		return err_nomem(err);
	while (start < end) {
		size_t want = (size_t)MIN(ENTRIES, (end - start) / PAGE), n;
		ssize_t got = io_pread_full(fd, entries, want * sizeof *entries, start / PAGE * 8);

		if (got == 0 && start < USER_END4)
			got = -ESRCH; /* no address space any more */
		if (got < 0)
			return err_set(err, (int)got, "cannot read '/proc/PID/pagemap': %m");
		n = (size_t)got / sizeof *entries;
		for (size_t i = 0; i < n; i++) {
			uint64_t at = start + i * PAGE;
			uint32_t classes = classify_entry(entries[i]);
			int rc = 0;

			if (classes)
				classes |= m->more | (m->soft ? soft_marks(entries[i]) : 0);
			if (classes)
				rc = merger_add(m, at, at + PAGE, classes, err);
			if (rc < 0)
				return rc;
		}
		if (n < want) /* the end of the address space */
			break;
		start += n * PAGE;
	}
	return 0;
}

/* --- PAGEMAP_SCAN ------------------------------------------------------------------------- */

static struct {
	pthread_once_t once;
	bool ok, guard;
} scan_feature = { .once = PTHREAD_ONCE_INIT };

static void find_feature(void)
{
	CLEANUP_FD int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct pagemap_scan arg = {
		.size = sizeof arg,
		.category_anyof_mask = CATEGORY_GUARD,
		.return_mask = CATEGORY_GUARD,
	};

	scan_feature.ok = probe_get(PROBE_PAGEMAP_SCAN)->ok;
	/* An empty range: only whether the category is known is asked; older kernels say EINVAL. */
	scan_feature.guard = scan_feature.ok && fd >= 0 && ioctl(fd, PAGEMAP_SCAN_IOCTL, &arg) >= 0;
}

static uint32_t classify_region(uint64_t categories)
{
	if (categories & CATEGORY_GUARD)
		return PAGE_GUARD;
	if (!(categories & (CATEGORY_PRESENT | CATEGORY_SWAPPED)))
		return 0;
	if (categories & CATEGORY_PFNZERO)
		return PAGE_PFNZERO;
	if (categories & CATEGORY_FILE)
		return PAGE_FILE;
	return categories & CATEGORY_PRESENT ? PAGE_ANON : PAGE_SWAPPED;
}

static int add_region(void *arg, const struct pagemap_region *r, struct err *err)
{
	struct merger *m = arg;
	uint32_t classes = classify_region(r->categories), marks = 0;
	int rc;

	if (!classes)
		return 0;
	if (m->marks)
		marks = (r->categories & CATEGORY_WPALLOWED ? PAGE_WATCHED : 0u) |
			(r->categories & CATEGORY_WRITTEN ? PAGE_WRITTEN : 0u);
	if (classes != PAGE_SWAPPED || scan_feature.guard)
		return merger_add(m, r->start, r->end, classes | marks, err);
	m->more = marks;
	rc = scan_classic(m->fd, r->start, r->end, m, err);
	m->more = 0;
	return rc;
}

bool proc_pagemap_has_guard(void)
{
	(void)pthread_once(&scan_feature.once, find_feature);
	return scan_feature.guard;
}

int proc_pagemap_query(int pagemap_fd, uint64_t start, uint64_t end,
		       const struct pagemap_scan *what, pagemap_region_fn each, void *arg,
		       struct err *err)
{
	CLEANUP_FREE struct pagemap_region *regions = malloc(REGIONS * sizeof *regions);

	if (!regions)
		return err_nomem(err);
	while (start < end) {
		struct pagemap_scan scan = *what;
		int n, rc = 0;

		scan.size = sizeof scan;
		scan.start = start;
		scan.end = end;
		scan.vec = (uintptr_t)regions;
		scan.vec_len = REGIONS;
		n = ioctl(pagemap_fd, PAGEMAP_SCAN_IOCTL, &scan);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EFAULT && end > USER_END4) {
			end = USER_END4;
			continue;
		}
		if (n < 0)
			return err_set(err, -errno, "cannot scan '/proc/PID/pagemap': %m");
		for (int i = 0; i < n && rc >= 0; i++)
			rc = each(arg, &regions[i], err);
		if (rc < 0)
			return rc;
		/*
		 * walk_end may lie before regions that were returned: when the end is reached, it
		 * still says where the kernel's own buffer (512 regions) was full for the last time
		 * (seen on Linux 6.18).
		 */
		if (n > 0)
			scan.walk_end = MAX(scan.walk_end, regions[n - 1].end);
		if (scan.walk_end <= start)
			return err_set(err, -EIO,
				       "cannot scan '/proc/PID/pagemap': it makes no progress");
		start = scan.walk_end;
	}
	return 0;
}

static int scan_ioctl(int fd, uint64_t start, uint64_t end, struct merger *m, struct err *err)
{
	const uint64_t marks = m->marks ? CATEGORY_WPALLOWED | CATEGORY_WRITTEN : 0;
	const struct pagemap_scan what = {
		.category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED,
		.return_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED | CATEGORY_PFNZERO | marks |
			       CATEGORY_FILE | (scan_feature.guard ? CATEGORY_GUARD : 0),
	};

	return proc_pagemap_query(fd, start, end, &what, add_region, m, err);
}

/* The pages up to here that no region was about. */
static int add_usual(struct merger *m, uint64_t end, struct err *err)
{
	return m->at < end ? merger_add(m, m->at, end, m->usual, err) : 0;
}

static int add_unusual(void *arg, const struct pagemap_region *r, struct err *err)
{
	struct merger *m = arg;
	int rc = add_usual(m, r->start, err);

	m->at = r->end;
	return rc < 0 ? rc : add_region(m, r, err);
}

/*
 * Asks for the exceptions: the kernel takes three times as long for a page that it names as for one
 * that it passes by (8 and 2.5 ns).
 */
static int scan_exceptions(int fd, uint64_t start, uint64_t end, struct merger *m, struct err *err)
{
	const bool watched = m->usual & PAGE_WATCHED;
	const uint64_t guard = scan_feature.guard ? CATEGORY_GUARD : 0;
	const struct pagemap_scan what = {
		.category_inverted =
			CATEGORY_PRESENT | (watched ? CATEGORY_WPALLOWED : CATEGORY_WRITTEN),
		.category_anyof_mask = CATEGORY_PRESENT | CATEGORY_PFNZERO | CATEGORY_WPALLOWED |
				       CATEGORY_WRITTEN | guard,
		.return_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED | CATEGORY_PFNZERO |
			       CATEGORY_WPALLOWED | CATEGORY_WRITTEN | guard,
	};
	const uint64_t border = MIN(end, USER_END4);
	int rc = 0;

	m->at = start;
	if (start < border)
		rc = proc_pagemap_query(fd, start, border, &what, add_unusual, m, err);
	if (rc == 0)
		rc = add_usual(m, border, err);
	/* whether there is anything beyond, the query itself finds out */
	return rc == 0 && end > border ? scan_ioctl(fd, MAX(start, border), end, m, err) : rc;
}

static int run_scan(struct merger *m, uint64_t start, uint64_t end, struct err *err)
{
	int rc;

	start &= ~(PAGE - 1);
	end = MIN(end, USER_END); /* [vsyscall] lies in the kernel's half */
	end = (end + PAGE - 1) & ~(PAGE - 1);
	if (start >= end)
		return 0;
	(void)pthread_once(&scan_feature.once, find_feature);
	if (scan_feature.ok && !proc_pagemap_force_classic && m->usual)
		rc = scan_exceptions(m->fd, start, end, m, err);
	else if (scan_feature.ok && !proc_pagemap_force_classic && !m->soft)
		rc = scan_ioctl(m->fd, start, end, m, err);
	else
		rc = scan_classic(m->fd, start, end, m, err);
	return rc < 0 ? rc : merger_flush(m, err);
}

int proc_pagemap_scan(int pagemap_fd, uint64_t start, uint64_t end, page_run_fn each, void *arg,
		      struct err *err)
{
	struct merger m = { .each = each, .arg = arg, .fd = pagemap_fd };

	return run_scan(&m, start, end, err);
}

int proc_pagemap_scan_marked(int pagemap_fd, uint64_t start, uint64_t end, unsigned how,
			     page_run_fn each, void *arg, struct err *err)
{
	struct merger m = { .each = each,
			    .arg = arg,
			    .fd = pagemap_fd,
			    .marks = !(how & LOOK_SOFT),
			    .soft = how & LOOK_SOFT };

	if (how & LOOK_MOSTLY_WATCHED)
		m.usual = PAGE_ANON | PAGE_WATCHED;
	else if (how & LOOK_MOSTLY_UNWATCHED)
		m.usual = PAGE_ANON | PAGE_WRITTEN;
	return run_scan(&m, start, end, err);
}

bool proc_pagemap_joinable(int pagemap_fd, uint64_t at)
{
	uint64_t v[HUGE_PAGES];

	if (io_pread_full(pagemap_fd, v, sizeof v, at / CKPT_PAGE_SIZE * sizeof v[0]) !=
	    (ssize_t)sizeof v)
		return false;
	for (size_t i = 0; i < HUGE_PAGES; i++)
		if ((v[i] & (PAGEMAP_PRESENT | PAGEMAP_FILE | PAGEMAP_EXCLUSIVE)) !=
		    (PAGEMAP_PRESENT | PAGEMAP_EXCLUSIVE))
			return false;
	return true;
}
