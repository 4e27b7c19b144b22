/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Giving a job its transparent huge pages back. A checkpoint makes the kernel split them: at the
 * first write to one that is write-protected (uffd.c), and at the first to one that a snapshot
 * shares. khugepaged would take hours to join them again, and memory in small pages is slower.
 *
 * Which there are is looked at before anything is protected (mend_look) and remembered. At the stop
 * each process that has enough of them gets a companion (inject/companion.h), and when the image is
 * durable that joins what has been split since (MADV_COLLAPSE, Linux 6.1). It has to run inside:
 * process_madvise(2) asks for CAP_SYS_NICE.
 *
 * Joined is only what was one page before, is all there (a program that gave some of it up is not
 * to get it back) and nobody else's too (a child of the job's that has a copy would be left with
 * one of its own, twice the memory). What fails is forgotten.
 *
 * Pages with a mark of protection are not joined by the kernel, so the mark goes first; these count
 * as written at the next checkpoint (PAGEMAP_SCAN: not marked is written). So this is done where
 * half of them have been written to anyway.
 *
 * It is better not to split them at all: where most of a job's memory is in huge pages, no tracker
 * watches it (mend_choose_tracker). A fork of these costs a millisecond for a GiB, and all is then
 * compared by hash, on another CPU.
 */
#include "dump/internal.h"
#include "dump/warden.h"
#include "inject/companion.h"
#include "proc/pagemap.h"
#include "trace/outlive.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOG_ROOM "dump"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES (2ull << 20)
/* Less is not worth a process. */
#define WORTH_MENDING (8ull << 20)
/* Comparing takes 0.3 s for each GiB, each time. */
#define COMPARE_MOST (8ull << 30)
/* Pages that are not in a snapshot: of files, and what a fork leaves out. */
#define FEW_PAGES 4096
/* A snapshot's memory goes before anything is joined: until then it has a part in the pages. */
#define GONE_NS (60LL * 1000000000)

/* CKPT_WITHOUT=worth_mending: one is enough. */
static uint64_t worth_mending(void)
{
	return probe_without("worth_mending") ? HUGE_BYTES : WORTH_MENDING;
}

struct mender {
	struct snapshot *helper;
	struct watched *w;
};

struct menders {
	struct mender *v;
	unsigned n;
};

/* --- which there are ---------------------------------------------------------------------- */

static int add_region(void *arg, const struct pagemap_region *r, struct err *err)
{
	return ranges_append(arg, r->start, r->end) < 0 ? err_nomem(err) : 0;
}

static int find_huge(int pagemap_fd, uint64_t start, uint64_t end, struct ranges *into,
		     struct err *err)
{
	const struct pagemap_scan what = {
		.category_inverted = CATEGORY_FILE | CATEGORY_PFNZERO,
		.category_mask = CATEGORY_HUGE | CATEGORY_FILE | CATEGORY_PFNZERO,
		.return_mask = CATEGORY_HUGE,
	};

	return proc_pagemap_query(pagemap_fd, start, end, &what, add_region, into, err);
}

/* One query for neighbouring mappings. */
static int find_all(int pagemap_fd, const struct proc_map *maps, unsigned n, struct ranges *into)
{
	int rc = 0;

	for (unsigned i = 0, last; rc == 0 && i < n; i = last) {
		last = i + 1;
		if (maps[i].ino || !track_private(&maps[i]))
			continue;
		while (last < n && maps[last].start == maps[last - 1].end && !maps[last].ino &&
		       track_private(&maps[last]))
			last++;
		if (maps[last - 1].end - maps[i].start >= HUGE_BYTES)
			rc = find_huge(pagemap_fd, maps[i].start, maps[last - 1].end, into, NULL);
	}
	return rc;
}

/* *huge, *present: bytes of all processes. */
static void look(struct watched *w, struct arena *a, uint64_t *huge, uint64_t *present)
{
	CLEANUP_FD int dirfd = -1, pagemap_fd = -1;
	CLEANUP(ranges_fini) struct ranges now = { 0 };
	struct proc_map *maps;
	struct proc_stat st;
	uint64_t pages;
	unsigned n;

	if (proc_open_pid(w->pid, &dirfd, NULL) < 0 ||
	    proc_private_pages(dirfd, &pages, NULL) < 0 ||
	    pages < worth_mending() / CKPT_PAGE_SIZE || proc_stat_read(dirfd, &st, NULL) < 0 ||
	    st.start_time != w->start_time)
		return;
	if (st.start_stack != w->huge_stack) /* another program */
		ranges_clear(&w->huge);
	w->huge_stack = st.start_stack;
	w->huge.excess = RANGES_SHRINK;
	if (proc_pagemap_open(dirfd, &pagemap_fd, NULL) < 0 ||
	    proc_maps_read(dirfd, false, a, &maps, &n, NULL) < 0)
		return;
	if (find_all(pagemap_fd, maps, n, &now) == 0)
		(void)ranges_unite(&w->huge, &now);
	*huge += ranges_size(&w->huge);
	*present += pages * CKPT_PAGE_SIZE;
}

void mend_look(struct dumper *d)
{
	struct dump_job *job = d->job;
	struct arena *a;

	if (!probe_get(PROBE_PAGEMAP_SCAN)->ok)
		return;
	if (!job->n_watched)
		flags_meet(job);
	a = arena_new();
	for (unsigned i = 0; a && i < job->n_watched; i++)
		look(job->watched[i], a, &d->huge, &d->present);
	arena_free(a);
}

/* A restart is to bring them back, also those that the program has not asked for. */
void mend_record(struct dumper *d)
{
	for (unsigned i = 0; i < d->cap.n_subjects; i++) {
		const struct subject *s = &d->cap.subjects[i];
		struct watched *w = watched_find(d->job, s->pid, s->stat.start_time);
		struct process *p = &d->tree->processes[i];

		if (!w || !w->huge.n || process_is_guest(d, i))
			continue;
		p->huge = arena_array(d->arena, w->huge.n, sizeof *p->huge);
		for (size_t j = 0; p->huge && j < w->huge.n; j++)
			p->huge[p->n_huge++] =
				(struct range){ w->huge.v[j].start, w->huge.v[j].end };
	}
}

void mend_prepare(struct dumper *d)
{
	if (d->huge >= worth_mending())
		d->warden = warden_new();
}

static void use_tracker(struct dump_job *job, bool by_hash)
{
	if (by_hash == job->by_hash)
		return;
	for (unsigned i = 0; i < job->n_watched; i++)
		job->tracker->forget(job->watched[i]);
	job->tracker = by_hash ? &tracker_hash : tracker_choose(job->settings->tracker);
	job->by_hash = by_hash;
	log_debug("tracker %s, since of %s memory is in huge pages", job->tracker->name,
		  by_hash ? "most" : "not much");
}

/* For a job that is forked at its checkpoints: read while it stands still, all of it would cost
 * more than its writes. */
void mend_choose_tracker(struct dumper *d)
{
	struct dump_job *job = d->job;
	const struct settings *s = job->settings;
	bool may = !strcmp(s->tracker, "auto") && !job->never_by_hash && !job->no_snapshots &&
		   (s->snapshot == MODE_AUTO || s->snapshot == MODE_SNAPSHOT) &&
		   (job->by_hash || job->tracker->live);

	if (d->flags & DUMP_KILL) /* nothing will follow */
		return;
	if (!may || d->huge < d->present / 4 || d->huge < WORTH_MENDING ||
	    d->present > COMPARE_MOST)
		use_tracker(job, false);
	else if (d->huge >= d->present / 4 * 3)
		use_tracker(job, true);
}

void mend_note(struct dumper *d)
{
	if (d->job->by_hash && d->hashing && d->stop_us && d->copied > FEW_PAGES)
		d->job->never_by_hash = true;
}

/* --- at the stop -------------------------------------------------------------------------- */

static int take_one(struct dumper *d, unsigned index, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	struct watched *w = watched_find(d->job, s->pid, s->stat.start_time);
	struct mender *m = &d->menders->v[d->menders->n];
	struct err why = { 0 };
	int rc;

	if (!w || !s->remote || process_is_guest(d, index) ||
	    ranges_size(&w->huge) < worth_mending())
		return 0;
	rc = companion_make(s->remote, d->maps[index].maps, d->maps[index].n, &m->helper, &why);
	if (rc == 0) {
		m->w = w;
		d->menders->n++;
		return 0;
	}
	log_debug("nothing will be mended: %s", why.msg);
	if (rc == -ESRCH && err)
		*err = why;
	return rc == -ESRCH ? rc : 0;
}

/* A job that ends is not to leave its memory with us. */
static void watch_all(struct dumper *d)
{
	unsigned n = d->menders->n;
	struct ward *wards = d->warden && n ? arena_array(d->arena, n, sizeof *wards) : NULL;

	for (unsigned i = 0; wards && i < n; i++)
		wards[i] = (struct ward){ .companion = d->menders->v[i].helper,
					  .pid = d->menders->v[i].w->pid };
	if (wards)
		warden_begin(d->warden, wards, n);
}

int mend_take(struct dumper *d, struct err *err)
{
	unsigned n = d->cap.n_subjects;
	int rc = 0;

	if (d->job->no_snapshots || d->has_foreign || (d->flags & DUMP_KILL) ||
	    snapshots_adopted(d))
		return 0;
	d->menders = arena_array(d->arena, 1, sizeof *d->menders);
	if (d->menders)
		d->menders->v = arena_array(d->arena, n, sizeof *d->menders->v);
	if (!d->menders || !d->menders->v)
		return err_nomem(err);
	for (unsigned i = 0; rc == 0 && i < n; i++)
		rc = take_one(d, i, err);
	watch_all(d);
	return rc;
}

/* --- afterwards --------------------------------------------------------------------------- */

/* Of one process, while it runs. */
struct mending {
	struct mender *m;
	int pagemap_fd;
	struct ranges lost, again;
	uint64_t joined;
};

static void forget(struct mending *x, uint64_t at)
{
	struct span span = { at, at + HUGE_BYTES };
	const struct ranges one = { .v = &span, .n = 1 };

	(void)ranges_subtract(&x->m->w->huge, &one);
}

/* Bytes that the image holds since they were found written at the stop. */
static uint64_t found_written(const struct watched *w, uint64_t start, uint64_t end, size_t *cursor)
{
	uint64_t sum = 0, part;

	for (; start < end; start = part) {
		bool inside;

		part = ranges_part(&w->pending, cursor, start, end, &inside);
		sum += inside ? part - start : 0;
	}
	return sum;
}

/*
 * Where few pages are written to, joining them costs more than it gives: the next increment holds
 * all of them. What has been written to since the stop it holds anyway.
 */
static bool is_written(const struct mending *x, uint64_t at, size_t *cursor)
{
	const struct pagemap_scan what = {
		.category_mask = CATEGORY_WRITTEN,
		.return_mask = CATEGORY_WRITTEN,
	};
	CLEANUP(ranges_fini) struct ranges written = { 0 };
	const struct watched *w = x->m->w;

	if (w->uffd < 0 || w->all_pending || probe_without("worth_mending") ||
	    found_written(w, at, at + HUGE_BYTES, cursor) >= HUGE_BYTES / 2)
		return true;
	return proc_pagemap_query(x->pagemap_fd, at, at + HUGE_BYTES, &what, add_region, &written,
				  NULL) == 0 &&
	       ranges_size(&written) >= HUGE_BYTES / 2;
}

/* What was huge, is not any more, and can be again. */
static int find_lost(struct mending *x)
{
	CLEANUP(ranges_fini) struct ranges now = { 0 }, split = { 0 };
	const struct ranges *huge = &x->m->w->huge;
	int rc = ranges_unite(&split, huge);
	size_t cursor = 0;

	for (size_t i = 0; rc == 0 && i < huge->n; i++)
		rc = find_huge(x->pagemap_fd, huge->v[i].start, huge->v[i].end, &now, NULL);
	if (rc == 0)
		rc = ranges_subtract(&split, &now);
	for (size_t i = 0; rc == 0 && i < split.n; i++)
		for (uint64_t at = split.v[i].start; rc == 0 && at + HUGE_BYTES <= split.v[i].end;
		     at += HUGE_BYTES) {
			if (!proc_pagemap_joinable(x->pagemap_fd, at))
				forget(x, at);
			else if (is_written(x, at, &cursor))
				rc = ranges_append(&x->lost, at, at + HUGE_BYTES);
		}
	return rc;
}

/* Has the process still this memory? kcmp(2) may not be allowed. */
static bool is_there(const struct mending *x)
{
	pid_t pid = x->m->w->pid;
	long rc = syscall(SYS_kcmp, pid, snapshot_pid(x->m->helper), KCMP_VM, 0, 0);

	return rc == 0 || (rc < 0 && errno != ESRCH && kill(pid, 0) == 0);
}

/* Not 0: it is no use to go on. */
static int join(struct mending *x, uint64_t at, bool last_try)
{
	int64_t result = 0;
	int rc;

	if (outlive_orphaned() || !is_there(x))
		return -ESRCH;
	uffd_unprotect(x->m->w, at, at + HUGE_BYTES);
	rc = companion_call(x->m->helper, SYS_madvise, at, HUGE_BYTES, MADV_COLLAPSE, &result,
			    NULL);
	if (rc < 0)
		return rc;
	if (result == 0)
		x->joined += HUGE_BYTES;
	else if (result == -EAGAIN && !last_try) /* somebody holds one of the pages just now */
		(void)ranges_append(&x->again, at, at + HUGE_BYTES);
	else
		forget(x, at);
	return fault_point("dump-mended", NULL);
}

static int join_all(struct mending *x, const struct ranges *which, bool last_try)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < which->n; i++)
		for (uint64_t at = which->v[i].start; rc == 0 && at < which->v[i].end;
		     at += HUGE_BYTES)
			rc = join(x, at, last_try);
	return rc;
}

static void mend(struct mender *m)
{
	struct mending x = { .m = m, .pagemap_fd = -1 };
	char path[48];
	int64_t start = trace_now_ns();
	int rc;

	/* the helper's memory is the process's of the stop, whatever has become of that since */
	(void)snprintf(path, sizeof path, "/proc/%d/pagemap", snapshot_pid(m->helper));
	x.pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
	rc = x.pagemap_fd < 0 ? -errno : find_lost(&x);
	if (rc == 0 && ranges_size(&x.lost) >= worth_mending())
		rc = join_all(&x, &x.lost, false);
	if (rc == 0)
		rc = join_all(&x, &x.again, true);
	log_debug("pid %d: of %llu MiB huge pages %llu were lost, %llu are back after %llu us: %d",
		  m->w->pid, (unsigned long long)(ranges_size(&m->w->huge) >> 20),
		  (unsigned long long)(ranges_size(&x.lost) >> 20),
		  (unsigned long long)(x.joined >> 20),
		  (unsigned long long)(trace_now_ns() - start) / 1000, rc);
	if (x.pagemap_fd >= 0)
		(void)close(x.pagemap_fd);
	ranges_fini(&x.lost);
	ranges_fini(&x.again);
}

bool mend_wanted(const struct dumper *d)
{
	return d->menders && d->menders->n > 0;
}

void mend_all(struct dumper *d)
{
	snapshots_wait(d, trace_now_ns() + GONE_NS);
	for (unsigned i = 0; i < d->menders->n; i++) {
		mend(&d->menders->v[i]);
		snapshot_kill(d->menders->v[i].helper);
	}
}

void mend_kill(struct dumper *d)
{
	for (unsigned i = 0; d->menders && i < d->menders->n; i++)
		snapshot_kill(d->menders->v[i].helper);
}

void mend_free(struct dumper *d)
{
	warden_free(d->warden);
	for (unsigned i = 0; d->menders && i < d->menders->n; i++)
		if (!snapshot_free(d->menders->v[i].helper))
			d->job->no_snapshots = true;
}
