/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages of a running process into the image, in a round of pre-copy (dump/precopy.c). Which of them
 * are there is asked of neighbours together, and small runs are read together: in the last round
 * before a stop each microsecond counts, since the job goes on writing.
 */
#include "dump/internal.h"
#include "proc/pagemap.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <string.h>

/* So many pages are passed by in the time that a call of its own would take. */
#define WORTH_A_CALL (64ull * CKPT_PAGE_SIZE)

struct copier {
	struct dumper *d;
	struct watched *w;
	int mem_fd;
	uint64_t *copied; /* pages */
	const struct ranges *what;
	size_t at; /* a cursor in it */
	struct ranges missed;
	struct page_class_run small[GATHER_PIECES]; /* still to be read, together */
	unsigned n;
	uint64_t pages; /* in them */
};

static int submit(struct copier *c, uint64_t at, size_t len, struct err *err)
{
	*c->copied += len / CKPT_PAGE_SIZE;
	return image_writer_submit(c->d->writer, c->w->space, at / CKPT_PAGE_SIZE,
				   (unsigned)(len / CKPT_PAGE_SIZE), err);
}

static void *buffer(const struct copier *c, int *ret_rc, struct err *err)
{
	void *buf = image_writer_buffer(c->d->writer, err);

	*ret_rc = buf ? 0 : err && err->code ? err->code : -EIO;
	return buf;
}

/* As much as can be read. */
static int copy_alone(struct copier *c, uint64_t at, uint64_t end, struct err *err)
{
	while (at < end) {
		size_t len = (size_t)MIN(end - at, (uint64_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
		int rc;
		void *buf = buffer(c, &rc, err);
		ssize_t got;

		if (!buf)
			return rc;
		got = io_pread_full(c->mem_fd, buf, len, at);
		got = got > 0 ? got & ~(ssize_t)(CKPT_PAGE_SIZE - 1) : 0;
		rc = submit(c, at, (size_t)got, err);
		if (rc < 0)
			return rc;
		if ((size_t)got < len &&
		    ranges_append(&c->missed, at + (uint64_t)got, at + len) < 0)
			return err_nomem(err);
		at += len;
	}
	return 0;
}

static int copy_small(struct copier *c, struct err *err)
{
	unsigned n = gather_runs(c->w->pid, c->small, c->n, c->d->buf);
	const uint8_t *from = c->d->buf;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < n; i++) {
		size_t len = c->small[i].end - c->small[i].start;
		void *to = buffer(c, &rc, err);

		if (!to)
			return rc;
		memcpy(to, from, len);
		from += len;
		rc = submit(c, c->small[i].start, len, err);
	}
	for (unsigned i = n; rc == 0 && i < c->n; i++)
		rc = copy_alone(c, c->small[i].start, c->small[i].end, err);
	c->n = 0;
	c->pages = 0;
	return rc;
}

static int copy_part(struct copier *c, const struct page_class_run *run, struct err *err)
{
	uint64_t pages = (run->end - run->start) / CKPT_PAGE_SIZE;
	bool small = pages <= GATHER_SMALL;
	int rc = 0;

	/* in the order of addresses: missed is ascending */
	if (!small || c->n == GATHER_PIECES || c->pages + pages > IMAGE_BLOCK_PAGES)
		rc = copy_small(c, err);
	if (rc < 0 || !small)
		return rc < 0 ? rc : copy_alone(c, run->start, run->end, err);
	c->small[c->n++] = *run;
	c->pages += pages;
	return 0;
}

/* A run that is there and watched: what is asked for of it. */
static int copy_run(void *arg, const struct page_class_run *run, struct err *err)
{
	struct copier *c = arg;
	struct page_class_run part = *run;
	int rc = 0;

	if (!(run->classes & (PAGE_ANON | PAGE_SWAPPED)) ||
	    !c->d->tracker->is_watched(c->w, run->classes))
		return 0;
	for (; rc == 0 && part.start < run->end; part.start = part.end) {
		bool asked;

		part.end = ranges_part(c->what, &c->at, part.start, run->end, &asked);
		if (asked)
			rc = copy_part(c, &part, err);
	}
	return rc;
}

int ahead_copy(struct dumper *d, struct watched *w, int pagemap_fd, int mem_fd,
	       const struct ranges *what, uint64_t *copied, struct err *err)
{
	struct copier c = { .d = d, .w = w, .mem_fd = mem_fd, .copied = copied, .what = what };
	int rc = ranges_unite(&w->given, what) < 0 ? err_nomem(err) : 0;

	for (size_t i = 0, n; rc == 0 && i < what->n; i += n) {
		const struct span *v = &what->v[i];

		for (n = 1; i + n < what->n && v[n].start - v[n - 1].end <= WORTH_A_CALL;)
			n++;
		rc = proc_pagemap_scan_marked(pagemap_fd, v->start, v[n - 1].end, 0, copy_run, &c,
					      err);
	}
	if (rc == 0)
		rc = copy_small(&c, err);
	if (rc == 0 &&
	    (ranges_unite(&w->ahead, what) < 0 || ranges_subtract(&w->ahead, &c.missed) < 0)) {
		ranges_clear(&w->ahead);
		rc = err_nomem(err);
	}
	ranges_fini(&c.missed);
	return rc;
}
