/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The short stops of a checkpoint that copies ahead. The first attaches the tracker, where it is
 * not yet: the processes must make their userfaultfds themselves.
 *
 * The others come after each look for written pages, before any is copied. A write through a pin
 * (process_vm_writev(2), /proc/PID/mem, a read(2) with O_DIRECT or from FUSE) takes no fault:
 * pinned before a page was protected, it is written to without a trace afterwards, and the copy
 * that we take in between is stale. But a pin lives no longer than the system call that took it. So
 * when every thread of the job has been stopped once, outside of any call, whatever could still
 * write so to what was protected before has done it. (Calls whose pins live on, of AIO and
 * io_uring, see dump/precopy.c.)
 */
#include "dump/internal.h"
#include "dump/tracing.h"
#include "trace/stop.h"
#include "util/fault.h"
#include "util/log.h"

#include <unistd.h>

#define LOG_ROOM "dump"

/* A stop keeps account of interrupted waits and calls as every other does. */
static int end_stop(struct dumper *d, int rc, struct err *err)
{
	if (rc == 0) {
		waits_remember(d, true);
		syscalls_remember(d->job, d->frozen);
	}
	rc = dump_ended(d, rc, err);
	dump_release(d);
	freeze_thaw(d->frozen);
	d->result->pause_us = (uint64_t)(trace_now_ns() - d->start_ns) / 1000;
	return rc;
}

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
	int rc;

	if (foreign_descriptor(s->proc_dirfd, d->arena)) /* it would find its memory taken */
		return 0;
	rc = watched_get(d->job, s->pid, &s->stat, &t.w, err);

	if (rc == 0)
		rc = proc_pagemap_open(s->proc_dirfd, &t.pagemap_fd, err);
	if (rc == 0)
		rc = d->tracker->attach(&t, err);
	if (t.pagemap_fd >= 0)
		(void)close(t.pagemap_fd);
	return rc;
}

static int attach(void *arg, struct err *err)
{
	struct dumper *d = arg;
	int rc;

	d->attaching = true;
	rc = dump_stop(d, err);
	if (rc < 0 && !d->frozen)
		return dump_ended(d, rc, err);
	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++) {
		rc = process_begin(d, i, err);
		if (rc == 0)
			rc = process_ask(d, i, err);
		if (rc == 0)
			rc = process_ready(d, i, err);
	}
	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++)
		if (!process_is_guest(d, i))
			rc = attach_process(d, i, err);
	if (rc == 0)
		rc = process_end_remotes(d, err);
	return end_stop(d, rc, err);
}

/* Freezing puts interrupted calls right at once; only timeouts are left to be looked after. */
static int barrier(void *arg, struct err *err)
{
	struct dumper *d = arg;
	int rc = dump_stop(d, err);

	if (rc < 0 && !d->frozen)
		return dump_ended(d, rc, err);
	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++) {
		rc = process_open(d, i, err);
		if (rc == 0)
			rc = waits_expire(d, i, err);
	}
	if (rc == 0)
		rc = fault_point("dump-barrier", err);
	return end_stop(d, rc, err);
}

static int run(struct dumper *d, int (*what)(void *, struct err *), double *ret_us, struct err *err)
{
	struct dump_result result = { 0 };
	struct dumper brief = {
		.job = d->job, .result = &result, .tracker = d->tracker, .flags = d->flags
	};
	int rc = dump_init(&brief, err);

	if (rc == 0)
		rc = tracing_run(&d->job->tracing, d->job->root, what, &brief, err);
	d->result->pause_us += result.pause_us;
	*ret_us = (double)result.pause_us;
	arena_free(brief.arena);
	batch_store_free(brief.batches);
	return rc;
}

int stops_attach(struct dumper *d, struct err *err)
{
	double us;

	return run(d, attach, &us, err);
}

int stops_barrier(struct dumper *d, struct err *err)
{
	double us;
	int rc = run(d, barrier, &us, err);

	if (rc == 0)
		measure_learn(&d->job->policy.short_us, us);
	return rc;
}
