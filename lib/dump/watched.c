/* SPDX-License-Identifier: BSD-2-Clause */
/* What is known of each process's memory from one checkpoint to the next. */
#include "dump/internal.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/hash.h"

#include <signal.h>
#include <stdlib.h>

static void forget_stop(struct watched *w)
{
	free(w->there.v);
	w->there = (struct page_runs){ 0 };
	ranges_fini(&w->due);
	w->listed = false;
}

static void free_one(const struct tracker *t, struct watched *w)
{
	t->forget(w);
	ranges_fini(&w->pending);
	ranges_fini(&w->given);
	ranges_fini(&w->ahead);
	forget_stop(w);
	ranges_fini(&w->huge);
	free(w);
}

struct watched *watched_find(struct dump_job *job, pid_t pid, unsigned long long start_time)
{
	for (unsigned i = 0; i < job->n_watched; i++)
		if (job->watched[i]->pid == pid && job->watched[i]->start_time == start_time)
			return job->watched[i];
	return NULL;
}

static uint64_t layout_of(const struct proc_stat *st)
{
	const uint64_t v[] = { st->start_code, st->start_stack, st->arg_start };

	return hash64(v, sizeof v);
}

static bool has_its_memory(const struct dumper *d, struct watched *w)
{
	for (unsigned i = 0; i < d->frozen->n_procs; i++) {
		CLEANUP_FD int dirfd = -1;
		struct proc_stat st;
		bool same;

		if (d->frozen->procs[i].threads[0].tid != w->pid)
			continue;
		if (proc_open_pid(w->pid, &dirfd, NULL) < 0 ||
		    proc_stat_read(dirfd, &st, NULL) < 0 || st.start_time != w->start_time ||
		    process_is_guest(d, i))
			return false;
		same = layout_of(&st) == w->layout;
		w->layout = layout_of(&st);
		return same;
	}
	return false;
}

/*
 * What a process had registered stays so while others have its memory, when it has ended or left it
 * by exec; or other threads, when the first one has. Then whoever is the first to have it starts
 * anew. (They may have begun to share it, and ended, since the last stop.)
 */
int watched_settle(struct dumper *d, struct err *err)
{
	struct dump_job *job = d->job;

	for (unsigned i = 0; i < d->frozen->n_procs; i++)
		job->shares_memory |= process_is_guest(d, i) ||
				      d->frozen->procs[i].threads[0].tid != d->frozen->procs[i].pid;
	for (unsigned i = 0; i < job->n_watched; i++)
		if ((job->shares_memory || job->watched[i]->uffd >= 0) &&
		    !has_its_memory(d, job->watched[i]))
			job->tracker->forget(job->watched[i]);
	return fault_point("dump-settled", err);
}

int watched_get(struct dump_job *job, pid_t pid, const struct proc_stat *st, struct watched **ret,
		struct err *err)
{
	struct watched *w = watched_find(job, pid, st->start_time), **more;

	if (w) {
		w->seen = true;
		*ret = w;
		return 0;
	}
	more = realloc(job->watched, (job->n_watched + 1) * sizeof *more);
	if (!more)
		return err_nomem(err);
	job->watched = more;
	w = calloc(1, sizeof *w);
	if (!w)
		return err_nomem(err);
	w->pid = pid;
	w->start_time = st->start_time;
	w->layout = layout_of(st);
	w->uffd = -1;
	w->seen = true;
	w->ahead.excess = RANGES_SHRINK;
	job->watched[job->n_watched++] = w;
	*ret = w;
	return 0;
}

void watched_begin(struct dump_job *job)
{
	for (unsigned i = 0; i < job->n_watched; i++)
		job->watched[i]->seen = false;
}

/* Pages of a failed attempt stay pending: where they were copied to is gone. */
void watched_end(struct dump_job *job, bool durable)
{
	unsigned n = 0;

	flags_forget(job);
	for (unsigned i = 0; i < job->n_watched; i++) {
		struct watched *w = job->watched[i];

		if (!w->seen && (durable || kill(w->pid, 0) < 0)) {
			free_one(job->tracker, w);
			continue;
		}
		ranges_fini(&w->given);
		ranges_fini(&w->ahead);
		forget_stop(w);
		if (durable) {
			ranges_fini(&w->pending);
			w->all_pending = false;
		}
		job->watched[n++] = w;
	}
	job->n_watched = n;
}

void watched_rest(struct dump_job *job)
{
	for (unsigned i = 0; job->tracker->rest && i < job->n_watched; i++)
		job->tracker->rest(job->watched[i]);
}

void watched_free(struct dump_job *job)
{
	flags_forget(job);
	for (unsigned i = 0; i < job->n_watched; i++)
		free_one(job->tracker, job->watched[i]);
	free(job->watched);
	job->watched = NULL;
	job->n_watched = 0;
}
