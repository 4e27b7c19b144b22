/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading the listed pages and handing them to the writer. A full image's pages are read straight
 * into the writer's block buffers; an increment's go through a buffer of ours, where their hashes
 * tell which the image must hold.
 */
#include "dump/internal.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <stdlib.h>
#include <string.h>

#define LOG_ROOM "dump"

struct page_list *pages_list_for(struct dumper *d, uint32_t space, enum page_source source, int fd)
{
	struct page_list *l;

	for (unsigned i = 0; i < d->n_lists; i++)
		if (d->lists[i].space == space) {
			d->lists[i].fd = fd; /* shared memory may be read through several */
			return &d->lists[i];
		}
	l = arena_push(d->arena, &d->lists, &d->n_lists, sizeof *l);
	if (l)
		*l = (struct page_list){
			.space = space, .source = source, .fd = fd, .later_fd = -1
		};
	return l;
}

int pages_add(struct dumper *d, struct page_list *l, enum extent_kind kind, uint64_t page,
	      uint64_t npages, uint64_t address)
{
	struct extent *e;

	if (l->n_extents) {
		e = &l->extents[l->n_extents - 1];
		if (e->fd == l->fd && e->kind == kind && e->page + e->npages == page &&
		    e->address + e->npages * CKPT_PAGE_SIZE == address) {
			e->npages += npages;
			return 0;
		}
	}
	e = arena_push(d->arena, &l->extents, &l->n_extents, sizeof *e);
	if (!e)
		return -ENOMEM;
	*e = (struct extent){
		.page = page, .npages = npages, .address = address, .kind = kind, .fd = l->fd
	};
	return 0;
}

static int by_page(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->page < y->page ? -1 : x->page > y->page;
}

static int by_space(const void *a, const void *b)
{
	const struct page_list *x = a, *y = b;

	return x->space < y->space ? -1 : x->space > y->space;
}

/* Several mappings of one shared object may name the same pages: the later extent loses what
 * overlaps. */
static void trim_overlaps(struct page_list *l)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < l->n_extents; i++) {
		struct extent *e = &l->extents[i];
		uint64_t end = e->page + e->npages;

		if (e->page < done) {
			uint64_t cut = MIN(done - e->page, e->npages);

			e->page += cut;
			e->npages -= cut;
			e->address += cut * CKPT_PAGE_SIZE;
		}
		done = MAX(done, end);
	}
}

static bool is_sorted(const struct page_list *l)
{
	for (unsigned i = 1; i < l->n_extents; i++)
		if (l->extents[i - 1].page > l->extents[i].page)
			return false;
	return true;
}

void pages_sort(struct dumper *d)
{
	qsort(d->lists, d->n_lists, sizeof *d->lists, by_space);
	for (unsigned i = 0; i < d->n_lists; i++) {
		struct page_list *l = &d->lists[i];

		if (!is_sorted(l))
			qsort(l->extents, l->n_extents, sizeof *l->extents, by_page);
		trim_overlaps(l);
	}
}

/*
 * The page cannot be read. Beyond the end of a file there is nothing; a guard page on
 * Linux 6.13 and 6.14 looks swapped and is known only by this. Anything else is memory that we
 * would lose.
 */
static int unreadable(struct dumper *d, const struct page_list *l, uint64_t address, int code,
		      struct err *err)
{
	for (unsigned i = 0; i < d->tree->n_processes; i++) {
		struct process *p = &d->tree->processes[i];

		if (p->space != l->space && l->source == SOURCE_MEMORY &&
		    tree_space(d->tree, l->space)->kind == SPACE_FILE)
			return 0;
		for (unsigned j = 0; p->space == l->space && j < p->n_vmas; j++) {
			struct vma *v = &p->vmas[j];
			struct range *g;

			if (address < v->start || address >= v->end)
				continue;
			if (v->kind == VMA_ANON && v->ino)
				return 0;
			if (v->kind == VMA_FILE && v->offset + (address - v->start) >= v->file_size)
				return 0;
			if (code != -EFAULT)
				break;
			g = arena_push(d->arena, &v->guards, &v->n_guards, sizeof *g);
			if (!g)
				return err_nomem(err);
			*g = (struct range){ address, address + CKPT_PAGE_SIZE };
			return 0;
		}
	}
	return err_set(err, code, "cannot read the job's memory at %#llx: %m",
		       (unsigned long long)address);
}

/* Reads up to n pages; the number read. 0: there is nothing at the first. */
static int read_pages(struct dumper *d, const struct page_list *l, const struct extent *e,
		      uint64_t address, unsigned n, uint8_t *buf, struct err *err)
{
	int fd = e->later ? l->later_fd : e->fd;
	ssize_t got = io_pread_full(fd, buf, (size_t)n * CKPT_PAGE_SIZE, address);

	if (got < 0)
		return unreadable(d, l, address, (int)got, err);
	if (got == 0 && l->source == SOURCE_MEMORY && e->later)
		d->job->skip_snapshot = true;
	if (got == 0 && l->source == SOURCE_MEMORY) /* it has no memory any more */
		return err_set(err, -EAGAIN, "%s has been killed while it was read",
			       e->later ? "the job's snapshot" : "the job");
	if (l->source == SOURCE_FD && got % CKPT_PAGE_SIZE) { /* a file's last page */
		size_t rest = CKPT_PAGE_SIZE - (size_t)got % CKPT_PAGE_SIZE;

		memset(buf + got, 0, rest);
		got += (ssize_t)rest;
	}
	return (int)(got / CKPT_PAGE_SIZE);
}

/* Pages [page, page + n) of a space are in buf: those that the parent does not have go to the
 * writer. */
static int submit_changed(struct dumper *d, struct image_writer *w, uint32_t space, uint64_t page,
			  unsigned n, const uint8_t *buf, struct err *err)
{
	bool same[IMAGE_BLOCK_PAGES];
	unsigned i, first;
	int rc = 0;

	for (i = 0; i < n; i++)
		same[i] = hashes_same(d->job->hashes, space, page + i,
				      hash128(buf + (size_t)i * CKPT_PAGE_SIZE, CKPT_PAGE_SIZE));
	for (i = 0; rc == 0 && i < n;) {
		first = i;
		while (i < n && same[i] == same[first])
			i++;
		if (same[first]) {
			rc = image_writer_run(w, space, RUN_PARENT, page + first, i - first, err);
		} else {
			void *out = image_writer_buffer(w, err);

			if (!out)
				return err && err->code ? err->code : -EIO;
			memcpy(out, buf + (size_t)first * CKPT_PAGE_SIZE,
			       (size_t)(i - first) * CKPT_PAGE_SIZE);
			rc = image_writer_submit(w, space, page + first, i - first, err);
		}
	}
	return rc;
}

static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && !memcmp(page, page + 1, CKPT_PAGE_SIZE - 1);
}

/* Pages that are as in the parent unless the zero page has taken their place. */
static int submit_unless_zero(struct image_writer *w, uint32_t space, uint64_t page, unsigned n,
			      const uint8_t *buf, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < n; i++)
		rc = image_writer_run(
			w, space, is_zero(buf + (size_t)i * CKPT_PAGE_SIZE) ? RUN_ZERO : RUN_PARENT,
			page + i, 1, err);
	return rc;
}

/* Does an image with hashes look at these pages before it takes them? */
static bool is_looked_at(const struct dumper *d, const struct extent *e)
{
	return d->hashing && e->kind != EXTENT_CHANGED;
}

/* Passes on n pages from page on, which are in buf (not the writer's own). */
static int pass_on(struct dumper *d, struct image_writer *w, uint32_t space, const struct extent *e,
		   uint64_t page, unsigned n, const uint8_t *buf, struct err *err)
{
	void *out;

	if (is_looked_at(d, e))
		return e->kind == EXTENT_PARENT_OR_ZERO
			       ? submit_unless_zero(w, space, page, n, buf, err)
			       : submit_changed(d, w, space, page, n, buf, err);
	out = image_writer_buffer(w, err);
	if (!out)
		return err && err->code ? err->code : -EIO;
	memcpy(out, buf, (size_t)n * CKPT_PAGE_SIZE);
	return image_writer_submit(w, space, page, n, err);
}

/* Reads one block's worth into the writer's buffer (or ours, to be looked at) and passes it on;
 * pages dealt with. */
static int write_some(struct dumper *d, struct image_writer *w, const struct page_list *l,
		      const struct extent *e, uint64_t done, struct err *err)
{
	unsigned want = (unsigned)MIN(e->npages - done, (uint64_t)IMAGE_BLOCK_PAGES);
	bool look = is_looked_at(d, e);
	uint8_t *buf = look ? d->buf : image_writer_buffer(w, err);
	int n, rc;

	if (!buf)
		return err && err->code ? err->code : -EIO;
	n = read_pages(d, l, e, e->address + done * CKPT_PAGE_SIZE, want, buf, err);
	if (!look)
		rc = image_writer_submit(w, l->space, e->page + done, n > 0 ? (unsigned)n : 0,
					 n < 0 ? NULL : err);
	else
		rc = n > 0 ? pass_on(d, w, l->space, e, e->page + done, (unsigned)n, buf, err) : 0;
	if (n < 0)
		return n;
	d->copied += e->later ? 0 : (unsigned)n;
	n = n > 0 ? n : 1;
	if (e->later && rc == 0)
		snapshots_read(l, e->address + done * CKPT_PAGE_SIZE,
			       e->address + (done + (unsigned)n) * CKPT_PAGE_SIZE);
	return rc < 0 ? rc : n;
}

static int write_extent(struct dumper *d, struct image_writer *w, const struct page_list *l,
			const struct extent *e, struct err *err)
{
	if (e->kind == EXTENT_PARENT)
		return image_writer_run(w, l->space, RUN_PARENT, e->page, e->npages, err);
	for (uint64_t done = 0; done < e->npages;) {
		int n = write_some(d, w, l, e, done, err);

		if (n < 0)
			return n;
		done += (unsigned)n;
	}
	return 0;
}

/* Small extents from first on, read together; how many, 0: none. */
static int write_gathered(struct dumper *d, struct image_writer *w, const struct page_list *l,
			  unsigned first, struct err *err)
{
	unsigned n = gather(l, first, d->buf);
	const uint8_t *at = d->buf;
	int rc = 0;

	for (unsigned i = first; rc == 0 && i < first + n; i++) {
		const struct extent *e = &l->extents[i];

		if (e->kind == EXTENT_PARENT) {
			rc = write_extent(d, w, l, e, err);
			continue;
		}
		d->copied += e->npages;
		rc = pass_on(d, w, l->space, e, e->page, (unsigned)e->npages, at, err);
		at += e->npages * CKPT_PAGE_SIZE;
	}
	return rc < 0 ? rc : (int)n;
}

static int write_list(struct dumper *d, struct image_writer *w, const struct page_list *l,
		      bool later, struct err *err)
{
	int rc = 0;

	if (later)
		snapshots_begin(l);
	for (unsigned i = 0; rc >= 0 && i < l->n_extents; i += (unsigned)rc) {
		rc = later ? 0 : write_gathered(d, w, l, i, err);
		if (rc != 0)
			continue;
		if (l->extents[i].later == later)
			rc = write_extent(d, w, l, &l->extents[i], err);
		if (rc == 0)
			rc = 1;
	}
	return rc < 0 ? rc : 0;
}

static int write_pass(struct dumper *d, struct image_writer *w, bool later, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < d->n_lists; i++)
		rc = write_list(d, w, &d->lists[i], later, err);
	return rc;
}

int pages_write_now(struct dumper *d, struct image_writer *w, struct err *err)
{
	int rc = write_pass(d, w, false, err);

	return rc < 0 ? rc : fault_point("dump-pages", err);
}

static bool any_later(const struct dumper *d)
{
	for (unsigned i = 0; i < d->n_lists; i++)
		for (unsigned j = 0; j < d->lists[i].n_extents; j++)
			if (d->lists[i].extents[j].later)
				return true;
	return false;
}

int pages_write_later(struct dumper *d, struct image_writer *w, struct err *err)
{
	int rc = 0;

	if (!any_later(d))
		return 0;
	if (d->hashing)
		rc = hashes_second_pass(d->job->hashes, err);
	if (rc == 0)
		rc = write_pass(d, w, true, err);
	return rc < 0 ? rc : fault_point("dump-pages-later", err);
}
