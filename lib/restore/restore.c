/* SPDX-License-Identifier: BSD-2-Clause */
/* The story of a restart: check the plan, make the process, replace its memory, give it all it had,
 * let it go. */
#include "restore/restore.h"

#include "restore/filler.h"
#include "restore/huge.h"
#include "restore/internal.h"
#include "restore/keeper.h"
#include "restore/sink.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define LOG_ROOM       "restore"
#define MANY_PROCESSES 50

void restore_warn(const struct restoring *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!r->opts->warn)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	r->opts->warn(r->opts->warn_arg, text);
}

static int by_id(const void *a, const void *b)
{
	const int32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int32_t new_id(const struct rebuild *rb, int32_t recorded)
{
	const int32_t(*found)[2];

	if (!rb->new_pids)
		return recorded;
	found = rb->n_id_map ? bsearch(&recorded, rb->id_map, rb->n_id_map, sizeof *found, by_id)
			     : NULL;
	return found ? (*found)[1] : 0;
}

/* Which id became which, once all processes and threads exist; those of ghosts were somebody's
 * group. */
static int map_new_ids(struct restoring *r, struct err *err)
{
	size_t room = r->births.n;
	int32_t(*map)[2];
	unsigned n = 0;

	for (unsigned i = 0; i < r->tree->n_processes; i++)
		room += r->tree->processes[i].n_threads;
	map = arena_array(r->arena, room, sizeof *map);
	if (!map)
		return err_nomem(err);
	for (unsigned i = 0; i < r->births.n; i++) {
		if (!r->births.v[i].pid || r->births.v[i].kind == BIRTH_PROCESS)
			continue;
		map[n][0] = r->births.v[i].pid;
		map[n++][1] = r->nursery->pids[i];
	}
	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		const struct build_process *bp = &r->procs[i];

		for (unsigned j = 0; j < bp->state->n_threads; j++) {
			map[n][0] = bp->state->threads[j].tid;
			map[n++][1] = bp->threads[j].ns_tid;
		}
	}
	qsort(map, n, sizeof *map, by_id);
	r->rb.id_map = (const int32_t(*)[2])map;
	r->rb.n_id_map = n;
	return 0;
}

static int take_over(struct restoring *r, struct build_process *bp, struct err *err)
{
	int rc;

	bp->threads = arena_array(r->arena, bp->state->n_threads, sizeof *bp->threads);
	if (!bp->threads)
		return err_nomem(err);
	for (unsigned i = 0; i < bp->state->n_threads; i++)
		bp->threads[i].state = &bp->state->threads[i];
	bp->threads[0].tid = bp->pid;
	bp->threads[0].ns_tid = bp->ns_pid;
	rc = build_remote_new(bp->pid, bp->ns_pid, bp->ws.stub, bp->ws.arena, bp->ws.stack,
			      r->marker_signal, &bp->remote, err);
	if (rc < 0)
		return rc;
	bp->batch = batch_new(bp->remote, r->batches);
	return bp->batch ? 0 : err_nomem(err);
}

static int fetch_fd(void *arg, int maker_fd)
{
	const struct restoring *r = arg;

	return sink_fetch_fd(r->maker, maker_fd);
}

static int take_over_memory(struct restoring *r, struct build_process *bp, struct err *err)
{
	int rc = take_over(r, bp, err);

	if (rc == 0)
		rc = layout_clear(r, bp, err);
	if (bp->memory != bp) /* that one's mappings are this one's */
		return rc;
	if (rc == 0)
		rc = vdso_place(r, bp, err);
	if (rc == 0)
		rc = layout_map(r, bp, err);
	return rc;
}

/* A descriptor table that it shares is filled by the one that it shares it with. */
static int place_files(struct restoring *r, struct build_process *bp, struct err *err)
{
	if (bp->state->files_of)
		return 0;
	return files_place(&r->rb, bp->state, bp->batch, bp->pid, err);
}

static int make_whole(struct restoring *r, struct build_process *bp, struct err *err)
{
	int rc = bp->memory == bp ? layout_finish(r, bp, err) : 0;

	if (rc == 0)
		rc = place_files(r, bp, err);
	if (rc == 0)
		rc = continued_again(bp, err);
	if (rc == 0)
		rc = threads_make(r, bp, err);
	return rc;
}

static int give_attributes(struct restoring *r, struct build_process *bp, struct err *err)
{
	int rc = 0;

	if (!bp->state->files_of)
		rc = files_place_late(&r->rb, bp->state, bp->batch, bp->pid, err);
	if (rc == 0)
		rc = sem_undos_put(&r->rb, bp->state, bp->batch, bp->pid, err);
	if (rc == 0)
		rc = attrs_put_process(&r->rb, bp->state, bp->batch, bp->pid, err);
	if (rc == 0)
		rc = threads_attributes(r, bp, err);
	if (rc == 0)
		huge_enlist(r, bp);
	if (rc == 0)
		rc = threads_complete(r, bp, err);
	return rc < 0 ? rc : threads_end_leader(bp, err);
}

struct build_process *restore_parent_of(struct restoring *r, const struct build_process *bp)
{
	for (unsigned i = 0; i < r->tree->n_processes; i++)
		if (r->procs[i].state->pid == bp->state->ppid)
			return &r->procs[i];
	return NULL;
}

/* Has its parent waited for the stop already? Then there is nothing more to be waited for. */
static int take_stop(struct restoring *r, const struct build_process *bp, struct err *err)
{
	const struct build_process *parent = restore_parent_of(r, bp);

	if (!parent || !bp->state->stop_seen)
		return 0;
	batch_start(parent->batch);
	(void)batch_call(parent->batch, "wait for a stopped child", SYS_waitid, P_PID, bp->ns_pid,
			 0, WSTOPPED | WNOHANG | __WALL, 0);
	return batch_run(parent->batch, parent->pid, err);
}

/* Before their parents get their pending signals. */
static int stop_again(struct restoring *r, struct err *err)
{
	int rc = 0;

	for (unsigned i = r->tree->n_processes; rc == 0 && i-- > 0;) {
		struct build_process *bp = &r->procs[i];

		if (!bp->state->stopped)
			continue;
		rc = give_attributes(r, bp, err);
		if (rc == 0)
			rc = threads_stop(r, bp, err);
		if (rc == 0)
			rc = take_stop(r, bp, err);
	}
	return rc;
}

static int finish(struct restoring *r, struct build_process *bp, struct err *err)
{
	return bp->state->stopped ? 0 : give_attributes(r, bp, err);
}

static int for_all(struct restoring *r,
		   int (*step)(struct restoring *r, struct build_process *bp, struct err *err),
		   struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++)
		rc = step(r, &r->procs[i], err);
	return rc;
}

/*
 * Every process is forked from us, and what we know of all of them is some 30 KiB each: in small
 * pages, their tables would be copied for each. If it cannot be helped, that is what happens.
 */
static void join_heap(struct restoring *r)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_map *maps;
	unsigned n;

	if (r->tree->n_processes < MANY_PROCESSES || proc_open_pid(getpid(), &dirfd, NULL) < 0 ||
	    proc_maps_read(dirfd, false, r->arena, &maps, &n, NULL) < 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		uint64_t start = (maps[i].start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
		uint64_t end = maps[i].end & ~(HUGE_PAGE - 1);

		if (!strcmp(maps[i].path, "[heap]") && start < end)
			(void)madvise((void *)(uintptr_t)start, end - start, MADV_COLLAPSE);
	}
}

static int rebuild(struct restoring *r, struct err *err)
{
	int rc;

	join_heap(r);
	rc = spawn_maker(r, err);

	if (rc == 0)
		rc = for_all(r, take_over_memory, err);
	if (rc == 0)
		rc = for_all(r, protect_open, err);
	if (rc == 0)
		rc = fill_all(r, err);
	if (rc == 0)
		rc = for_all(r, protect_close, err);
	if (rc == 0)
		rc = sysv_put(&r->rb, fetch_fd, r, r->procs[0].batch, r->procs[0].pid, err);
	if (rc == 0)
		rc = map_new_ids(r, err); /* of processes: pidfds need them */
	if (rc == 0)
		rc = for_all(r, make_whole, err);
	if (rc == 0)
		rc = map_new_ids(r, err);
	if (rc == 0)
		rc = stop_again(r, err);
	if (rc == 0)
		rc = for_all(r, finish, err);
	return rc < 0 ? rc : fault_point("restore-rebuilt", err);
}

static void forget_remotes(struct restoring *r)
{
	for (unsigned i = 0; r->procs && i < r->tree->n_processes; i++) {
		batch_free(r->procs[i].batch);
		build_remote_free(r->procs[i].remote);
		r->procs[i].batch = NULL;
		r->procs[i].remote = NULL;
	}
}

static void undo(struct restoring *r)
{
	huge_discharge(r);
	spawn_undo(r);
	guard_end(&r->guard);
	tmpfs_undo(&r->rb);
	ipc_undo(&r->rb);
	filler_free(r->filler);
	r->filler = NULL;
	forget_remotes(r);
}

/* An id that was free when we looked may be taken since, or be in use as a group or session. */
static int rebuild_somewhere(struct restoring *r, struct err *err)
{
	int rc = rebuild(r, err);

	if (rc == -EEXIST && r->pids == PIDS_KEEP && r->opts->pids == PIDS_AUTO &&
	    plan_namespace(r)) {
		undo(r);
		err_clear(err);
		rc = rebuild(r, err);
	}
	return rc;
}

/* Processes that share their memory name the same space. */
static void find_memory(struct restoring *r)
{
	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		struct build_process *bp = &r->procs[i];

		bp->memory = bp;
		for (unsigned k = 0; bp->state->space && k < i; k++)
			if (r->procs[k].state->space == bp->state->space) {
				bp->memory = &r->procs[k];
				break;
			}
	}
}

static int prepare(struct restoring *r, struct err *err)
{
	static const int raised[] = { RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK };
	bool always = huge_always();
	struct rlimit lim;
	int rc;

	/* several descriptors for each process; and the job's memory is beside ours at first, and
	 * locked before it has its own limits. */
	for (size_t i = 0; i < ARRAY_SIZE(raised); i++)
		if (getrlimit(raised[i], &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
			lim.rlim_cur = lim.rlim_max;
			(void)setrlimit(raised[i], &lim);
		}
	r->marker_signal = plan_marker_signal(r->tree);
	r->batches = batch_store_new();
	if (!r->batches)
		return err_nomem(err);
	for (unsigned i = 0; i < GATES; i++)
		r->gates[i][0] = r->gates[i][1] = -1;
	r->procs = arena_array(r->arena, r->tree->n_processes, sizeof *r->procs);
	if (!r->procs)
		return err_nomem(err);
	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		r->procs[i].state = &r->tree->processes[i];
		r->procs[i].huge_always = always;
	}
	find_memory(r);
	rc = plan_check(r, err);
	if (rc == 0)
		rc = ipc_note(&r->rb, err);
	return rc < 0 ? rc : plan_workspaces(r, err);
}

int restore_with(struct resolved *state, const struct tree *tree, const struct restore_opts *opts,
		 int keeper_channel, struct restored *ret, struct err *err)
{
	struct restoring r = { .images = state,
			       .tree = tree,
			       .opts = opts,
			       .control = -1,
			       .status_fd = -1,
			       .guard = { .pid = -1, .fd = -1 } };
	bool released = false;
	int rc;

	r.arena = arena_new();
	if (!r.arena)
		return err_nomem(err);
	r.rb = (struct rebuild){ .tree = tree,
				 .opts = &opts->rebuild,
				 .warn = opts->warn,
				 .warn_arg = opts->warn_arg,
				 .arena = r.arena,
				 .tag = getpid(),
				 .new_id = new_id };
	r.lazy = keeper_channel >= 0;
	rc = prepare(&r, err);
	if (rc == 0)
		rc = rebuild_somewhere(&r, err);
	if (rc == 0)
		rc = restore_release(&r, keeper_channel, &released, ret, err);
	if (rc < 0 && !released)
		undo(&r);
	filler_free(r.filler);
	forget_remotes(&r);
	batch_store_free(r.batches);
	arena_free(r.arena);
	log_debug("restart of '%s': %d",
		  resolved_n_images(state) ? image_reader_name(resolved_image(state, 0)) : "", rc);
	return rc;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

/* NULL, or why memory cannot come later. A process whose parent is not of the job gets another one
 * when the keeper ends. */
static const char *why_not_lazy(const struct tree *tree)
{
	for (unsigned i = 0; i < tree->n_processes; i++) {
		const struct process *p = &tree->processes[i];

		if (p->stopped)
			return "a process of the job was stopped";
		if (p->leader_ended)
			return "the first thread of one of its processes has ended";
		for (unsigned j = 0; !p->ppid && j < p->n_threads; j++)
			if (p->threads[j].parent_death_signal)
				return "the job asked for a signal when its parent ends";
	}
	/* what is missing of that is not brought to who reads it */
	for (unsigned i = 0; i < tree->n_files; i++)
		if (tree->files[i].kind == FILE_PROC && tree->files[i].path &&
		    ends_with(tree->files[i].path, "/mem"))
			return "a process's memory is open as a file";
	return NULL;
}

int restore_tree(struct resolved *state, const struct tree *tree, const struct restore_opts *opts,
		 struct restored *ret, struct err *err)
{
	const struct restoring r = { .opts = opts };
	const char *why = opts->lazy ? why_not_lazy(tree) : NULL;

	if (why)
		restore_warn(&r, "--lazy: %s, so all its memory is filled before it runs", why);
	if (opts->lazy && !why)
		return keeper_run(state, tree, opts, ret, err);
	return restore_with(state, tree, opts, -1, ret, err);
}
