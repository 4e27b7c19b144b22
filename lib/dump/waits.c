/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waits with a timeout. A few calls return EINTR when the thread is stopped, and have no restart
 * block that would keep their deadline (epoll_wait, sigtimedwait, semtimedop: signal(7)). They are
 * made to go on, but with their whole timeout; under a checkpoint every second a wait for two would
 * never end. So each is remembered from the first time that we interrupt it, and returns its
 * "nothing came" at the first checkpoint after its time. (To shorten the timeout instead would
 * change a register that the kernel leaves alone.)
 */
#include "dump/internal.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_RUNS 4

static int64_t length_ns(const struct regs_timeout *t, int mem_fd)
{
	int64_t ts[2];

	if (!t->is_timespec)
		return (int64_t)t->arg * 1000000;
	if (io_pread_full(mem_fd, ts, sizeof ts, t->arg) != (ssize_t)sizeof ts || ts[0] < 0 ||
	    ts[0] > 1000000000)
		return INT64_MAX;
	return ts[0] * 1000000000 + ts[1];
}

static unsigned long long runs_of(const struct subject *subject, pid_t tid)
{
	CLEANUP_FREE char *text = NULL;
	unsigned long long runs = 0;
	char path[48];

	(void)snprintf(path, sizeof path, "task/%d/schedstat", tid);
	if (io_read_file(subject->proc_dirfd, path, &text, NULL) < 0 ||
	    sscanf(text, "%*u %*u %llu", &runs) != 1)
		return 0;
	return runs;
}

/*
 * Is it the wait that was seen then, or has it returned and begun again at the same place? From one
 * checkpoint to the next a wait that goes on runs to wait again, and to stop.
 * And what has not been interrupted for its whole length has ended by itself.
 */
static bool goes_on(const struct remembered_wait *then, const struct remembered_wait *now,
		    int64_t length_ns)
{
	return then->tid == now->tid && then->rip == now->rip && then->rsp == now->rsp &&
	       now->runs - then->runs <= MAX_RUNS &&
	       now->last_seen_ns - then->last_seen_ns < length_ns;
}

static int by_tid(const void *a, const void *b)
{
	const struct remembered_wait *x = a, *y = b;

	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

static const struct remembered_wait *remembered(const struct dump_job *job,
						const struct remembered_wait *w)
{
	return job->n_waits ? bsearch(w, job->waits, job->n_waits, sizeof *w, by_tid) : NULL;
}

/* A thread that waits with a timeout: 1: goes on waiting, *w says since when; 0: its time is over.
 */
static bool goes_on_waiting(struct dumper *d, unsigned index, const struct frozen_thread *t,
			    const struct regs_timeout *timeout, struct remembered_wait *w)
{
	int64_t length = length_ns(timeout, d->mem_fds[index]);
	const struct remembered_wait *then;

	*w = (struct remembered_wait){
		.tid = t->tid, .process = index, .rip = t->regs.gp.rip, .rsp = t->regs.gp.rsp
	};
	w->first_seen_ns = w->last_seen_ns = trace_now_ns();
	w->runs = runs_of(&d->cap.subjects[index], t->tid);
	then = remembered(d->job, w);
	if (then && goes_on(then, w, length))
		w->first_seen_ns = then->first_seen_ns;
	return w->last_seen_ns - w->first_seen_ns < length;
}

int waits_expire(struct dumper *d, unsigned index, struct err *err)
{
	struct frozen_process *p = &d->frozen->procs[index];

	for (unsigned i = 0; i < p->n_threads; i++) {
		struct frozen_thread *t = &p->threads[i];
		struct remembered_wait now, *slot;
		struct regs_timeout timeout;
		int rc;

		if (!regs_timeout_of(&t->regs.gp, &timeout))
			continue;
		if (goes_on_waiting(d, index, t, &timeout, &now)) {
			slot = arena_push(d->arena, &d->waits, &d->n_waits, sizeof *slot);
			if (!slot)
				return err_nomem(err);
			*slot = now;
			continue;
		}
		regs_return(&t->regs.gp, timeout.result);
		rc = regs_set_gp(t->tid, &t->regs.gp, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void waits_remember(struct dumper *d, bool all)
{
	struct dump_job *job = d->job;
	unsigned n = d->n_waits, seen;
	struct remembered_wait *list = calloc(n + job->n_waits + 1, sizeof *list);

	if (!list)
		return;
	for (unsigned i = 0; i < n; i++) {
		list[i] = d->waits[i];
		list[i].runs = runs_of(&d->cap.subjects[list[i].process], list[i].tid);
	}
	qsort(list, n, sizeof *list, by_tid);
	seen = n;
	for (unsigned i = 0; !all && i < job->n_waits; i++)
		if (!bsearch(&job->waits[i], list, seen, sizeof *list, by_tid))
			list[n++] = job->waits[i];
	qsort(list, n, sizeof *list, by_tid);
	free(job->waits);
	job->waits = list;
	job->n_waits = n;
	d->n_waits = 0;
}
