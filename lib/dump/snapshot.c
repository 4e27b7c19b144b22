/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copy-on-write: each process is forked while stopped, and most of its pages are read from the copy
 * once it runs again. What fork(2) does not copy as it is, is read before: shared memory, and
 * mappings under MADV_DONTFORK or MADV_WIPEONFORK. So are private mappings of files, which the
 * copies must not keep in use, unless much has been written to them.
 */
#include "dump/internal.h"
#include "inject/snapshot.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/log.h"

#include <stdio.h>

#define LOG_ROOM "dump"
/* Changed pages of a file's private mapping that are read at once. */
#define MAX_FILE_NOW 256

/* Of a copy is given up so much at a time: it takes 30 us, little beside the reading. */
#define PORTION       (4ull << 20)
#define PORTION_SMALL (64ull << 10) /* CKPT_WITHOUT=worth_giving_up: also of small memory */
#define MANY_AT_ONCE  512

struct snapshots {
	struct snapshot **of; /* for each process; NULL: none */
	unsigned n;
};

/* Of a mapping. */
struct choice {
	bool later; /* its pages are read from the copy */
	bool drop;  /* the copy need not have it */
};

/* From a snapshot, whose mappings (of a process) are ascending; what is below `given` is given up.
 */
struct reading {
	struct snapshot *from; /* NULL: it gives up no more */
	const struct process *p;
	const struct choice *choices; /* for each mapping */
	uint64_t given;
	uint64_t fresh; /* bytes that have been read since */
	unsigned at;    /* the first mapping that reaches beyond what is given up */
};

static struct page_list *list_of(struct dumper *d, uint32_t space)
{
	for (unsigned i = 0; i < d->n_lists; i++)
		if (d->lists[i].space == space)
			return &d->lists[i];
	return NULL;
}

static bool is_private_anon(const struct vma *v)
{
	return v->kind == VMA_ANON && v->ino == 0;
}

/* Pages of the extents (ascending, as mappings are) in [start, end); *at moves along. */
static uint64_t pages_within(const struct page_list *l, unsigned *at, uint64_t start, uint64_t end)
{
	uint64_t n = 0;

	while (*at < l->n_extents) {
		const struct extent *e = &l->extents[*at];
		uint64_t last = e->address + e->npages * CKPT_PAGE_SIZE;

		if (e->address >= end)
			break;
		if (last > start && e->kind != EXTENT_PARENT)
			n += (MIN(last, end) - MAX(e->address, start)) / CKPT_PAGE_SIZE;
		if (last > end)
			break;
		(*at)++;
	}
	return n;
}

/* One for each mapping; NULL when out of memory. *ret_pages: how many are read later. */
static struct choice *choose(struct dumper *d, const struct process *p, const struct page_list *l,
			     uint64_t *ret_pages)
{
	struct choice *c = arena_array(d->arena, p->n_vmas + 1, sizeof *c);
	unsigned at = 0;

	*ret_pages = 0;
	for (unsigned i = 0; c && i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];
		uint64_t n = pages_within(l, &at, v->start, v->end);

		if (v->kind == VMA_VDSO || v->kind == VMA_VSYSCALL)
			continue;
		if (!(v->advice & (ADVICE_DONTFORK | ADVICE_WIPEONFORK)))
			c[i].later =
				is_private_anon(v) || (v->kind == VMA_FILE && n > MAX_FILE_NOW);
		c[i].drop = !c[i].later && !is_private_anon(v);
		if (c[i].later)
			*ret_pages += n;
	}
	return c;
}

static int add_part(struct dumper *d, struct page_list *l, const struct extent *whole,
		    uint64_t start, uint64_t end, bool later)
{
	struct extent *e = l->n_extents ? &l->extents[l->n_extents - 1] : NULL;
	uint64_t npages = (end - start) / CKPT_PAGE_SIZE;

	if (e && e->kind == whole->kind && e->later == later &&
	    e->address + e->npages * CKPT_PAGE_SIZE == start) {
		e->npages += npages;
		return 0;
	}
	e = arena_push(d->arena, &l->extents, &l->n_extents, sizeof *e);
	if (!e)
		return -ENOMEM;
	*e = *whole;
	e->page += (start - whole->address) / CKPT_PAGE_SIZE;
	e->npages = npages;
	e->address = start;
	e->later = later;
	return 0;
}

/* Extents may span mappings: they are cut where the answer changes. */
static int mark_later(struct dumper *d, const struct process *p, struct page_list *l,
		      const struct choice *c)
{
	const struct extent *old = l->extents;
	unsigned n = l->n_extents, v = 0;
	int rc = 0;

	l->extents = NULL;
	l->n_extents = 0;
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		uint64_t at = old[i].address, end = at + old[i].npages * CKPT_PAGE_SIZE, to;

		for (; rc == 0 && at < end; at = to) {
			while (v < p->n_vmas && p->vmas[v].end <= at)
				v++;
			to = v < p->n_vmas ? MIN(end, p->vmas[v].end) : end;
			rc = add_part(d, l, &old[i], at, to,
				      v < p->n_vmas && c[v].later && old[i].kind != EXTENT_PARENT);
		}
	}
	return rc;
}

static void mark_all_now(struct page_list *l)
{
	for (unsigned i = 0; i < l->n_extents; i++)
		l->extents[i].later = false;
}

static int list_drops(struct dumper *d, const struct process *p, const struct choice *c,
		      struct snapshot_range **ret, unsigned *ret_n)
{
	*ret = NULL;
	*ret_n = 0;
	for (unsigned i = 0; i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];
		struct snapshot_range *r;

		if (!c[i].drop)
			continue;
		if (*ret_n && (*ret)[*ret_n - 1].end == v->start) {
			(*ret)[*ret_n - 1].end = v->end;
			continue;
		}
		r = arena_push(d->arena, ret, ret_n, sizeof *r);
		if (!r)
			return -ENOMEM;
		*r = (struct snapshot_range){ v->start, v->end };
	}
	return 0;
}

/* All that a fork copies the tables of. */
static uint64_t pages_of(const struct page_list *l)
{
	uint64_t n = l->others;

	for (unsigned i = 0; i < l->n_extents; i++)
		n += l->extents[i].npages;
	return n;
}

static bool pays(const struct dumper *d, const struct page_list *l, uint64_t pages)
{
	return pages > 0 && (d->job->settings->snapshot == MODE_SNAPSHOT ||
			     policy_fork_pays(&d->job->policy, pages_of(l), pages, d->copy_before));
}

/* A copy that is refused is no error: then what the process has is read now, as without. */
static int take_one(struct dumper *d, unsigned index, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	struct page_list *l = list_of(d, s->process->space);
	struct snapshot_range *drop;
	struct err why = { 0 };
	struct choice *c;
	uint64_t pages;
	unsigned n;
	int rc;

	if (!l || !s->remote || l->later_fd >= 0) /* the last: it shares another's memory */
		return 0;
	c = choose(d, s->process, l, &pages);
	if (!c || list_drops(d, s->process, c, &drop, &n) < 0)
		return err_nomem(err);
	if (!pays(d, l, pages)) {
		d->copy_before += pages;
		return 0;
	}
	if (mark_later(d, s->process, l, c) < 0)
		return err_nomem(err);
	rc = snapshot_fork(s->remote, drop, n, &d->snapshots->of[index], &why);
	if (rc == 0) {
		l->later_fd = snapshot_mem(d->snapshots->of[index]);
		l->reading = arena_array(d->arena, 1, sizeof *l->reading);
		if (l->reading)
			*l->reading = (struct reading){ .from = d->snapshots->of[index],
							.p = s->process,
							.choices = c };
		d->forked += pages_of(l);
		d->n_forked++;
		return 0;
	}
	mark_all_now(l);
	if (rc == -ESRCH && err)
		*err = why;
	log_debug("no snapshot: %s", why.msg);
	return rc == -ESRCH ? rc : 0;
}

/* A process that adopts the job's orphans would be told of a copy's end. */
bool snapshots_adopted(const struct dumper *d)
{
	for (unsigned i = 0; i < d->tree->n_processes; i++)
		if (d->tree->processes[i].child_subreaper)
			return true;
	return false;
}

static bool wanted(const struct dumper *d)
{
	uint32_t mode = d->job->settings->snapshot;

	return (mode == MODE_AUTO || mode == MODE_SNAPSHOT) && !(d->flags & DUMP_KILL) &&
	       !d->job->no_snapshots && !snapshots_adopted(d);
}

int snapshots_take(struct dumper *d, struct err *err)
{
	int64_t start = trace_now_ns();
	unsigned n = d->cap.n_subjects;
	bool any = false;
	int rc = 0;

	if (!wanted(d) || d->has_foreign)
		return 0;
	if (d->job->skip_snapshot) {
		d->job->skip_snapshot = false;
		return 0;
	}
	d->snapshots = arena_array(d->arena, 1, sizeof *d->snapshots);
	if (d->snapshots)
		d->snapshots->of = arena_array(d->arena, n, sizeof(struct snapshot *));
	if (!d->snapshots || !d->snapshots->of)
		return err_nomem(err);
	d->snapshots->n = n;
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		rc = take_one(d, i, err);
		any = any || d->snapshots->of[i];
	}
	if (any)
		(void)snprintf(d->result->mode, sizeof d->result->mode, "snapshot");
	d->result->snapshot_us = any ? (uint64_t)(trace_now_ns() - start) / 1000 : 0;
	return rc == 0 && any ? fault_point("dump-snapshot", err) : rc;
}

/* --- what has been read --------------------------------------------------------------------- */

/* What /proc shows of a copy: its command line and its environment. */
static bool tells_who(const struct process *p, const struct vma *v)
{
	return v->start <= p->mm.env_end && p->mm.arg_start < v->end;
}

/* Of [start, end), all that is in a mapping whose pages are read later; *at moves along. */
static unsigned cut(const struct reading *r, unsigned *at, uint64_t start, uint64_t end,
		    struct snapshot_range *ret, unsigned most)
{
	unsigned n = 0;

	for (; *at < r->p->n_vmas && r->p->vmas[*at].start < end && n < most; ++*at) {
		const struct vma *v = &r->p->vmas[*at];
		uint64_t from = MAX(v->start, start), to = MIN(v->end, end);

		if (from < to && r->choices[*at].later && !tells_who(r->p, v))
			ret[n++] = (struct snapshot_range){ from, to };
		if (v->end > end)
			break;
	}
	return n;
}

/* An attempt: should it fail, the job copies what it writes to, as it would have without. */
static void give_up(struct reading *r, const struct snapshot_range *ranges, unsigned n)
{
	if (r->from && n && snapshot_give_up(r->from, ranges, n, NULL) < 0)
		r->from = NULL;
}

/* A multiple of two huge pages: none is given up by halves. */
static uint64_t portion(void)
{
	return probe_without("worth_giving_up") ? PORTION_SMALL : PORTION;
}

/* What is as in the parent nobody reads. */
void snapshots_begin(const struct page_list *l)
{
	struct snapshot_range ranges[MANY_AT_ONCE];
	struct reading *r = l->reading;
	uint64_t done = 0;
	unsigned at = 0, n = 0;

	for (unsigned i = 0; r && i <= l->n_extents; i++) {
		const struct extent *e = &l->extents[i];
		uint64_t next = i == l->n_extents ? UINT64_MAX : e->address;

		if (i < l->n_extents && !e->later)
			continue;
		if (next - done >= portion() / 2) {
			if (n > MANY_AT_ONCE / 2) {
				give_up(r, ranges, n);
				n = 0;
			}
			n += cut(r, &at, done, next, ranges + n, MANY_AT_ONCE - n);
		}
		if (i < l->n_extents)
			done = e->address + e->npages * CKPT_PAGE_SIZE;
	}
	if (!r)
		return;
	give_up(r, ranges, n);
	if (fault_point("copy-begun", NULL) < 0)
		r->from = NULL;
}

void snapshots_read(const struct page_list *l, uint64_t start, uint64_t end)
{
	struct snapshot_range ranges[MANY_AT_ONCE];
	struct reading *r = l->reading;

	if (!r || !r->from)
		return;
	r->fresh += end - start;
	if (r->fresh < portion())
		return;
	r->fresh = 0;
	end &= ~(portion() / 2 - 1);
	give_up(r, ranges, cut(r, &r->at, r->given, end, ranges, MANY_AT_ONCE));
	r->given = end;
	if (fault_point("copy-given-up", NULL) < 0)
		r->from = NULL;
}

void snapshots_kill(struct dumper *d)
{
	for (unsigned i = 0; d->snapshots && i < d->snapshots->n; i++)
		snapshot_kill(d->snapshots->of[i]);
}

void snapshots_wait(struct dumper *d, int64_t deadline_ns)
{
	for (unsigned i = 0; d->snapshots && i < d->snapshots->n; i++) {
		struct stop stop = { .kind = STOP_TRAP };

		while (d->snapshots->of[i] && stop.kind != STOP_EXITED)
			if (trace_wait(snapshot_pid(d->snapshots->of[i]), deadline_ns, &stop,
				       NULL) < 0)
				return;
	}
}

void snapshots_free(struct dumper *d)
{
	for (unsigned i = 0; d->snapshots && i < d->snapshots->n; i++) {
		if (!snapshot_free(d->snapshots->of[i]))
			d->job->no_snapshots = true;
		d->snapshots->of[i] = NULL;
	}
}
