/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transparent huge pages. Where the program has asked for them (MADV_HUGEPAGE) a fault brings one,
 * and filling by writing is all that is to be done (sink.c). Others that the job had are named by
 * the image: those that khugepaged or MADV_COLLAPSE have made, and there is the page that was
 * touched so early that it is a small one. There the first page is touched and the range joined
 * (MADV_COLLAPSE, Linux 6.1) while it is empty: that costs what the fault would have cost.
 *
 * With --lazy memory comes in small pages, since a userfaultfd takes no others. So each process
 * that had huge ones gets a companion (inject/companion.h), made while it is rebuilt, which joins
 * them once all is there, while the program runs.
 *
 * Nothing comes back that the program had given up, or has never touched: only what is wholly in
 * the image is joined, and later only what is wholly there, of nobody else's, when its turn comes.
 * And where huge pages are given to everybody, any first touch may bring 2 MiB. So while mappings
 * are made they are forbidden to the process (PR_SET_THP_DISABLE), and so where something must be
 * written into 2 MiB that are not all in the image: once a small page is there, small ones follow.
 * What fails stays as it is: all of this is about speed.
 */
#include "restore/huge.h"

#include "restore/filler.h"

#include "inject/companion.h"
#include "proc/pagemap.h"
#include "proc/probe.h"
#include "trace/poke.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define LOG_ROOM "restore"
/* In one batch: each takes a third of a millisecond. */
#define AT_A_TIME 256

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef PR_THP_DISABLE_EXCEPT_ADVISED
#define PR_THP_DISABLE_EXCEPT_ADVISED (1 << 1) /* Linux 6.18 */
#endif

/* --- which --------------------------------------------------------------------------------- */

static bool has_room(const struct vma *v)
{
	uint64_t first = (v->start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);

	return first <= v->end && v->end - first >= HUGE_PAGE;
}

bool huge_is_given(const struct vma *v, enum huge_given to)
{
	if (to == HUGE_NOBODY || !has_room(v))
		return false;
	return (v->advice & ADVICE_HUGEPAGE) ||
	       (to == HUGE_EVERYBODY && !(v->advice & ADVICE_NOHUGEPAGE));
}

enum huge_given huge_given(const struct build_process *bp)
{
	uint32_t off = bp->state->thp_disable;

	if (off & 1)
		return off & PR_THP_DISABLE_EXCEPT_ADVISED ? HUGE_ADVISED : HUGE_NOBODY;
	return bp->huge_always ? HUGE_EVERYBODY : HUGE_ADVISED;
}

bool huge_always(void)
{
	CLEANUP_FREE char *text = NULL;

	return io_read_file(-1, "/sys/kernel/mm/transparent_hugepage/enabled", &text, NULL) == 0 &&
	       strstr(text, "[always]");
}

bool huge_is_whole(const struct resolved_run *runs, unsigned n, unsigned *cursor, uint64_t start,
		   uint64_t end)
{
	for (; *cursor < n; ++*cursor) {
		const struct page_run *run = &runs[*cursor].run;
		uint64_t first = run->page * CKPT_PAGE_SIZE;
		uint64_t last = (run->page + run->npages) * CKPT_PAGE_SIZE;

		if (first > start || last >= end)
			return first <= start && last >= end;
		start = MAX(start, last);
	}
	return false;
}

bool huge_divides(const struct build_process *bp, const struct vma *v)
{
	return has_room(v) && (bp->state->n_huge || huge_is_given(v, huge_given(bp)));
}

/* What to look for, and how far we are. */
struct search {
	struct build_process *bp;
	const struct resolved_run *runs;
	unsigned n_runs, cursor;
	unsigned recorded, touched; /* the first of these that may matter still */
	enum huge_given given;
	bool later;
};

/* Wholly in the image, and not all of it zero: that is for whoever writes to it first. */
static bool has_content(struct search *s, uint64_t at)
{
	unsigned i;

	while (s->cursor < s->n_runs &&
	       (s->runs[s->cursor].run.page + s->runs[s->cursor].run.npages) * CKPT_PAGE_SIZE <= at)
		s->cursor++;
	i = s->cursor;
	if (!huge_is_whole(s->runs, s->n_runs, &s->cursor, at, at + HUGE_PAGE))
		return false;
	while (i < s->cursor && s->runs[i].run.kind == RUN_ZERO)
		i++;
	return s->runs[i].run.kind != RUN_ZERO;
}

static bool can_be_joined(const struct vma *v)
{
	return v->kind == VMA_ANON && (v->prot & PROT_WRITE) && (v->flags & MAP_PRIVATE) &&
	       !(v->advice &
		 (ADVICE_NOHUGEPAGE | ADVICE_HUGETLB | ADVICE_DROPPABLE | ADVICE_GROWSDOWN));
}

static int add_page(struct restoring *r, struct build_process *bp, uint64_t at, struct err *err)
{
	struct range *h = arena_push(r->arena, &bp->huge, &bp->n_huge, sizeof *h);

	if (!h)
		return err_nomem(err);
	*h = (struct range){ at, at + HUGE_PAGE };
	return 0;
}

/* Those of [start, end), which lies within one mapping. */
static int search_part(struct restoring *r, struct search *s, uint64_t start, uint64_t end,
		       struct err *err)
{
	int rc = 0;

	for (uint64_t at = (start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
	     rc == 0 && at < end && end - at >= HUGE_PAGE; at += HUGE_PAGE)
		if (has_content(s, at))
			rc = add_page(r, s->bp, at, err);
	return rc;
}

/* What was recorded; where a fault brings huge pages all the same, only what was touched. All of it
 * is ascending. */
static int search_vma(struct restoring *r, struct search *s, const struct vma *v, struct err *err)
{
	const struct build_process *bp = s->bp;
	const struct process *p = bp->state;
	int rc = 0;

	while (s->recorded < p->n_huge && p->huge[s->recorded].end <= v->start)
		s->recorded++;
	while (s->touched < bp->n_touched && bp->touched[s->touched] < v->start)
		s->touched++;
	if (s->later || !huge_is_given(v, s->given)) {
		for (unsigned i = s->recorded;
		     rc == 0 && i < p->n_huge && p->huge[i].start < v->end; i++)
			rc = search_part(r, s, MAX(v->start, p->huge[i].start),
					 MIN(v->end, p->huge[i].end), err);
	} else if (s->touched < bp->n_touched && bp->touched[s->touched] < v->end) {
		uint64_t at = bp->touched[s->touched] & ~(HUGE_PAGE - 1);

		rc = search_part(r, s, MAX(at, v->start), MIN(at + HUGE_PAGE, v->end), err);
	}
	return rc;
}

static int search(struct restoring *r, struct build_process *bp, bool later, struct err *err)
{
	struct search s = { .bp = bp, .given = huge_given(bp), .later = later };
	int rc = 0;

	s.runs = resolved_runs(r->images, bp->state->space, &s.n_runs);
	for (unsigned i = 0; rc == 0 && i < bp->state->n_vmas; i++)
		if (can_be_joined(&bp->state->vmas[i]))
			rc = search_vma(r, &s, &bp->state->vmas[i], err);
	return rc;
}

unsigned huge_find(const struct build_process *bp, uint64_t at)
{
	unsigned lo = 0, hi = bp->n_huge;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (bp->huge[mid].end > at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* --- before it is filled ------------------------------------------------------------------------
 */

/* What PR_GET_THP_DISABLE gives is the flag in bit 0 and its modifiers above. */
static void set_disable(struct build_process *bp, uint32_t flags)
{
	(void)batch_call(bp->batch, NULL, SYS_prctl, PR_SET_THP_DISABLE, flags & 1, flags & ~1u, 0,
			 0);
}

void huge_forbid(struct build_process *bp)
{
	set_disable(bp, 1);
}

void huge_permit(struct build_process *bp)
{
	set_disable(bp, 0);
}

/* Those of [first, end) that could not be joined leave the list. */
static int join_some(struct build_process *bp, unsigned first, unsigned end, unsigned *kept,
		     struct err *err)
{
	int rc;

	batch_start(bp->batch);
	for (unsigned i = first; i < end; i++) {
		(void)poke_write(bp->pid, build_remote_mem(bp->remote), "", 1, bp->huge[i].start);
		(void)batch_call(bp->batch, NULL, SYS_madvise, bp->huge[i].start, HUGE_PAGE,
				 MADV_COLLAPSE);
	}
	rc = batch_run(bp->batch, bp->pid, err);
	for (unsigned i = first; rc == 0 && i < end; i++)
		if (batch_ret(bp->batch, i - first) == 0)
			bp->huge[(*kept)++] = bp->huge[i];
	return rc;
}

int huge_prepare(struct restoring *r, struct build_process *bp, bool later, struct err *err)
{
	unsigned kept = 0;
	int rc = probe_without("huge_pages") ? 0 : search(r, bp, later, err);

	for (unsigned i = 0; rc == 0 && !later && i < bp->n_huge; i += AT_A_TIME)
		rc = join_some(bp, i, MIN(bp->n_huge, i + AT_A_TIME), &kept, err);
	if (!later) {
		log_debug("pid %d: %u huge pages made, %u not", bp->pid, kept, bp->n_huge - kept);
		bp->n_huge = kept;
	}
	if (rc < 0 || !bp->state->thp_disable)
		return rc;
	/* what it had before it would have no more of them; those that are there stay */
	batch_start(bp->batch);
	set_disable(bp, bp->state->thp_disable);
	return batch_run(bp->batch, bp->pid, err);
}

/* Where something is to be written in [start, end); UINT64_MAX: nowhere. */
static uint64_t first_content(const struct resolved_run *runs, unsigned n, unsigned *cursor,
			      uint64_t start, uint64_t end)
{
	for (; *cursor < n; ++*cursor) {
		const struct page_run *run = &runs[*cursor].run;
		uint64_t first = run->page * CKPT_PAGE_SIZE;
		uint64_t last = (run->page + run->npages) * CKPT_PAGE_SIZE;

		if (first < end && last > start && run->kind != RUN_ZERO)
			return MAX(first, start);
		if (last >= end)
			break;
	}
	return UINT64_MAX;
}

/* Which pages to touch; mappings are looked at in the order of their addresses. */
struct small {
	const struct sink *sink;
	const struct resolved_run *runs;
	unsigned n_runs, whole, content; /* cursors */
	uint64_t *pages;
	unsigned n;
};

static int list_small(struct restoring *r, struct small *s, const struct vma *v, struct err *err)
{
	for (uint64_t at = (v->start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);; at += HUGE_PAGE) {
		uint64_t page = first_content(s->runs, s->n_runs, &s->content, at, v->end), *more;
		unsigned i;

		at = page & ~(HUGE_PAGE - 1);
		if (page == UINT64_MAX || v->end - at < HUGE_PAGE)
			break;
		i = sink_find_fresh(s->sink, at);
		if ((i < s->sink->n_fresh && s->sink->fresh[i].start <= at) ||
		    huge_is_whole(s->runs, s->n_runs, &s->whole, at, at + HUGE_PAGE))
			continue;
		more = arena_push(r->arena, &s->pages, &s->n, sizeof *more);
		if (!more)
			return err_nomem(err);
		*more = page;
	}
	return 0;
}

int huge_keep_small(struct restoring *r, struct build_process *bp, const struct sink *sink,
		    struct err *err)
{
	const struct process *p = bp->state;
	enum huge_given given = huge_given(bp);
	struct small s = { .sink = sink };
	int rc = 0;

	s.runs = resolved_runs(r->images, p->space, &s.n_runs);
	for (unsigned i = 0; rc == 0 && i < p->n_vmas; i++)
		if (p->vmas[i].kind == VMA_ANON && huge_is_given(&p->vmas[i], given))
			rc = list_small(r, &s, &p->vmas[i], err);
	if (rc < 0 || s.n == 0)
		return rc;
	batch_start(bp->batch);
	huge_forbid(bp);
	rc = batch_run(bp->batch, bp->pid, err);
	for (unsigned i = 0; rc == 0 && i < s.n; i++)
		(void)poke_write(bp->pid, build_remote_mem(bp->remote), "", 1, s.pages[i]);
	batch_start(bp->batch);
	set_disable(bp, p->thp_disable);
	return rc < 0 ? rc : batch_run(bp->batch, bp->pid, err);
}

/* --- once all is there ---------------------------------------------------------------------- */

/* Who adopts the job's orphans would be told of a companion's end. */
static bool adopts(const struct tree *t)
{
	for (unsigned i = 0; i < t->n_processes; i++)
		if (t->processes[i].child_subreaper)
			return true;
	return false;
}

void huge_enlist(struct restoring *r, struct build_process *bp)
{
	struct err why = { 0 };
	int rc = -ENOENT;

	if (!r->filler || !bp->n_huge || bp->memory != bp || adopts(r->tree))
		return;
	for (unsigned i = 0; i < bp->state->n_vmas; i++) {
		const struct vma *v = &bp->state->vmas[i];
		struct proc_map map = { .start = v->start, .end = v->end };

		if (v->kind != VMA_VDSO || !v->path || strcmp(v->path, "[vdso]") != 0)
			continue;
		map.path = v->path;
		rc = companion_make(bp->remote, &map, 1, &bp->companion, &why);
	}
	if (rc < 0)
		log_debug("pid %d: no huge pages: %s", bp->pid, why.msg);
	else
		bp->pidfd = (int)syscall(SYS_pidfd_open, bp->pid, 0);
}

void huge_fill_zeros(const struct filler *f)
{
	CLEANUP_FREE uint8_t *zeros = calloc(1, HUGE_PAGE);

	for (unsigned i = 0; zeros && i < f->n_sinks; i++) {
		const struct build_process *bp = f->sinks[i].bp;
		const struct resolved_run *runs;
		unsigned n;

		if (!bp || !bp->companion)
			continue;
		runs = resolved_runs(f->r->images, bp->state->space, &n);
		for (unsigned k = 0; k < n; k++) {
			uint64_t at = runs[k].run.page * CKPT_PAGE_SIZE;
			uint64_t end = at + runs[k].run.npages * CKPT_PAGE_SIZE;

			if (runs[k].run.kind != RUN_ZERO)
				continue;
			for (unsigned j = huge_find(bp, at);
			     j < bp->n_huge && bp->huge[j].start < end; j++) {
				uint64_t from = MAX(at, bp->huge[j].start);
				uint64_t to = MIN(end, bp->huge[j].end);

				(void)sink_put(&f->sinks[i], from, zeros, to - from, NULL);
			}
		}
	}
}

/* It has ended, and its memory is to go; or runs another program in other memory. */
static bool has_left(const struct build_process *bp)
{
	struct pollfd ended = { .fd = bp->pidfd, .events = POLLIN };

	return poll(&ended, 1, 0) != 0;
}

static void join_later(struct build_process *bp)
{
	CLEANUP_FD int fd = -1;
	unsigned joined = 0;
	char path[48];

	(void)snprintf(path, sizeof path, "/proc/%d/pagemap", snapshot_pid(bp->companion));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; fd >= 0 && i < bp->n_huge && !has_left(bp); i++) {
		int64_t result = -EAGAIN;

		if (!proc_pagemap_joinable(fd, bp->huge[i].start))
			continue;
		/* somebody may hold one of the pages just now */
		for (int tries = 0; tries < 2 && result == -EAGAIN; tries++)
			if (companion_call(bp->companion, SYS_madvise, bp->huge[i].start, HUGE_PAGE,
					   MADV_COLLAPSE, &result, NULL) < 0)
				return;
		joined += result == 0;
		if (fault_point("lazy-joined", NULL) < 0)
			break;
	}
	log_debug("pid %d: %u of %u huge pages are back", bp->pid, joined, bp->n_huge);
}

static void discharge(struct build_process *bp)
{
	if (!bp->companion)
		return;
	(void)snapshot_free(bp->companion);
	bp->companion = NULL;
	if (bp->pidfd >= 0)
		(void)close(bp->pidfd);
}

void huge_join(struct restoring *r)
{
	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		if (r->procs[i].companion)
			join_later(&r->procs[i]);
		discharge(&r->procs[i]);
	}
}

void huge_discharge(struct restoring *r)
{
	for (unsigned i = 0; r->procs && i < r->tree->n_processes; i++)
		discharge(&r->procs[i]);
}
