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
#include "util/io.h"

#include <stdlib.h>

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

/* When this wait was first seen. */
static int64_t first_seen(const struct dump_job *job, pid_t tid, const struct user_regs_struct *gp)
{
	for (unsigned i = 0; i < job->n_waits; i++)
		if (job->waits[i].tid == tid && job->waits[i].rip == gp->rip &&
		    job->waits[i].rsp == gp->rsp)
			return job->waits[i].first_seen_ns;
	return trace_now_ns();
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
		int64_t seen;

		if (!regs_timeout_of(&t->regs.gp, &timeout))
			continue;
		seen = first_seen(d->job, t->tid, &t->regs.gp);
		fresh[n++] =
			(struct remembered_wait){ t->tid, t->regs.gp.rip, t->regs.gp.rsp, seen };
		if (trace_now_ns() - seen < length_ns(&timeout, d->mem_fds[index]))
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
