/* SPDX-License-Identifier: BSD-2-Clause */
/* The story of a restart: check the plan, make the process, replace its memory, give it all it had,
 * let it go. */
#include "restore/restore.h"

#include "restore/internal.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/log.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOG_ROOM "restore"

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

static int32_t new_id(const struct rebuild *rb, int32_t recorded)
{
	if (!rb->new_pids)
		return recorded;
	for (unsigned i = 0; i < rb->n_id_map; i++)
		if (rb->id_map[i][0] == recorded)
			return rb->id_map[i][1];
	return 0;
}

/* Which id became which, once all threads exist. */
static int map_new_ids(struct restoring *r, struct err *err)
{
	const struct build_process *bp = &r->proc;
	int32_t(*map)[2] = arena_array(r->arena, bp->state->n_threads, sizeof *map);

	if (!map)
		return err_nomem(err);
	for (unsigned i = 0; i < bp->state->n_threads; i++) {
		map[i][0] = bp->state->threads[i].tid;
		map[i][1] = bp->threads[i].ns_tid;
	}
	r->rb.id_map = (const int32_t(*)[2])map;
	r->rb.n_id_map = bp->state->n_threads;
	return 0;
}

static int take_over(struct restoring *r, struct err *err)
{
	struct build_process *bp = &r->proc;
	CLEANUP_FD int dirfd = -1;
	struct proc_status st;
	int rc;

	bp->threads = arena_array(r->arena, bp->state->n_threads, sizeof *bp->threads);
	if (!bp->threads)
		return err_nomem(err);
	rc = proc_open_pid(r->maker, &dirfd, err);
	if (rc == 0)
		rc = proc_status_read(dirfd, r->arena, &st, err);
	if (rc < 0)
		return rc;
	bp->pid = r->maker;
	bp->ns_pid = st.ns_tgid;
	for (unsigned i = 0; i < bp->state->n_threads; i++)
		bp->threads[i].state = &bp->state->threads[i];
	bp->threads[0].tid = bp->pid;
	bp->threads[0].ns_tid = bp->ns_pid;
	rc = build_remote_new(bp->pid, bp->ns_pid, bp->ws.stub, bp->ws.arena, bp->ws.stack,
			      plan_marker_signal(r->tree), &bp->remote, err);
	if (rc < 0)
		return rc;
	bp->batch = batch_new(bp->remote);
	return bp->batch ? 0 : err_nomem(err);
}

static int rebuild(struct restoring *r, struct err *err)
{
	struct build_process *bp = &r->proc;
	int rc;

	rc = spawn_maker(r, err);
	if (rc == -EEXIST && r->opts->pids == PIDS_AUTO && plan_namespace(r)) {
		/* taken since, or in use as a group or session */
		spawn_undo(r);
		rc = spawn_maker(r, err);
	}
	if (rc == 0)
		rc = take_over(r, err);
	if (rc == 0)
		rc = layout_clear(r, bp, err);
	if (rc == 0)
		rc = vdso_place(r, bp, err);
	if (rc == 0)
		rc = layout_map(r, bp, err);
	if (rc == 0)
		rc = fill_all(r, err);
	if (rc == 0)
		rc = layout_finish(r, bp, err);
	if (rc == 0)
		rc = files_place(&r->rb, bp->state, bp->batch, bp->pid, err);
	if (rc == 0)
		rc = threads_make(r, bp, err);
	if (rc == 0)
		rc = map_new_ids(r, err);
	if (rc == 0)
		rc = files_place_late(&r->rb, bp->state, bp->batch, bp->pid, err);
	if (rc == 0)
		rc = attrs_put_process(&r->rb, bp->state, bp->batch, bp->pid, err);
	if (rc == 0)
		rc = threads_attributes(r, bp, err);
	if (rc == 0)
		rc = threads_complete(r, bp, err);
	return rc;
}

int restore_tree(struct resolved *state, const struct tree *tree, const struct restore_opts *opts,
		 struct restored *ret, struct err *err)
{
	struct restoring r = {
		.images = state, .tree = tree, .opts = opts, .control = -1, .status_fd = -1
	};
	int rc;

	r.arena = arena_new();
	if (!r.arena)
		return err_nomem(err);
	r.rb = (struct rebuild){ .tree = tree,
				 .opts = &opts->rebuild,
				 .arena = r.arena,
				 .tag = getpid(),
				 .new_id = new_id };
	r.proc.state = &tree->processes[0];
	rc = plan_check(&r, err);
	if (rc == 0)
		rc = plan_workspace(r.proc.state, r.arena, &r.proc.ws, err);
	if (rc == 0)
		rc = rebuild(&r, err);
	if (rc == 0) {
		*ret = (struct restored){ .root = r.maker,
					  .child = r.child,
					  .status_fd = r.status_fd };
		ret->pidfd = (int)syscall(SYS_pidfd_open, r.maker, 0);
		if (opts->ready)
			opts->ready(opts->ready_arg, r.maker);
		threads_release(&r.proc);
		r.status_fd = -1;
		(void)close(r.control);
	} else {
		spawn_undo(&r);
		tmpfs_undo(&r.rb);
	}
	batch_free(r.proc.batch);
	build_remote_free(r.proc.remote);
	arena_free(r.arena);
	log_debug("restart of '%s': %d",
		  resolved_n_images(state) ? image_reader_name(resolved_image(state, 0)) : "", rc);
	return rc;
}
