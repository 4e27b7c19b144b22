/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which pages of a stopped process's private memory there are, and what is known of each before it
 * is read: written since the parent image, as in the parent, or to be compared. A page that is not
 * there any more is not in the image, and so not there after a restart. Pages of shared objects
 * belong to the object's space (dump/shared.c); clean file pages come back from the file.
 */
#include "dump/internal.h"
#include "util/cleanup.h"

#include <stdlib.h>

struct scan {
	struct dumper *d;
	struct page_list *list;
	const struct map_list *maps;
	struct vma *vmas; /* parallel to maps */
	struct watched *w;
	bool soft;
	bool defers;               /* to dump/settle.c: what need not be read */
	unsigned map;              /* the mapping that the last run ended in */
	size_t at_pending, at_due; /* cursors in w->pending, and in w->due or w->ahead */
};

static int add_guard(struct scan *z, uint64_t start, uint64_t end, struct err *err)
{
	struct vma *v = &z->vmas[z->map];
	struct range *g = arena_push(z->d->arena, &v->guards, &v->n_guards, sizeof *g);

	if (!g)
		return err_nomem(err);
	*g = (struct range){ start, end };
	return 0;
}

static int add(struct scan *z, enum extent_kind kind, uint64_t start, uint64_t end, struct err *err)
{
	return pages_add(z->d, z->list, kind, start / CKPT_PAGE_SIZE,
			 (end - start) / CKPT_PAGE_SIZE, start) < 0
		       ? err_nomem(err)
		       : 0;
}

/* What an increment does with pages under watch that have not been written. */
static enum extent_kind clean_kind(const struct scan *z, uint32_t marks)
{
	/* the zero page, where pagemap shows it as any other: it comes without being written */
	return z->soft && !(marks & PAGE_EXCLUSIVE) ? EXTENT_PARENT_OR_ZERO : EXTENT_PARENT;
}

bool scan_takes_all(const struct dumper *d, const struct watched *w)
{
	return !d->incremental || w->all_pending;
}

static int add_watched(struct scan *z, uint64_t start, uint64_t end, uint32_t marks,
		       struct err *err)
{
	int rc = 0;

	if (scan_takes_all(z->d, z->w))
		return add(z, EXTENT_CHANGED, start, end, err);
	while (rc == 0 && start < end) {
		bool pending;
		uint64_t part = ranges_part(&z->w->pending, &z->at_pending, start, end, &pending);

		rc = add(z, pending ? EXTENT_CHANGED : clean_kind(z, marks), start, part, err);
		start = part;
	}
	return rc;
}

/* Where only what must be read is listed at the stop; dump/settle.c says the rest. */
static int add_due(struct scan *z, uint64_t start, uint64_t end, struct err *err)
{
	bool all = scan_takes_all(z->d, z->w);
	const struct ranges *set = all ? &z->w->ahead : scan_due(z->w);
	int rc = 0;

	while (rc == 0 && start < end) {
		bool inside;
		uint64_t part = ranges_part(set, &z->at_due, start, end, &inside);

		if (inside != all)
			rc = add(z, EXTENT_CHANGED, start, part, err);
		else
			z->list->others += (part - start) / CKPT_PAGE_SIZE;
		start = part;
	}
	return rc;
}

/* The last of them goes on where it can. */
static int note_there(struct page_runs *runs, uint64_t start, uint64_t end, uint32_t classes,
		      struct err *err)
{
	const struct page_class_run run = { .start = start, .end = end, .classes = classes };
	struct page_class_run *last = runs->n ? &runs->v[runs->n - 1] : NULL;

	if (last && last->end == start && last->classes == classes) {
		last->end = end;
		return 0;
	}
	return page_runs_keep(runs, &run, err);
}

/*
 * A run within one mapping. Of a file's mapping, what looks swapped may be a page that was given up
 * (MADV_DONTNEED): the kernel leaves a mark of its protection in its place, and the file's page
 * comes back. So these are looked at.
 */
static int add_run(struct scan *z, uint64_t start, uint64_t end, uint32_t classes, struct err *err)
{
	bool given_up = z->maps->maps[z->map].ino && (classes & PAGE_SWAPPED), is_watched;
	int rc = 0;

	if (classes & PAGE_GUARD)
		return add_guard(z, start, end, err);
	if (!(classes & (PAGE_ANON | PAGE_SWAPPED)))
		return 0;
	z->d->result->pages_present += (end - start) / CKPT_PAGE_SIZE;
	is_watched = z->w && !given_up && z->d->tracker->is_watched(z->w, classes);
	if (z->defers)
		rc = note_there(&z->w->there, start, end, is_watched ? PAGE_WATCHED : 0, err);
	if (rc < 0)
		return rc;
	if (is_watched)
		return z->defers ? add_due(z, start, end, err)
				 : add_watched(z, start, end, classes, err);
	return add(z, EXTENT_COMPARE, start, end, err);
}

/* Runs go over the borders of neighbouring mappings. */
static int on_run(void *arg, const struct page_class_run *run, struct err *err)
{
	struct scan *z = arg;
	uint64_t start = run->start;
	int rc = 0;

	while (rc == 0 && start < run->end) {
		const struct proc_map *m;
		uint64_t end;

		while (z->map < z->maps->n && z->maps->maps[z->map].end <= start)
			z->map++;
		if (z->map == z->maps->n)
			break;
		m = &z->maps->maps[z->map];
		end = MIN(run->end, m->end);
		start = MAX(start, m->start);
		if (start < end && track_private(m))
			rc = add_run(z, start, end, run->classes, err);
		start = end;
	}
	return rc;
}

struct stretch_scan {
	struct scan z;
	unsigned process;
	int pagemap_fd;
	struct page_runs runs;
};

static int look_stretch(void *arg, unsigned first, unsigned last, bool files, struct err *err)
{
	struct stretch_scan *x = arg;
	const struct proc_map *maps = x->z.maps->maps;
	/* on_run leaves out what lies between the mappings */
	unsigned how = files ? 0 : walk_how(x->z.w);
	int rc = walk_take(x->z.d, x->process, first, &x->runs, err);

	if (rc != 0)
		return MIN(rc, 0);
	return proc_pagemap_scan_marked(x->pagemap_fd, maps[first].start, maps[last].end, how,
					page_runs_keep, &x->runs, err);
}

const struct ranges *scan_due(const struct watched *w)
{
	return w->ahead.n ? &w->due : &w->pending;
}

/* One look at the page tables serves both the tracker and the list of pages. */
static int scan_once(struct stretch_scan *x, struct track_target *t, struct err *err)
{
	CLEANUP(ranges_fini) struct ranges found = { 0 };
	struct dumper *d = x->z.d;
	int rc = track_stretches(t, look_stretch, x, err);

	t->runs = &x->runs;
	if (rc == 0 && d->tracker && t->w)
		rc = track_find(d->tracker, t, &found, err);
	x->z.defers = d->tracker && t->w;
	if (x->z.defers)
		t->w->space = x->z.list->space;
	if (rc == 0 && x->z.defers && t->w->ahead.n && ranges_unite(&t->w->due, &found) < 0)
		rc = err_nomem(err);
	for (size_t i = 0; rc == 0 && i < x->runs.n; i++)
		rc = on_run(&x->z, &x->runs.v[i], err);
	if (x->z.defers)
		t->w->listed = rc == 0;
	free(x->runs.v);
	return rc;
}

static int scan_maps(void *arg, unsigned first, unsigned last, bool files, struct err *err)
{
	struct stretch_scan *x = arg;
	const struct proc_map *maps = x->z.maps->maps;
	int rc = 0;

	(void)files;
	/* pagemap itself costs 8 bytes for every page of a reservation, touched or not */
	for (unsigned i = first; rc == 0 && i <= last; i++)
		if (maps[i].rss_bytes || maps[i].swap_bytes)
			rc = proc_pagemap_scan_marked(x->pagemap_fd, maps[i].start, maps[i].end,
						      x->z.soft ? LOOK_SOFT : 0, on_run, &x->z,
						      err);
	return rc;
}

bool scan_by_map(const struct dumper *d)
{
	return (d->tracker && d->tracker->soft) || !probe_get(PROBE_PAGEMAP_SCAN)->ok;
}

int scan_process(struct dumper *d, struct subject *s, const struct map_list *maps,
		 struct page_list *list, struct watched *w, int pagemap_fd, struct err *err)
{
	struct track_target t = {
		.w = w,
		.pid = s->pid,
		.proc_dirfd = s->proc_dirfd,
		.pagemap_fd = pagemap_fd,
		.maps = maps->maps,
		.n_maps = maps->n,
		.batch = s->batch,
		.pidfd = s->pidfd,
		.last = !d->hashing,
	};
	struct stretch_scan x = {
		.z = { .d = d,
		       .list = list,
		       .maps = maps,
		       .vmas = s->process->vmas,
		       .w = w,
		       .soft = d->tracker && d->tracker->soft },
		.process = (unsigned)(s - d->cap.subjects),
		.pagemap_fd = pagemap_fd,
	};
	int rc;

	if (!scan_by_map(d))
		return scan_once(&x, &t, err);
	rc = d->tracker && w ? track_find(d->tracker, &t, NULL, err) : 0;
	return rc < 0 ? rc : track_stretches(&t, scan_maps, &x, err);
}
