/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pre-copy: pages are read into the image while the job runs, in rounds: find what was written
 * since the last round (and watch it again), copy that. What is found last is left to the stop,
 * which finds once more and copies only what is not in the image in its present form. So the image
 * holds one instant: a copy counts only if nothing was written to its page since before it was
 * taken, and what has gone since is taken back (precopy_settle).
 *
 * A page can be written without a trace where a device or another process wrote to it through a pin
 * that it had taken before the page was protected. Of devices, read(2) with O_DIRECT does that:
 * nothing is copied ahead while the job has a file open so.
 */
#include "dump/internal.h"
#include "dump/tracing.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define LOG_ROOM "dump"

/* So few are copied at the stop in less than a millisecond. */
#define FEW_PAGES  1024
#define MAX_ROUNDS 12

/* A process while it runs: looked at anew in each round. */
struct live {
	struct watched *w;
	struct arena *arena;
	struct track_target target;
	int mem_fd;
	struct ranges what; /* to be copied in this round */
	bool gone;
};

struct precopy {
	struct dumper *d;
	struct live *live;
	unsigned n;
	bool direct_io;
};

/* --- the first stop ----------------------------------------------------------------------- */

static int attach_process(struct dumper *d, unsigned i, struct err *err)
{
	struct subject *s = &d->cap.subjects[i];
	struct track_target t = { .pid = s->pid,
				  .proc_dirfd = s->proc_dirfd,
				  .pagemap_fd = -1,
				  .maps = d->maps[i].maps,
				  .n_maps = d->maps[i].n,
				  .batch = s->batch,
				  .pidfd = s->pidfd };
	int rc = watched_get(d->job, s->pid, s->proc_dirfd, &t.w, err);

	if (rc == 0)
		rc = proc_pagemap_open(s->proc_dirfd, &t.pagemap_fd, err);
	if (rc == 0)
		rc = d->tracker->attach(&t, err);
	if (t.pagemap_fd >= 0)
		(void)close(t.pagemap_fd);
	return rc;
}

static int attach_traced(void *arg, struct err *err)
{
	struct dumper *d = arg;
	int rc;

	rc = dump_stop(d, err);
	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++)
		rc = process_borrow(d, i, err);
	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++)
		if (!process_is_guest(d, i))
			rc = attach_process(d, i, err);
	if (rc == 0)
		rc = process_end_remotes(d, err);
	if (rc == 0) {
		waits_remember(d, true);
		syscalls_remember(d->job, d->frozen);
	}
	dump_release(d);
	freeze_thaw(d->frozen);
	d->result->pause_us = (uint64_t)(trace_now_ns() - d->start_ns) / 1000;
	return rc;
}

/* What must be done in the processes themselves takes a short stop of its own. */
static int attach_all(struct dumper *d, struct err *err)
{
	struct dump_result result = { 0 };
	struct dumper first = {
		.job = d->job,
		.result = &result,
		.tracker = d->tracker,
		.flags = d->flags,
		.attaching = true,
	};
	int rc = dump_init(&first, err);

	if (rc == 0)
		rc = tracing_run(d->job->root, attach_traced, &first, &d->job->by_thread, err);
	d->result->pause_us += result.pause_us;
	arena_free(first.arena);
	return rc;
}

static bool any_attached(const struct dump_job *job)
{
	for (unsigned i = 0; i < job->n_watched; i++)
		if (job->watched[i]->uffd >= 0)
			return true;
	return false;
}

/* --- looking at a running process --------------------------------------------------------- */

static void live_close(struct live *l)
{
	if (l->target.pagemap_fd >= 0)
		(void)close(l->target.pagemap_fd);
	if (l->target.proc_dirfd >= 0)
		(void)close(l->target.proc_dirfd);
	if (l->mem_fd >= 0)
		(void)close(l->mem_fd);
	l->target.pagemap_fd = l->target.proc_dirfd = l->mem_fd = -1;
	arena_free(l->arena);
	l->arena = NULL;
}

static int live_open(struct live *l, struct err *err)
{
	struct track_target *t = &l->target;
	struct proc_map *maps;
	struct proc_stat st;
	int rc;

	live_close(l);
	*t = (struct track_target){
		.w = l->w, .pid = l->w->pid, .proc_dirfd = -1, .pagemap_fd = -1, .pidfd = -1
	};
	l->arena = arena_new();
	if (!l->arena)
		return err_nomem(err);
	rc = proc_open_pid(t->pid, &t->proc_dirfd, err);
	if (rc == 0)
		rc = proc_stat_read(t->proc_dirfd, &st, err);
	if (rc == 0 && st.start_time != l->w->start_time)
		rc = err_set(err, -ESRCH, "process %d has ended", t->pid);
	if (rc == 0)
		rc = proc_pagemap_open(t->proc_dirfd, &t->pagemap_fd, err);
	if (rc == 0)
		rc = proc_maps_read(t->proc_dirfd, false, l->arena, &maps, &t->n_maps, err);
	if (rc < 0)
		return rc;
	t->maps = maps;
	l->mem_fd = openat(t->proc_dirfd, "mem", O_RDONLY | O_CLOEXEC);
	return l->mem_fd < 0 ? err_set(err, -errno, "cannot open '/proc/%d/mem': %m", t->pid) : 0;
}

static bool has_direct_io(const struct live *l)
{
	unsigned n;
	int *fds;

	if (proc_fds(l->target.proc_dirfd, l->arena, &fds, &n, NULL) < 0)
		return true;
	for (unsigned i = 0; i < n; i++) {
		struct proc_fdinfo info;

		if (proc_fdinfo_read(l->target.proc_dirfd, fds[i], l->arena, &info, NULL) == 0 &&
		    (info.flags & O_DIRECT))
			return true;
	}
	return false;
}

/* --- a round ------------------------------------------------------------------------------ */

/* All private memory, for a full image. */
static int take_all(struct live *l, struct err *err)
{
	for (unsigned i = 0; i < l->target.n_maps; i++) {
		const struct proc_map *m = &l->target.maps[i];

		if (track_private(m) && ranges_append(&l->what, m->start, m->end) < 0)
			return err_nomem(err);
	}
	return 0;
}

/* Finds what this round will copy; *ret_pages: how many were found written. A process that has
 * ended or changed under our eyes is left to the stop. */
static int look(struct precopy *p, struct live *l, bool first, uint64_t *ret_pages, struct err *err)
{
	CLEANUP(ranges_fini) struct ranges found = { 0 };
	struct dumper *d = p->d;
	int rc = live_open(l, err);

	ranges_clear(&l->what);
	if (rc == 0)
		rc = track_find(d->tracker, &l->target, &found, err);
	if (rc == 0 && has_direct_io(l))
		p->direct_io = true;
	if (rc == 0 && first && !d->incremental)
		rc = take_all(l, err);
	else if (rc == 0)
		rc = ranges_unite(&l->what, first ? &l->w->pending : &found) < 0 ? err_nomem(err)
										 : 0;
	if (rc == 0)
		*ret_pages += ranges_size(first ? &l->what : &found) / CKPT_PAGE_SIZE;
	if (rc == 0 || (err && err->exit_status))
		return rc;
	log_debug("pid %d is not copied ahead: %s", l->w->pid, err ? err->msg : "error");
	if (rc == -EIO) /* an injected fault, a broken /proc: not a process's coming and going */
		return rc;
	l->gone = true;
	err_clear(err);
	return 0;
}

struct copier {
	struct precopy *p;
	struct live *l;
	struct ranges missed;
};

/* A run that is there and watched: as much as can be read. */
static int copy_run(void *arg, const struct page_class_run *run, struct err *err)
{
	struct copier *c = arg;
	struct dumper *d = c->p->d;

	if (!(run->classes & (PAGE_ANON | PAGE_SWAPPED)) ||
	    !d->tracker->is_watched(c->l->w, run->classes))
		return 0;
	for (uint64_t at = run->start; at < run->end;) {
		size_t len =
			(size_t)MIN(run->end - at, (uint64_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
		void *buf = image_writer_buffer(d->writer, err);
		ssize_t got;
		int rc;

		if (!buf)
			return err && err->code ? err->code : -EIO;
		got = io_pread_full(c->l->mem_fd, buf, len, at);
		got = got > 0 ? got & ~(ssize_t)(CKPT_PAGE_SIZE - 1) : 0;
		rc = image_writer_submit(d->writer, c->l->w->space, at / CKPT_PAGE_SIZE,
					 (unsigned)(got / CKPT_PAGE_SIZE), err);
		if (rc < 0)
			return rc;
		if ((size_t)got < len &&
		    ranges_append(&c->missed, at + (uint64_t)got, at + len) < 0)
			return err_nomem(err);
		at += len;
	}
	return 0;
}

static int copy_process(struct precopy *p, struct live *l, struct err *err)
{
	struct copier c = { .p = p, .l = l };
	struct watched *w = l->w;
	int rc = ranges_unite(&w->given, &l->what) < 0 ? err_nomem(err) : 0;

	for (size_t i = 0; rc == 0 && i < l->what.n; i++)
		rc = proc_pagemap_scan_marked(l->target.pagemap_fd, l->what.v[i].start,
					      l->what.v[i].end, 0, copy_run, &c, err);
	if (rc == 0 &&
	    (ranges_unite(&w->ahead, &l->what) < 0 || ranges_subtract(&w->ahead, &c.missed) < 0)) {
		ranges_clear(&w->ahead);
		rc = err_nomem(err);
	}
	ranges_fini(&c.missed);
	return rc;
}

static int copy_all(struct precopy *p, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < p->n; i++)
		if (!p->live[i].gone)
			rc = copy_process(p, &p->live[i], err);
	if (rc == 0)
		rc = fault_point("dump-copied-ahead", err);
	/* what the stop leaves to be written must not queue behind this */
	return rc < 0 ? rc : image_writer_drain(p->d->writer, err);
}

/* --- all rounds --------------------------------------------------------------------------- */

static int look_all(struct precopy *p, bool first, uint64_t *ret_pages, struct err *err)
{
	int rc = 0;

	*ret_pages = 0;
	for (unsigned i = 0; rc == 0 && i < p->n; i++)
		if (!p->live[i].gone)
			rc = look(p, &p->live[i], first, ret_pages, err);
	return rc;
}

/* As long as each leaves a good deal less to the next one. */
static int rounds(struct precopy *p, struct err *err)
{
	bool forced = p->d->job->settings->snapshot == MODE_PRECOPY;
	uint64_t pages, before = UINT64_MAX;

	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		int rc = look_all(p, round == 0, &pages, err);

		log_debug("round %u: %llu pages", round, (unsigned long long)pages);
		if (rc < 0 || p->direct_io)
			return rc;
		/* wanted by name, it is done once even where it does not pay */
		if (!pages || ((round || !forced) && pages <= FEW_PAGES) || pages > before / 4 * 3)
			return 0;
		image_writer_generation(p->d->writer);
		rc = copy_all(p, err);
		if (rc < 0)
			return rc;
		(void)snprintf(p->d->result->mode, sizeof p->d->result->mode, "precopy");
		before = pages;
	}
	return 0;
}

static int begin(struct precopy *p, struct err *err)
{
	struct dump_job *job = p->d->job;

	p->live = calloc(job->n_watched + (size_t)1, sizeof *p->live);
	if (!p->live)
		return err_nomem(err);
	for (unsigned i = 0; i < job->n_watched; i++) {
		struct watched *w = job->watched[i];
		struct live *l = &p->live[p->n];
		char key[PROCESS_KEY_LEN];

		if (w->uffd < 0)
			continue;
		process_key(key, w->pid, w->start_time);
		w->space = dump_space_id(job, key);
		if (!w->space)
			return err_nomem(err);
		*l = (struct live){ .w = w, .mem_fd = -1 };
		l->target.pagemap_fd = l->target.proc_dirfd = -1;
		p->n++;
	}
	return 0;
}

int precopy_run(struct dumper *d, struct err *err)
{
	struct precopy p = { .d = d };
	int rc = 0;

	if (!any_attached(d->job))
		rc = attach_all(d, err);
	if (rc == 0)
		rc = begin(&p, err);
	if (rc == 0)
		rc = rounds(&p, err);
	for (unsigned i = 0; i < p.n; i++) {
		live_close(&p.live[i]);
		ranges_fini(&p.live[i].what);
		if (p.direct_io)
			ranges_clear(&p.live[i].w->ahead);
	}
	free(p.live);
	return rc;
}

/* --- at the stop -------------------------------------------------------------------------- */

void precopy_distrust(struct dumper *d)
{
	for (unsigned i = 0; i < d->tree->n_files; i++)
		if (d->tree->files[i].flags & O_DIRECT)
			for (unsigned j = 0; j < d->job->n_watched; j++)
				ranges_clear(&d->job->watched[j]->ahead);
}

static int take_back(struct dumper *d, const struct watched *w, struct err *err)
{
	size_t at = 0;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < w->given.n; i++) {
		uint64_t start = w->given.v[i].start, end = w->given.v[i].end;

		while (rc == 0 && start < end) {
			bool kept;
			uint64_t part = ranges_part(&w->keep, &at, start, end, &kept);

			if (!kept)
				rc = image_writer_run(d->writer, w->space, RUN_NONE,
						      start / CKPT_PAGE_SIZE,
						      (part - start) / CKPT_PAGE_SIZE, err);
			start = part;
		}
	}
	return rc;
}

int precopy_settle(struct dumper *d, struct err *err)
{
	bool any = false;
	int rc = 0;

	for (unsigned i = 0; i < d->job->n_watched; i++)
		any |= d->job->watched[i]->given.n > 0;
	if (!any)
		return 0;
	image_writer_generation(d->writer);
	for (unsigned i = 0; rc == 0 && i < d->job->n_watched; i++)
		rc = take_back(d, d->job->watched[i], err);
	image_writer_generation(d->writer);
	return rc;
}
