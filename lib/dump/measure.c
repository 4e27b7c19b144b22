/* SPDX-License-Identifier: BSD-2-Clause */
/* What checkpoints teach the policy (dump/policy.h), what it is asked, and what is said of it in
 * --stats. */
#include "dump/internal.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <stdio.h>
#include <string.h>

#define LOG_ROOM "dump"
/* Fewer teach nothing of the price of one. */
#define MEASURED_PAGES 256
#define FORK_EACH_US   300
/* Of a job of more processes, so many are looked at: the others are taken to be like them. */
#define MOST_PROCESSES 64

/* --- how large the job is ----------------------------------------------------------------- */

static void look_at(pid_t pid, struct arena *a, struct policy_task *t)
{
	CLEANUP_FD int dirfd = -1;
	uint64_t pages;
	unsigned n;
	pid_t *pids;

	if (t->processes == MOST_PROCESSES || proc_open_pid(pid, &dirfd, NULL) < 0)
		return;
	t->processes++;
	if (proc_private_pages(dirfd, &pages, NULL) == 0)
		t->present += pages;
	if (proc_children(dirfd, a, &pids, &n, NULL) < 0)
		return;
	for (unsigned i = 0; i < n; i++)
		look_at(pids[i], a, t);
}

bool measure_can_copy_ahead(const struct dumper *d)
{
	uint32_t mode = d->job->settings->snapshot;

	return d->job->tracker->live && !(d->flags & DUMP_KILL) &&
	       (mode == MODE_PRECOPY || mode == MODE_AUTO);
}

bool measure_copy_ahead(struct dumper *d, uint64_t copy, bool attached)
{
	struct policy_task t = { .attached = attached };
	struct policy_forecast *f = &d->forecast;
	struct arena *a = arena_new();

	if (!a)
		return false;
	look_at(d->job->root, a, &t);
	arena_free(a);
	t.copy = MIN(copy, t.present);
	policy_forecast(&d->job->policy, &t, f);
	d->foresaw_precopy = true;
	log_debug("%u processes, %llu pages, %llu to copy: predicted us: stop %.0f, snapshot %.0f, "
		  "precopy %.0f (%llu left)",
		  t.processes, (unsigned long long)t.present, (unsigned long long)t.copy, f->stop,
		  f->snapshot, f->precopy, (unsigned long long)f->left);
	return policy_choose(f, 1u << MODE_PRECOPY | 1u << MODE_SNAPSHOT) == MODE_PRECOPY;
}

/* Whoever names a tracker has it. Comparing hashes costs the job nothing. */
static bool may_rest(const struct dump_job *job)
{
	return !strcmp(job->settings->tracker, "auto") && job->tracker != &tracker_hash;
}

bool measure_watch(const struct dump_job *job)
{
	return !may_rest(job) || policy_watch(&job->policy);
}

void measure_note_increment(struct dumper *d)
{
	const struct dump_result *r = d->result;

	if (d->incremental)
		policy_note_increment(&d->job->policy, r->totals.pages_written, r->pages_present);
	else if (!d->hashing)
		policy_note_unwatched(&d->job->policy);
}

/* --- at the stop -------------------------------------------------------------------------- */

static bool is_process(const struct dumper *d, uint32_t space)
{
	for (unsigned i = 0; i < d->tree->n_processes; i++)
		if (d->tree->processes[i].space == space)
			return true;
	return false;
}

void measure_at_stop(struct dumper *d)
{
	struct policy_task t = { .processes = d->cap.n_subjects, .attached = true };
	struct policy_forecast f;

	for (unsigned i = 0; i < d->n_lists; i++) {
		bool own = is_process(d, d->lists[i].space);

		t.present += d->lists[i].others;
		for (unsigned j = 0; j < d->lists[i].n_extents; j++) {
			const struct extent *e = &d->lists[i].extents[j];

			t.present += own ? e->npages : 0;
			if (e->kind != EXTENT_PARENT)
				*(own ? &t.copy : &t.shared) += e->npages;
		}
	}
	d->copy_before = t.shared;
	if (d->foresaw_precopy && !strcmp(d->result->mode, "precopy"))
		return; /* what is left now says nothing of what would have been */
	policy_forecast(&d->job->policy, &t, &f);
	d->forecast.stop = f.stop;
	d->forecast.snapshot = f.snapshot;
}

/* --- afterwards --------------------------------------------------------------------------- */

void measure_learn(double *price, double measured)
{
	if (!probe_without("experience"))
		policy_note(price, measured);
}

static void note_copy(const struct dumper *d, struct policy *p)
{
	double us = (double)d->copy_us, n = (double)d->copied;

	if (d->copied < MEASURED_PAGES)
		return;
	if (d->copied <= POLICY_GATHER_PAGES) {
		measure_learn(&p->gather_us, us / n);
		return;
	}
	us -= policy_copy_us(p, POLICY_GATHER_PAGES);
	n -= POLICY_GATHER_PAGES;
	if (us > 0 && n >= MEASURED_PAGES)
		measure_learn(&p->write_us, us / n);
}

void measure_note(struct dumper *d)
{
	const struct dump_result *r = d->result;
	struct policy *p = &d->job->policy;
	double find = d->fresh ? (double)r->pages_present * POLICY_FIND_US : 0;
	double stop = (double)d->stop_us - (double)d->copy_us - (double)r->snapshot_us - find;
	double forks = (double)r->snapshot_us - FORK_EACH_US * (double)d->n_forked;

	if (!d->stop_us)
		return;
	measure_learn(&p->stop_us, MAX(stop, (double)r->freeze_us));
	note_copy(d, p);
	if (d->forked >= MEASURED_PAGES)
		measure_learn(&p->fork_us, MAX(forks, 1.0) / (double)d->forked);
}

static const char *why_forced(const struct dumper *d)
{
	uint32_t mode = d->job->settings->snapshot;

	if (mode == MODE_PRECOPY && !d->job->tracker->live)
		return "asked for precopy, which takes the tracker uffd";
	if (mode == MODE_PRECOPY && (d->flags & DUMP_KILL))
		return "the job ends with this checkpoint";
	return mode == MODE_STOP       ? "asked for stop"
	       : mode == MODE_SNAPSHOT ? "asked for snapshot"
				       : "asked for precopy";
}

void measure_say_why(struct dumper *d)
{
	struct dump_result *r = d->result;
	const struct policy_forecast *f = &d->forecast;
	char ahead[48] = "";

	if (d->job->settings->snapshot != MODE_AUTO || (d->flags & DUMP_KILL)) {
		(void)snprintf(r->why, sizeof r->why, "%s",
			       d->job->settings->snapshot == MODE_AUTO
				       ? "the job ends with this checkpoint"
				       : why_forced(d));
		return;
	}
	if (d->foresaw_precopy)
		(void)snprintf(ahead, sizeof ahead, ", precopy %.1f", f->precopy / 1000);
	if (f->stop > 0)
		(void)snprintf(r->why, sizeof r->why, "predicted ms: stop %.1f, snapshot %.1f%s",
			       f->stop / 1000, f->snapshot / 1000, ahead);
}
