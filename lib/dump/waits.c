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

/* Called once for each checkpoint while there is one process: what is not waiting any more is
 * forgotten. */
int waits_expire(struct dumper *d, unsigned index, struct err *err)
{
	struct frozen_process *p = &d->frozen->procs[index];
	struct remembered_wait *fresh = calloc(p->n_threads, sizeof *fresh);
	unsigned n = 0;
	int rc = fresh ? 0 : err_nomem(err);

	for (unsigned i = 0; rc == 0 && i < p->n_threads; i++) {
		struct frozen_thread *t = &p->threads[i];
		struct regs_timeout timeout;
		struct remembered_wait *w = &fresh[n];
		int64_t length;

		if (!regs_timeout_of(&t->regs.gp, &timeout))
			continue;
		length = length_ns(&timeout, d->mem_fds[index]);
		*w = (struct remembered_wait){ .tid = t->tid,
					       .rip = t->regs.gp.rip,
					       .rsp = t->regs.gp.rsp };
		w->first_seen_ns = w->last_seen_ns = trace_now_ns();
		w->runs = runs_of(&d->cap.subjects[index], t->tid);
		for (unsigned j = 0; j < d->job->n_waits; j++)
			if (goes_on(&d->job->waits[j], w, length))
				w->first_seen_ns = d->job->waits[j].first_seen_ns;
		n++;
		if (w->last_seen_ns - w->first_seen_ns < length)
			continue;
		n--;
		regs_return(&t->regs.gp, timeout.result);
		rc = regs_set_gp(t->tid, &t->regs.gp, err);
	}
	free(d->job->waits);
	d->job->waits = fresh;
	d->job->n_waits = n;
	return rc;
}

void waits_note_runs(struct dumper *d, unsigned index)
{
	for (unsigned i = 0; i < d->job->n_waits; i++)
		d->job->waits[i].runs = runs_of(&d->cap.subjects[index], d->job->waits[i].tid);
}
