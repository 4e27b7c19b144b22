/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The story of a checkpoint: freeze the tree, capture it, write its pages, thaw it, make the image
 * durable.
 *
 * All that needs ptrace (traced, and what it calls) happens in a process of its own
 * (dump/tracing.h): whatever goes wrong, when it has ended the kernel has let go of every thread of
 * the job.
 */
#include "dump/dump.h"

#include "dump/internal.h"
#include "dump/tracing.h"
#include "proc/orphans.h"
#include "proc/probe.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define LOG_ROOM          "dump"
#define FREEZE_TIMEOUT_MS 3000
#define PUT_OFF_MOST      4 /* attempts for unread inotify events to be read */

static int prepare(struct dumper *d, struct err *err)
{
	unsigned n = d->frozen->n_procs;
	int rc;

	d->tree->processes = arena_array(d->arena, n, sizeof *d->tree->processes);
	d->cap.subjects = arena_array(d->arena, n, sizeof *d->cap.subjects);
	d->mem_fds = arena_array(d->arena, n, sizeof *d->mem_fds);
	d->memory_of = arena_array(d->arena, n, sizeof *d->memory_of);
	d->maps = arena_array(d->arena, n, sizeof *d->maps);
	d->facts = arena_array(d->arena, n, sizeof *d->facts);
	if (!d->tree->processes || !d->cap.subjects || !d->mem_fds || !d->maps || !d->facts ||
	    !d->memory_of)
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++) {
		d->mem_fds[i] = -1;
		d->cap.subjects[i].pidfd = d->cap.subjects[i].proc_dirfd = -1;
	}
	d->cap.n_subjects = d->tree->n_processes = n;
	rc = look_list(d, err);
	if (rc == 0)
		look_ahead(d);
	if (rc == 0)
		rc = family_find_memory(d, err);
	return rc < 0 ? rc : watched_settle(d, err);
}

static int ask(void *arg, unsigned i, struct arena *a, void **ret, struct err *err)
{
	return files_ask(arg, i, a, ret, err);
}

/* Another thread's answers, or ours, to what files_capture has left. */
static int take_answers(struct dumper *d, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < d->cap.n_later; i++)
		rc = files_answered(&d->cap, i, scout_take(d->asker, i), err);
	return rc;
}

/* Everything but the content of pages. */
static int capture(struct dumper *d, struct err *err)
{
	int rc = processes_capture(d, err);

	if (rc == 0)
		walk_begin(d);
	if (rc == 0)
		rc = family_capture(d, err);
	if (rc == 0)
		log_debug("processes captured");
	if (rc == 0)
		rc = files_capture(&d->cap, err);
	if (rc == 0 && d->cap.n_later)
		scout_begin(d->asker, &(struct scout_work){ .n = d->cap.n_later,
							    .run = ask,
							    .arg = &d->cap,
							    .own = d->arena });
	if (rc == 0)
		log_debug("files captured");
	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++)
		if (!process_is_guest(d, i))
			rc = memory_capture(d, &d->cap.subjects[i], &d->maps[i], d->mem_fds[i],
					    err);
	if (rc == 0)
		rc = sysv_capture(&d->cap, err);
	if (rc == 0)
		rc = shared_capture(d, err);
	if (rc == 0)
		log_debug("memory captured");
	if (rc == 0)
		rc = fault_point("dump-captured", err);
	if (rc == 0) {
		pages_sort(d);
		measure_at_stop(d);
		rc = snapshots_take(d, err);
	}
	if (rc == 0)
		rc = mend_take(d, err);
	if (rc == 0)
		rc = process_end_remotes(d, err);
	if (rc == 0)
		rc = take_answers(d, err);
	if (rc == 0)
		waits_remember(d, true);
	if (rc == 0)
		syscalls_remember(d->job, d->frozen);
	return rc;
}

int dump_stop(struct dumper *d, struct err *err)
{
	struct dump_result *r = d->result;
	int rc;

	brood_begin(d);
	d->start_ns = trace_now_ns();
	rc = freeze_job(&d->freeze, &d->frozen, err);
	brood_end(d);
	r->freeze_us = (uint64_t)(trace_now_ns() - d->start_ns) / 1000;
	if (rc < 0)
		return rc;
	r->processes = d->job->last_processes = d->frozen->n_procs;
	r->threads = 0;
	for (unsigned i = 0; i < d->frozen->n_procs; i++)
		r->threads += d->frozen->procs[i].n_threads;
	return prepare(d, err);
}

static bool is_there(pid_t pid)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;

	/* of one whose first thread has ended, another one says it */
	return proc_open_pid(proc_live_thread(pid), &dirfd, NULL) == 0 &&
	       proc_stat_read(dirfd, &st, NULL) == 0 && st.state != 'Z' && st.state != 'X';
}

int dump_ended(struct dumper *d, int rc, struct err *err)
{
	if (rc >= 0 || !is_there(d->job->root))
		return rc;
	for (unsigned i = 0; d->frozen && i < d->frozen->n_procs; i++)
		if (!is_there(d->frozen->procs[i].pid))
			return err_set(err, -EAGAIN, "process %d was killed during the checkpoint",
				       d->frozen->procs[i].pid);
	if (rc != -ESRCH)
		return rc;
	if (err)
		err->code = -EAGAIN;
	return -EAGAIN;
}

void dump_release(struct dumper *d)
{
	scout_stop(d->scout);
	scout_stop(d->asker);
	scout_stop(d->walker);
	if (d->n_waits) /* it failed on the way */
		waits_remember(d, false);
	process_release_all(d);
	files_capture_done(&d->cap);
	capture_close_sources(&d->cap);
}

static int open_writer(struct dumper *d, struct err *err)
{
	struct dump_result *r = d->result;
	struct image_params params = { .state = r->state,
				       .seq = r->seq,
				       .compress = d->job->settings->compress,
				       .direct = 1 };
	char name[32];

	if (d->incremental)
		params.parent = d->job->parent;
	(void)snprintf(name, sizeof name, "%06llu.img", (unsigned long long)r->seq);
	return image_writer_open(chain_dirfd(d->job->chain), name, &params, &d->writer, err);
}

/* Who outlives the first process, and us, is still the job. An image is good without the note. */
static void note_processes(struct dumper *d)
{
	struct chain_kin *kin = arena_array(d->arena, d->cap.n_subjects, sizeof *kin);

	if (!kin)
		return;
	for (unsigned i = 0; i < d->cap.n_subjects; i++)
		kin[i] = (struct chain_kin){ d->cap.subjects[i].pid,
					     d->cap.subjects[i].stat.start_time };
	(void)chain_note_kin(d->job->chain, kin, d->cap.n_subjects, NULL);
}

/* With the job running again (or held for good): what is left until the image is durable. */
static int finish(struct dumper *d, struct err *err)
{
	int rc;

	rc = flags_verify(d, err);
	if (rc == 0)
		rc = settle_rest(d, err);
	if (rc < 0)
		return rc;
	memory_describe_files(d);
	mend_record(d);
	rc = sync_files(d, err);
	if (rc == 0)
		rc = fault_point("dump-finish", err);
	if (rc < 0)
		return rc;
	note_processes(d);
	rc = image_writer_commit(d->writer, d->tree, &d->result->totals, err);
	d->writer = NULL;
	return rc;
}

/* The job runs on, as fast as it can. */
static int complete(struct dumper *d, struct err *err)
{
	if (!d->hashing)
		watched_rest(d->job);
	return finish(d, err);
}

static int traced(void *arg, struct err *err)
{
	struct dumper *d = arg;
	struct dump_result *r = d->result;
	int64_t copy_ns, thaw_ns;
	int rc;

	rc = fault_point("dump-start", err);
	if (rc < 0)
		return rc;
	image_writer_hold(d->writer);
	rc = dump_stop(d, err);
	if (rc < 0 && !d->frozen)
		return dump_ended(d, rc, err);
	if (rc == 0)
		rc = capture(d, err);
	r->scan_us =
		(uint64_t)(trace_now_ns() - d->start_ns) / 1000 - r->freeze_us - r->snapshot_us;
	if (rc == 0)
		rc = settle_anew(d, err);
	copy_ns = trace_now_ns();
	if (rc == 0)
		rc = pages_write_now(d, d->writer, err);
	d->copy_us = (uint64_t)(trace_now_ns() - copy_ns) / 1000;
	d->job->at_stop = d->copied;
	rc = dump_ended(d, rc, err);
	dump_release(d);
	if (rc == 0 && (d->flags & DUMP_KILL)) {
		image_writer_go(d->writer);
		rc = finish(d, err);
		if (rc == 0) {
			freeze_kill(d->frozen);
			d->frozen = NULL;
		}
	}
	files_let_go(&d->cap, rc == 0 && (d->flags & DUMP_KILL));
	thaw_ns = trace_now_ns();
	freeze_thaw(d->frozen);
	r->thaw_us = (uint64_t)(trace_now_ns() - thaw_ns) / 1000;
	if (d->writer) {
		image_writer_background(d->writer);
		image_writer_go(d->writer);
	}
	d->stop_us = (uint64_t)(trace_now_ns() - d->start_ns) / 1000;
	r->pause_us += d->stop_us;
	if (rc == 0)
		rc = fault_point("dump-thawed", err);
	if (rc == 0 && d->writer) /* from the snapshots, which end with this process */
		rc = pages_write_later(d, d->writer, err);
	snapshots_kill(d);
	if (rc == 0 && d->writer && mend_wanted(d)) {
		rc = complete(d, err);
		d->end_ns = trace_now_ns();
		if (rc == 0)
			mend_all(d);
	}
	mend_kill(d);
	return rc;
}

/* Is the parent image still there for an increment to stand on, with all that it stands on? */
static bool parent_there(struct dump_job *job)
{
	const struct chain_entry *e;

	if (!job->parent_seq || chain_scan(job->chain, NULL) < 0)
		return false;
	e = chain_find(job->chain, job->parent_seq);
	return e && e->complete && !memcmp(&e->state, &job->parent, sizeof e->state);
}

/* Of a tree that we do not look after: whoever else belongs to it. Before the stop: it takes time,
 * and who is made meanwhile is a child of somebody who belongs to it. */
static int find_orphans(struct dumper *d, struct err *err)
{
	struct orphans o;
	pid_t *pids;
	int rc = proc_orphans(d->job->root, d->arena, &o, err);

	d->freeze.also = NULL;
	d->freeze.n_also = 0;
	if (rc < 0 || !o.n_belong)
		return rc;
	pids = arena_array(d->arena, o.n_belong, sizeof *pids);
	if (!pids)
		return err_nomem(err);
	for (unsigned i = 0; i < o.n_belong; i++)
		pids[i] = o.belong[i].pid;
	d->freeze.also = pids;
	d->freeze.n_also = o.n_belong;
	return 0;
}

int dump_init(struct dumper *d, struct err *err)
{
	d->arena = arena_new();
	d->batches = batch_store_new();
	d->tree = d->arena ? arena_alloc(d->arena, sizeof *d->tree) : NULL;
	if (!d->tree || !d->batches)
		return err_nomem(err);
	d->cap = (struct capture){ .arena = d->arena,
				   .tree = d->tree,
				   .space_id = dump_space_id,
				   .space_id_arg = d->job,
				   .looked_at = look_take_fds,
				   .looked_at_arg = d };
	d->tree->settings = *d->job->settings;
	d->freeze = (struct freeze_opts){ .root = d->job->root,
					  .adopted = d->job->adopted,
					  .timeout_ms = FREEZE_TIMEOUT_MS };
	return d->job->adopted ? 0 : find_orphans(d, err);
}

/* Whatever is needed at the stop is in memory before. */
static void warm_up(struct dumper *d)
{
	uint64_t pages = d->job->at_stop;
	CLEANUP_FREE char *text = NULL;
	char path[48];

	if (!d->job->parent_seq && strcmp(d->result->mode, "precopy") != 0) {
		(void)snprintf(path, sizeof path, "/proc/%d/statm", d->job->root);
		if (io_read_file(-1, path, &text, NULL) == 0)
			(void)sscanf(text, "%*u %" SCNu64, &pages);
	}
	image_writer_warm(d->writer, pages);
	arena_warm(d->arena, d->job->state_bytes);
	memset(d->buf, 0, (size_t)MIN(pages + 1, (uint64_t)IMAGE_BLOCK_PAGES) * CKPT_PAGE_SIZE);
}

static int begin(struct dumper *d, struct err *err)
{
	struct dump_job *job = d->job;
	struct dump_result *r = d->result;
	const struct settings *s = job->settings;
	bool ahead, watch;
	int rc = dump_init(d, err);

	if (rc < 0)
		return rc;
	d->begin_ns = trace_now_ns();
	d->cap.tcp_repair = s->tcp_repair;
	d->cap.job_ends = d->flags & DUMP_KILL;
	d->cap.watches = &job->watches;
	d->cap.lose_events = job->put_off >= PUT_OFF_MOST;
	r->seq = chain_next_seq(job->chain);
	(void)snprintf(r->mode, sizeof r->mode, "stop");
	if (getrandom(&r->state, sizeof r->state, 0) != (ssize_t)sizeof r->state)
		return err_set(err, -EIO, "cannot get random bytes");
	mend_look(d);
	mend_choose_tracker(d);
	watch = s->incremental && measure_watch(job);
	d->incremental = watch && !job->want_full && parent_there(job) &&
			 (s->full_every == 0 || job->since_full + 1 < s->full_every);
	r->incremental = d->incremental;
	d->hashing = watch && (d->incremental || !(d->flags & (DUMP_KILL | DUMP_LAST)));
	ahead = measure_can_copy_ahead(d) &&
		(s->snapshot == MODE_PRECOPY || precopy_attached(job) ||
		 measure_copy_ahead(d, UINT64_MAX, false));
	if (d->hashing || ahead)
		d->tracker = job->tracker;
	(void)snprintf(r->tracker, sizeof r->tracker, "%s", d->tracker ? d->tracker->name : "none");
	d->buf = malloc((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
	if (!d->buf)
		return err_nomem(err);
	rc = proc_host_read(d->arena, &d->tree->host, err);
	d->tree->seq = r->seq;
	rc = rc < 0 ? rc : open_writer(d, err);
	if (rc == 0 && d->hashing) /* makes a file, which may take its time */
		rc = hashes_begin(job->hashes, d->incremental, err);
	if (rc == 0 && ahead)
		rc = precopy_run(d, err);
	if (rc == 0 && ahead && !job->adopted) /* that took its time */
		rc = find_orphans(d, err);
	d->fresh = d->tracker && d->tracker->live && !precopy_attached(job);
	if (rc == 0 && !d->flags_looked)
		flags_look(d);
	if (rc == 0)
		warm_up(d);
	return rc;
}

static void done(struct dumper *d)
{
	struct dump_job *job = d->job;
	const struct dump_result *r = d->result;

	dump_forget_spaces(job);
	job->since_full = r->incremental ? job->since_full + 1 : 0;
	job->parent = r->state;
	job->parent_seq = r->seq;
	job->want_full = hashes_commit(job->hashes, NULL) < 0 || !d->hashing;
	measure_note_increment(d);
	watched_end(job, true);
	job->state_bytes = arena_bytes(d->arena);
}

int dump_checkpoint(struct dump_job *job, unsigned flags, struct dump_result *ret, struct err *err)
{
	struct err own = { 0 };
	struct dumper d = { .job = job, .result = ret, .flags = flags };
	int rc;

	memset(ret, 0, sizeof *ret);
	err = err ? err : &own;
	watched_begin(job);
	rc = begin(&d, err);
	if (rc == 0) {
		if (!probe_without("scout")) {
			d.scout = scout_new(job->seen_bytes);
			d.asker = scout_new(0);
			d.walker = scout_new(0);
			brood_new(&d);
		}
		mend_prepare(&d);
		rc = tracing_run(&job->tracing, job->root, traced, &d, err);
		scout_stop(d.scout);
	}
	flags_forget(job);
	if (rc == 0 && d.writer) /* not yet done by the tracer */
		rc = complete(&d, err);
	job->put_off = d.cap.put_off ? job->put_off + 1 : rc == 0 ? 0 : job->put_off;
	if (rc == 0)
		done(&d);
	else {
		hashes_abort(job->hashes);
		watched_end(job, false);
	}
	image_writer_abort(d.writer);
	snapshots_free(&d);
	mend_free(&d);
	measure_note(&d);
	mend_note(&d);
	measure_say_why(&d);
	ret->write_us =
		d.start_ns ? (uint64_t)((d.end_ns ? d.end_ns : trace_now_ns()) - d.begin_ns) / 1000
			   : 0;
	job->seen_bytes = scout_free(d.scout);
	(void)scout_free(d.asker);
	(void)scout_free(d.walker);
	if (!job->tracing) /* it was killed, and the job goes on: no end of a pipe stays with us */
		files_forsaken(&d.cap);
	brood_free(&d);
	walk_free(&d);
	arena_free(d.arena);
	batch_store_free(d.batches);
	free(d.buf);
	(void)malloc_trim(0); /* the arena of each thread would keep as much as any has needed */
	log_debug("checkpoint %llu: %d, pause %llu us", (unsigned long long)ret->seq, rc,
		  (unsigned long long)ret->pause_us);
	return rc;
}
