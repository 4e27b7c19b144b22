/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pre-copy: pages are read into the image while the job runs, in rounds: find what was written
 * since the last round (and watch it again), copy that. What is found last is left to the stop,
 * which finds once more and copies only what is not in the image in its present form. So the image
 * holds one instant: a copy counts only if nothing was written to its page since before it was
 * taken, and what has gone since is taken back (dump/settle.c).
 *
 * A page can be written without a trace through a pin that was taken before the page was protected;
 * dump/stops.c says how the system calls that do so are waited for. There are calls that return
 * before their I/O is done, of AIO and io_uring: while the job has any of these, nothing is copied
 * ahead (and no image is made: proc/refusals.h). When what they work with is seen to be gone, after
 * the pages were protected and before they are copied, the I/O is over: the end of an AIO context
 * waits for it.
 */
#include "dump/internal.h"
#include "proc/refusals.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOG_ROOM "dump"
/* Between two looks that tell how fast the job writes. */
#define PROBE_NS 2000000

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
	bool io_goes_on; /* of AIO or io_uring */
	int64_t looked_ns;
	uint64_t copied; /* pages, in this round */
};

bool precopy_attached(const struct dump_job *job)
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

/* Now, after all that was protected has been: asynchronous I/O. */
static bool has_async_io(const struct live *l)
{
	struct proc_map *maps;
	unsigned n;
	int *fds;

	if (proc_maps_read(l->target.proc_dirfd, false, l->arena, &maps, &n, NULL) < 0)
		return true;
	for (unsigned i = 0; i < n; i++)
		if (refusal_of_mapping(maps[i].path))
			return true;
	if (proc_fds(l->target.proc_dirfd, l->arena, &fds, &n, NULL) < 0)
		return true;
	for (unsigned i = 0; i < n; i++) {
		char name[24], *link;

		(void)snprintf(name, sizeof name, "fd/%d", fds[i]);
		if (proc_link(l->target.proc_dirfd, name, l->arena, &link, NULL, NULL) == 0 &&
		    refusal_of_file(link))
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

/* A probe looks where the last look found the mappings; LOOK_MORE adds to what is to be copied. */
enum look { LOOK_FIRST, LOOK_PROBE, LOOK_AGAIN, LOOK_MORE };

/* What this round will copy; *ret_pages: how many more were found written. */
static int find(struct precopy *p, struct live *l, enum look how, uint64_t *ret_pages,
		struct err *err)
{
	CLEANUP(ranges_fini) struct ranges found = { 0 };
	struct dumper *d = p->d;
	int rc = how == LOOK_PROBE ? 0 : live_open(l, err);

	if (how == LOOK_FIRST || how == LOOK_AGAIN)
		ranges_clear(&l->what);
	if (rc == 0 && how == LOOK_FIRST && foreign_descriptor(l->target.proc_dirfd, l->arena))
		return err_set(err, -EBUSY, "process %d has a userfaultfd", l->w->pid);
	if (rc == 0)
		rc = track_find(d->tracker, &l->target, &found, err);
	if (rc < 0)
		return rc;
	*ret_pages += ranges_size(&found) / CKPT_PAGE_SIZE;
	if (how == LOOK_FIRST && !d->incremental)
		return take_all(l, err);
	if (ranges_unite(&l->what, how == LOOK_FIRST ? &l->w->pending : &found) < 0)
		return err_nomem(err);
	return 0;
}

/* A process that has ended or changed under our eyes is left to the stop. */
static int look(struct precopy *p, struct live *l, enum look how, uint64_t *ret_pages,
		struct err *err)
{
	int rc = find(p, l, how, ret_pages, err);

	if (rc == 0 || (err && err->exit_status))
		return rc;
	log_debug("pid %d is not copied ahead: %s", l->w->pid, err ? err->msg : "error");
	if (rc == -EIO) /* an injected fault, a broken /proc: not a process's coming and going */
		return rc;
	l->gone = true;
	err_clear(err);
	return 0;
}

static int copy_all(struct precopy *p, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < p->n; i++)
		if (!p->live[i].gone)
			rc = ahead_copy(p->d, p->live[i].w, p->live[i].target.pagemap_fd,
					p->live[i].mem_fd, &p->live[i].what, &p->copied, err);
	return rc < 0 ? rc : fault_point("dump-copied-ahead", err);
}

/* --- all rounds --------------------------------------------------------------------------- */

/* *ret_pages: those found written. */
static int look_all(struct precopy *p, enum look how, uint64_t *ret_pages, struct err *err)
{
	struct policy *policy = &p->d->job->policy;
	int64_t now;
	int rc = 0;

	*ret_pages = 0;
	for (unsigned i = 0; rc == 0 && i < p->n; i++)
		if (!p->live[i].gone)
			rc = look(p, &p->live[i], how, ret_pages, err);
	now = trace_now_ns();
	if (rc == 0 && how != LOOK_FIRST)
		policy_note_dirty(policy, *ret_pages, (double)(now - p->looked_ns) / 1000);
	p->looked_ns = now;
	return rc;
}

static uint64_t to_copy(const struct precopy *p)
{
	uint64_t pages = 0;

	for (unsigned i = 0; i < p->n; i++)
		if (!p->live[i].gone)
			pages += ranges_size(&p->live[i].what) / CKPT_PAGE_SIZE;
	return pages;
}

/* 1: copying ahead pays. Wanted by name, it is done once even where it does not. */
static int pays(struct precopy *p, struct err *err)
{
	const struct timespec moment = { .tv_nsec = PROBE_NS };
	struct dumper *d = p->d;
	uint64_t found;
	int rc;

	if (d->job->settings->snapshot == MODE_PRECOPY)
		return to_copy(p) > 0;
	/* not even if the job writes nothing meanwhile? */
	if (to_copy(p) <= POLICY_FEW_PAGES)
		return measure_copy_ahead(d, to_copy(p), true);
	(void)nanosleep(&moment, NULL);
	rc = look_all(p, LOOK_PROBE, &found, err);
	return rc < 0 ? rc : measure_copy_ahead(d, to_copy(p), true);
}

/* What is about to be copied is protected; nothing writes to it behind the protection's back. */
static int wait_for_pins(struct precopy *p, struct err *err)
{
	int rc = probe_without("barrier") ? 0 : stops_barrier(p->d, err);

	for (unsigned i = 0; rc == 0 && i < p->n; i++)
		p->io_goes_on |= !p->live[i].gone && has_async_io(&p->live[i]);
	return rc;
}

/* With all of it written out, where what is left to the stop would have to queue behind it. */
static int round_of(struct precopy *p, bool write_out, struct err *err)
{
	uint64_t pages = to_copy(p);
	int64_t start;
	int rc = wait_for_pins(p, err);

	if (rc < 0 || p->io_goes_on)
		return rc;
	start = trace_now_ns();
	p->copied = 0;
	image_writer_generation(p->d->writer);
	rc = copy_all(p, err);
	if (rc == 0 && write_out)
		rc = image_writer_drain(p->d->writer, err);
	if (rc < 0)
		return rc;
	(void)snprintf(p->d->result->mode, sizeof p->d->result->mode, "precopy");
	if (write_out && p->copied >= POLICY_FEW_PAGES)
		measure_learn(&p->d->job->policy.ahead_us,
			      (double)(trace_now_ns() - start) / 1000 / (double)p->copied);
	log_debug("%llu of %llu pages copied ahead", (unsigned long long)p->copied,
		  (unsigned long long)pages);
	return 0;
}

/*
 * Shortly before the stop. What takes its time goes before the last look, and then there is but the
 * time for copying a few pages in which the job writes to others.
 */
static int last_round(struct precopy *p, struct err *err)
{
	uint64_t pages;
	int rc;

	flags_look(p->d);
	p->d->flags_looked = true;
	rc = look_all(p, LOOK_MORE, &pages, err);
	if (rc < 0 || !to_copy(p) || to_copy(p) > POLICY_LAST_PAGES)
		return rc;
	return round_of(p, false, err);
}

/* As long as each leaves a good deal less to the next one. */
static int rounds(struct precopy *p, struct err *err)
{
	uint64_t pages, before;
	unsigned round = 0;
	int rc = look_all(p, LOOK_FIRST, &pages, err);

	if (rc == 0)
		rc = pays(p, err);
	if (rc <= 0)
		return rc;
	do {
		rc = round_of(p, true, err);
		if (rc < 0 || p->io_goes_on)
			return rc;
		before = p->copied;
		rc = look_all(p, LOOK_AGAIN, &pages, err);
		log_debug("round %u: %llu pages are left", round, (unsigned long long)pages);
	} while (rc == 0 && policy_another_round(++round, pages, before));
	return rc == 0 && pages <= POLICY_LAST_PAGES ? last_round(p, err) : rc;
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

/* What the stop must read if nothing more is written; it only adds what is. */
static int find_due(struct dump_job *job, struct err *err)
{
	for (unsigned i = 0; i < job->n_watched; i++) {
		struct watched *w = job->watched[i];

		if (w->ahead.n && (ranges_unite(&w->due, &w->pending) < 0 ||
				   ranges_subtract(&w->due, &w->ahead) < 0))
			return err_nomem(err);
	}
	return 0;
}

int precopy_run(struct dumper *d, struct err *err)
{
	struct precopy p = { .d = d };
	int rc = 0;

	if (!precopy_attached(d->job))
		rc = stops_attach(d, err);
	if (rc == 0)
		rc = begin(&p, err);
	if (rc == 0)
		rc = rounds(&p, err);
	for (unsigned i = 0; i < p.n; i++) {
		live_close(&p.live[i]);
		ranges_fini(&p.live[i].what);
		if (p.io_goes_on)
			ranges_clear(&p.live[i].w->ahead);
	}
	free(p.live);
	return rc < 0 ? rc : find_due(d->job, err);
}
