/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Page tables of large stretches of private memory, looked at by two threads: the kernel takes some
 * 4 ns a page, which is most of what a stop takes in which little has changed. Several may walk one
 * address space at a time (mmap_lock is taken for reading).
 *
 * Another thread (dump/scout.h) begins; the tracer, when it gets there, takes what there is and
 * does every other piece itself. Not before the processes have been asked what they are asked: who
 * takes a lock for reading again and again keeps out for milliseconds whoever wants it for writing
 * (rwsem_down_read_slowpath in the kernel's locking/rwsem.c), and the batches map memory.
 */
#include "dump/internal.h"
#include "proc/pagemap.h"
#include "util/cleanup.h"

#include <unistd.h>

#define LARGE_BYTES (32ull << 20) /* shorter ones are not worth the hand-over */
#define SMALL_BYTES (64ull << 10) /* CKPT_WITHOUT=worth_walking: all the same */
#define PIECES_MOST 256ull        /* of one stretch */
#define TASKS_MOST  65536u
#define HUGE_BYTES  (2ull << 20)

/* A stretch (dump/tracker.h) in pieces, each a task of the other thread's. */
struct walk_stretch {
	unsigned process, first_map;
	uint64_t start, end, piece, unit; /* pieces begin and end at multiples of unit */
	unsigned task, n;                 /* the first of its tasks, how many */
	unsigned how;
	int pagemap_fd; /* of the process; one for all of its stretches */
};

static void piece_of(const struct walk_stretch *s, unsigned k, uint64_t *start, uint64_t *end)
{
	uint64_t base = s->start & ~(s->unit - 1);

	*start = MAX(s->start, base + k * s->piece);
	*end = MIN(s->end, base + (k + 1) * s->piece);
}

static const struct walk_stretch *stretch_of(const struct walk *w, unsigned task)
{
	unsigned low = 0, high = w->n;

	while (high - low > 1) {
		unsigned mid = low + (high - low) / 2;

		if (w->v[mid].task <= task)
			low = mid;
		else
			high = mid;
	}
	return &w->v[low];
}

/* What was found, in the other thread's arena: the tracer frees nothing of another thread's, whose
 * lock on its memory it may have been killed with. */
struct found {
	struct arena *a;
	struct page_class_run *v;
	unsigned n;
};

static int keep(void *arg, const struct page_class_run *run, struct err *err)
{
	struct found *f = arg;
	struct page_class_run *slot = arena_push(f->a, &f->v, &f->n, sizeof *slot);

	if (!slot)
		return err_nomem(err);
	*slot = *run;
	return 0;
}

static int run(void *arg, unsigned i, struct arena *a, void **ret, struct err *err)
{
	const struct walk_stretch *s = stretch_of(arg, i);
	struct found *f = arena_alloc(a, sizeof *f);
	uint64_t start, end;
	int rc;

	if (!f)
		return err_nomem(err);
	*f = (struct found){ .a = a };
	piece_of(s, i - s->task, &start, &end);
	rc = proc_pagemap_scan_marked(s->pagemap_fd, start, end, s->how, keep, f, err);
	if (rc == 0)
		*ret = f;
	return rc;
}

/* --- what there is to do ---------------------------------------------------------------------- */

struct planner {
	struct dumper *d;
	unsigned process, how;
	const struct proc_map *maps;
	int pagemap_fd;
	uint64_t large;
};

static int plan_stretch(void *arg, unsigned first, unsigned last, bool files, struct err *err)
{
	struct planner *p = arg;
	struct walk *w = &p->d->walk;
	uint64_t start = p->maps[first].start, end = p->maps[last].end;
	struct walk_stretch *s;
	int rc;

	if (files || end - start < p->large || w->n_tasks > TASKS_MOST)
		return 0;
	if (p->pagemap_fd < 0) {
		int *fd = arena_push(p->d->arena, &w->fds, &w->n_fds, sizeof *fd);

		if (!fd)
			return err_nomem(err);
		*fd = -1;
		rc = proc_pagemap_open(p->d->cap.subjects[p->process].proc_dirfd, fd, err);
		if (rc < 0)
			return rc;
		p->pagemap_fd = *fd;
	}
	s = arena_push(p->d->arena, &w->v, &w->n, sizeof *s);
	if (!s)
		return err_nomem(err);
	*s = (struct walk_stretch){ .process = p->process,
				    .first_map = first,
				    .start = start,
				    .end = end,
				    .task = w->n_tasks,
				    .how = p->how,
				    .pagemap_fd = p->pagemap_fd };
	s->unit = MIN(HUGE_BYTES, p->large / 2);
	s->piece = MAX(p->large / 2, (end - start) / PIECES_MOST) & ~(s->unit - 1);
	s->n = (unsigned)((end - (start & ~(s->unit - 1)) + s->piece - 1) / s->piece);
	w->n_tasks += s->n;
	return 0;
}

unsigned walk_how(const struct watched *w)
{
	return w && w->ours.n ? LOOK_MOSTLY_WATCHED : LOOK_MOSTLY_UNWATCHED;
}

void walk_begin(struct dumper *d)
{
	const uint64_t large = probe_without("worth_walking") ? SMALL_BYTES : LARGE_BYTES;
	struct err ignored = { 0 };
	int rc = 0;

	if (!d->walker || scan_by_map(d))
		return;
	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++) {
		const struct subject *s = &d->cap.subjects[i];
		const struct track_target t = { .maps = d->maps[i].maps, .n_maps = d->maps[i].n };
		struct planner p = {
			.d = d,
			.process = i,
			.how = walk_how(watched_find(d->job, s->pid, s->stat.start_time)),
			.maps = t.maps,
			.pagemap_fd = -1,
			.large = large,
		};

		if (!process_is_guest(d, i))
			rc = track_stretches(&t, plan_stretch, &p, &ignored);
	}
	if (rc == 0 && d->walk.n)
		scout_begin(d->walker, &(struct scout_work){ .n = d->walk.n_tasks,
							     .run = run,
							     .arg = &d->walk,
							     .beside = d->scout });
}

/* --- and its taking --------------------------------------------------------------------------- */

static const struct walk_stretch *find(const struct walk *w, unsigned process, unsigned first_map)
{
	for (unsigned i = 0; i < w->n; i++)
		if (w->v[i].process == process && w->v[i].first_map == first_map)
			return &w->v[i];
	return NULL;
}

/* A run may go on with what the last piece ended in. */
static int append(void *arg, const struct page_class_run *run, struct err *err)
{
	struct page_runs *into = arg;
	struct page_class_run *last = into->n ? &into->v[into->n - 1] : NULL;

	if (!last || last->end != run->start || last->classes != run->classes)
		return page_runs_keep(into, run, err);
	last->end = run->end;
	return 0;
}

static int take_piece(struct dumper *d, const struct walk_stretch *s, unsigned k,
		      struct page_runs *into, struct err *err)
{
	const struct found *f = scout_take(d->walker, s->task + k);
	uint64_t start, end;
	int rc = 0;

	piece_of(s, k, &start, &end);
	if (!f)
		return proc_pagemap_scan_marked(s->pagemap_fd, start, end, s->how, append, into,
						err);
	for (unsigned i = 0; rc == 0 && i < f->n; i++)
		rc = append(into, &f->v[i], err);
	return rc;
}

int walk_take(struct dumper *d, unsigned process, unsigned first_map, struct page_runs *into,
	      struct err *err)
{
	const struct walk_stretch *s = find(&d->walk, process, first_map);
	int rc = 0;

	if (!s)
		return 0;
	for (unsigned k = 0; rc == 0 && k < s->n; k++)
		rc = take_piece(d, s, k, into, err);
	return rc < 0 ? rc : 1;
}

void walk_free(struct dumper *d)
{
	for (unsigned i = 0; i < d->walk.n_fds; i++)
		if (d->walk.fds[i] >= 0)
			(void)close(d->walk.fds[i]);
	d->walk = (struct walk){ 0 };
}
