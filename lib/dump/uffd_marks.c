/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marks of write-protection that have outlived the registration they belong to.
 *
 * A page that bears the mark counts as not written, and PAGEMAP_SCAN passes it by when it protects.
 * But mremap(2) takes a registration away without looking at all the marks under it. Where what it
 * moves is joined with a neighbour, which was registered too, the whole of the two loses it, and
 * the neighbour's pages keep their marks (seen on Linux 6.18); before Linux 6.13 and the stable
 * versions of its time, those that are moved do so as well ("mm: clear uffd-wp PTE/PMD state on
 * mremap()"). When such a page is written to it becomes writable, and stays marked: once its
 * mapping is registered again, no write to it would ever be found.
 *
 * So what bears a mark in a mapping that has just been registered is protected by itself:
 * UFFDIO_WRITEPROTECT does it whatever the mark says.
 */
#include "dump/uffd_marks.h"

#include "proc/pagemap.h"
#include "util/cleanup.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

/* So much is let go in one call. */
#define REST_BYTES (16ull << 20)
#define MAX_TRIES  100 /* the address space is just being changed (EAGAIN) */

static int set_marks(const struct watched *w, uint64_t start, uint64_t end, uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = start, .len = end - start },
		.mode = mode,
	};

	for (int try = 0; ioctl(w->uffd, UFFDIO_WRITEPROTECT, &wp) < 0; try++)
		if (errno != EAGAIN || try == MAX_TRIES)
			return -errno;
	return 0;
}

static int protect(const struct watched *w, uint64_t start, uint64_t end)
{
	return set_marks(w, start, end, UFFDIO_WRITEPROTECT_MODE_WP);
}

/* Nobody waits for a fault to be answered (WP_ASYNC), so nobody is woken. */
void uffd_unprotect(const struct watched *w, uint64_t start, uint64_t end)
{
	if (w->uffd >= 0)
		(void)set_marks(w, start, end, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
}

/*
 * By and by, so that the faults of the process itself do not wait. Pages that nobody else has are
 * made writable at once (change_pte_range in the kernel's mm/mprotect.c). What is no longer
 * registered, or meanwhile the memory of another program, is left.
 */
void uffd_rest(struct watched *w)
{
	for (size_t i = 0; w->uffd >= 0 && !w->rests && i < w->ours.n; i++) {
		uint64_t end = w->ours.v[i].end;

		for (uint64_t at = w->ours.v[i].start; at < end; at += REST_BYTES)
			uffd_unprotect(w, at, MIN(end, at + REST_BYTES));
	}
	w->rests = true;
}

/* Mapping by mapping: one that could not be registered is nobody's (ENOENT), and not trusted. */
static int protect_run(const struct track_target *t, unsigned *map,
		       const struct page_class_run *run)
{
	for (uint64_t at = run->start; at < run->end;) {
		const struct proc_map *m = &t->maps[*map];
		uint64_t end;
		int rc;

		if (*map == t->n_maps)
			break;
		if (m->end <= at) {
			++*map;
			continue;
		}
		end = MIN(run->end, m->end);
		at = MAX(at, m->start);
		rc = at < end ? protect(t->w, at, end) : 0;
		if (rc < 0 && rc != -ENOENT)
			return rc;
		at = end;
	}
	return 0;
}

int uffd_marks_renew(const struct track_target *t)
{
	const uint32_t content = PAGE_ANON | PAGE_SWAPPED, known = PAGE_WATCHED | PAGE_WRITTEN;
	unsigned map = 0;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < t->runs->n; i++)
		if ((t->runs->v[i].classes & content) && !(t->runs->v[i].classes & known))
			rc = protect_run(t, &map, &t->runs->v[i]);
	return rc;
}

static int renew(void *arg, const struct pagemap_region *r, struct err *err)
{
	int rc = protect(arg, r->start, r->end);

	return rc < 0 ? err_set(err, rc, "cannot protect memory: %m") : 0;
}

int uffd_marks_find(const struct track_target *t, const struct ranges *where, struct err *err)
{
	const uint64_t none = CATEGORY_WRITTEN | CATEGORY_PFNZERO | CATEGORY_FILE |
			      (proc_pagemap_has_guard() ? CATEGORY_GUARD : 0);
	const struct pagemap_scan what = {
		.category_inverted = none,
		.category_mask = none | CATEGORY_WPALLOWED,
		.category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED,
		.return_mask = CATEGORY_WPALLOWED,
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < where->n; i++)
		rc = proc_pagemap_query(t->pagemap_fd, where->v[i].start, where->v[i].end, &what,
					renew, t->w, err);
	return rc;
}
