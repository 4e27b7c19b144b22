/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Freezing a tree. While it runs the tree changes under our eyes: threads and processes are born
 * and die. So: seize and interrupt all that can be seen, wait for them, look again, until a round
 * finds nothing new; everything is stopped then, and nothing stopped can create anything.
 * PTRACE_O_TRACECLONE and friends attach newborns at birth, so that none slips through between two
 * looks.
 */
#include "trace/freeze.h"

#include "proc/proc.h"
#include "trace/kin.h"
#include "trace/outlive.h"
#include "trace/settle.h"
#include "trace/stop.h"
#include "util/arena.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <time.h>

#define LOG_ROOM "trace"
/*
 * Not TRACEVFORK: the child of a vfork must run on, or its parent, which waits for its exec, would
 * never stop. It is found when the parent has stopped.
 */
#define SEIZE_OPTIONS (PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACESYSGOOD)
#define MAX_ROUNDS    1000
#define SEIZE_TRIES   5
/*
 * Threads stop within microseconds, on other CPUs, while the next are asked to. But not all are
 * asked at once: the sooner the registers of one are seen, the shorter a call that our stop has
 * interrupted is left with EINTR (settle.c), which it would return were we killed in between.
 */
#define STOPS_AHEAD 4
/* After a failure: for what has been asked to stop and is on its way. */
#define LATE_STOPS_NS 1000000000

struct freezer {
	struct frozen *f;
	struct kin kin;
	int64_t deadline_ns;
	struct arena *scratch;
};

static void frozen_free(struct frozen *f)
{
	if (!f)
		return;
	for (unsigned i = 0; i < f->n_procs; i++)
		free(f->procs[i].threads);
	free(f->procs);
	free(f->zombies);
	free(f);
}

void freeze_kill(struct frozen *f)
{
	struct stop stop;

	outlive_ignore(); /* half a job must not live on */
	for (unsigned i = 0; f && i < f->n_procs; i++)
		(void)kill(f->procs[i].pid, SIGKILL);
	/* A traced thread stays a zombie until its tracer has looked; the leaders that are our
	 * children are left to whoever waits for them. */
	for (unsigned i = 0; f && i < f->n_procs; i++)
		for (unsigned j = f->procs[i].n_threads; j-- > 0;)
			do
				if (trace_wait(f->procs[i].threads[j].tid,
					       trace_now_ns() + 1000000000, &stop, NULL) < 0)
					break;
			while (stop.kind != STOP_EXITED);
	frozen_free(f);
}

/* guess: where it stands if nothing has come or gone since the last look. */
static bool has_thread(const struct frozen_process *p, pid_t tid, unsigned guess)
{
	if (guess < p->n_threads && p->threads[guess].tid == tid)
		return true;
	/* the newest are last, and /proc lists in ascending order: look from the end */
	for (unsigned j = p->n_threads; j-- > 0;)
		if (p->threads[j].tid == tid)
			return true;
	return false;
}

static int add_thread(struct frozen_process *p, pid_t tid, struct err *err)
{
	struct frozen_thread *more;

	if (!(p->n_threads & (p->n_threads - 1))) {
		more = realloc(p->threads, (p->n_threads ? p->n_threads * 2 : 1) * sizeof *more);
		if (!more)
			return err_nomem(err);
		p->threads = more;
	}
	p->threads[p->n_threads++] = (struct frozen_thread){ .tid = tid };
	return 0;
}

static void drop_thread(struct frozen_process *p, unsigned j)
{
	outlive_seen(p->threads[j].tid);
	memmove(&p->threads[j], &p->threads[j + 1], (p->n_threads - j - 1) * sizeof p->threads[0]);
	p->n_threads--;
}

/*
 * Those that were stopped while they computed, or all others. Who was in a system call is likely
 * to sleep in it again at once; who computes would keep a processor while others wait to be let go.
 */
static void let_go(struct frozen *f, bool computing)
{
	for (unsigned i = 0; f && i < f->n_procs; i++)
		for (unsigned j = 0; j < f->procs[i].n_threads; j++) {
			const struct frozen_thread *t = &f->procs[i].threads[j];

			if (t->stopped && regs_in_syscall(&t->regs.gp) != computing)
				trace_detach(t->tid, 0);
		}
}

/*
 * After a failure there may be threads that were asked to stop and not looked at. One that does not
 * stop now sleeps where no stop interrupts it; it may be about to get a signal, which a detach
 * would take away: the end of the tracer lets go of it.
 */
void freeze_thaw(struct frozen *f)
{
	int64_t deadline_ns = trace_now_ns() + LATE_STOPS_NS;

	let_go(f, false);
	let_go(f, true);
	for (unsigned i = 0; f && i < f->n_procs; i++)
		for (unsigned j = 0; j < f->procs[i].n_threads; j++) {
			struct frozen_thread *t = &f->procs[i].threads[j];

			if (!t->stopped && settle_thread(t, deadline_ns, NULL) == 0)
				trace_detach(t->tid, 0);
			outlive_seen(t->tid);
		}
	frozen_free(f);
}

/* The first of the process's threads that has been asked to stop and not been looked at. */
static int settle_first(struct freezer *z, struct frozen_process *p, struct err *err)
{
	unsigned j;
	int rc;

	for (j = 0; j < p->n_threads; j++)
		if (!p->threads[j].stopped)
			break;
	if (j == p->n_threads)
		return err_set(err, -EAGAIN, "too many threads do not stop");
	rc = settle_thread(&p->threads[j], z->deadline_ns, err);
	if (rc == -ESRCH) {
		drop_thread(p, j);
		return 0;
	}
	return rc == -ETIMEDOUT ? -EAGAIN : rc;
}

/* A thread that has just been seized, or was stopped at birth, is one that will stop. */
static int ask(struct freezer *z, struct frozen_process *p, pid_t tid, bool newborn,
	       struct err *err)
{
	int rc = 0;

	while (rc == 0 && !outlive_asked(tid))
		rc = settle_first(z, p, err);
	if (rc == 0)
		rc = add_thread(p, tid, err);
	if (rc == 0 && !newborn)
		rc = trace_interrupt(tid, err);
	return rc < 0 ? rc : fault_point("freeze-asked", err);
}

/*
 * A thread that may not be seized. 0: it was attached at birth, by PTRACE_O_TRACECLONE and the
 * like. -ESRCH: it is on its way out, when the kernel says EPERM too (ptrace_attach). -EPERM, in
 * err: it really may not. others: its siblings could be seized, so it is not a matter of rights.
 */
static int why_not_seized(struct freezer *z, pid_t tid, bool others, struct err *err)
{
	struct proc_status st;
	CLEANUP_FD int dirfd = -1;

	if (proc_open_pid(tid, &dirfd, NULL) < 0 ||
	    proc_status_read(dirfd, z->scratch, &st, NULL) < 0)
		return -ESRCH;
	if (st.tracer == gettid()) /* the tracing thread, not its process */
		return 0;
	if (st.state == 'Z' || st.state == 'X')
		return -ESRCH;
	/* Exiting without its memory already, or let go of just now: a moment later it is clear. */
	if (!st.tracer && (others || !st.has_vm))
		return err_set(err, -EAGAIN, "thread %d is just coming or going", tid);
	return -EPERM;
}

/*
 * A refusal may pass: a process that exits is refused from the moment when it is marked as dead,
 * and what /proc says of it may be of the moment before. ret_newborn: it was attached at birth.
 */
static int seize(struct freezer *z, pid_t tid, bool others, bool *ret_newborn, struct err *err)
{
	const struct timespec moment = { .tv_nsec = 1000000 };

	for (unsigned tries = 0;; tries++) {
		int rc = trace_seize(tid, SEIZE_OPTIONS, err);

		*ret_newborn = rc == -EPERM;
		if (rc == -EPERM)
			rc = why_not_seized(z, tid, others, err);
		if (rc != -EPERM || tries == SEIZE_TRIES)
			return rc;
		(void)nanosleep(&moment, NULL);
	}
}

/* The leader first; ids wrap round, so it need not be the lowest. */
static void leader_first(pid_t pid, pid_t *tids, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (tids[i] == pid) {
			tids[i] = tids[0];
			tids[0] = pid;
		}
}

/* One look at a process: its new threads are seized and stopped. Returns how many were new. */
static int freeze_threads(struct freezer *z, struct frozen_process *p, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	unsigned n, first = p->n_threads;
	pid_t *tids;
	bool newborn;
	int rc, found = 0;

	rc = proc_open_pid(p->pid, &dirfd, err);
	if (rc == 0)
		rc = proc_threads(dirfd, z->scratch, &tids, &n, err);
	if (rc < 0)
		return rc;
	leader_first(p->pid, tids, n);
	for (unsigned i = 0; i < n; i++) {
		if (has_thread(p, tids[i], i))
			continue;
		rc = seize(z, tids[i], p->n_threads > 0, &newborn, err);
		if (rc == -EAGAIN)
			found = 1; /* so that there is another look */
		if (rc == -ESRCH || rc == -EAGAIN)
			continue;
		if (rc == 0)
			rc = ask(z, p, tids[i], newborn, err);
		if (rc == 0 && p->n_threads - first >= STOPS_AHEAD)
			rc = settle_thread(&p->threads[p->n_threads - STOPS_AHEAD], 0, err);
		if (rc < 0 && rc != -ETIMEDOUT && rc != -ESRCH)
			return err_wrap(err, rc, "pid %d", p->pid);
	}
	for (unsigned j = first; j < p->n_threads;) {
		rc = p->threads[j].stopped ? 0 : settle_thread(&p->threads[j], z->deadline_ns, err);
		if (rc == -ESRCH) {
			drop_thread(p, j);
			continue;
		}
		if (rc < 0)
			return rc;
		found++;
		j++;
	}
	return found;
}

/*
 * All that are known have stopped: are there no others? A directory has a link for each that is in
 * it (the kernel: proc_task_getattr). If not, a look tells.
 */
static bool all_known(const struct frozen_process *p)
{
	char path[32];
	struct stat st;

	(void)snprintf(path, sizeof path, "/proc/%d/task", p->pid);
	return p->n_threads && stat(path, &st) == 0 && st.st_nlink == 2ul + p->n_threads;
}

/* Stops threads until a look at the process finds no new one. Returns how many were new. */
static int freeze_process(struct freezer *z, unsigned i, struct err *err)
{
	int news = 0;

	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		int n = freeze_threads(z, &z->f->procs[i], err);

		if (n <= 0)
			return n < 0 ? n : news;
		news += n;
		if (all_known(&z->f->procs[i]))
			return news;
	}
	return err_set(err, -EAGAIN, "process %d creates threads faster than they can be stopped",
		       z->f->procs[i].pid);
}

static bool late(const struct freezer *z)
{
	return trace_now_ns() > z->deadline_ns;
}

static int freeze_next(struct freezer *z, unsigned i, struct err *err)
{
	const struct freeze_reader *r = z->kin.o->reader;
	int rc = freeze_process(z, i, err);

	if (rc == -ESRCH)
		rc = 0; /* ended before it could be stopped */
	if (rc >= 0 && r && z->f->procs[i].n_threads)
		r->look(r->arg, i, z->f->procs[i].pid);
	return rc;
}

static int add_children_of(struct freezer *z, unsigned i, struct err *err)
{
	const struct freeze_reader *r = z->kin.o->reader;
	const struct pid_list *seen = r ? r->take(r->arg, i) : NULL;

	return seen ? kin_seen(&z->kin, i, seen, err) : kin_children(&z->kin, i, err);
}

/* One process after the other. Children come last in the list; where somebody else sees who they
 * are, they are asked for only when all that are known have been stopped. */
static int freeze_new(struct freezer *z, unsigned *next, unsigned *looked_at, struct err *err)
{
	int rc = 0;

	while (rc >= 0 && *looked_at < z->f->n_procs && !late(z)) {
		if (*next < z->f->n_procs && (*next == *looked_at || z->kin.o->reader)) {
			rc = freeze_next(z, (*next)++, err);
			continue;
		}
		if (z->f->procs[*looked_at].n_threads)
			rc = add_children_of(z, *looked_at, err);
		++*looked_at;
	}
	return MIN(rc, 0);
}

static int freeze_all(struct freezer *z, struct err *err)
{
	unsigned next = 0, looked_at = 0;

	for (;;) {
		int rc = freeze_new(z, &next, &looked_at, err);

		/* Whoever was looked at early may have adopted an orphan since. */
		if (rc == 0 && !late(z))
			rc = kin_again(&z->kin, err);
		if (rc <= 0 && !late(z))
			return rc;
		if (rc < 0)
			return rc;
		if (late(z))
			return err_set(err, -EAGAIN,
				       "%u processes were stopped within %u ms, and there are "
				       "more: the job creates processes faster, or the machine is "
				       "too busy",
				       next, z->kin.o->timeout_ms);
	}
}

static int all_alive(const struct frozen *f, struct err *err)
{
	if (!f->n_procs || f->procs[0].n_threads == 0)
		return err_set(err, -ESRCH, "process %d has ended",
			       f->n_procs ? f->procs[0].pid : 0);
	return 0;
}

int freeze_job(const struct freeze_opts *o, struct frozen **ret, struct err *err)
{
	struct freezer z = { .deadline_ns = trace_now_ns() + (int64_t)o->timeout_ms * 1000000 };
	int rc;

	z.scratch = arena_new();
	z.f = calloc(1, sizeof *z.f);
	if (!z.f || !z.scratch)
		rc = err_nomem(err);
	else
		rc = kin_begin(&z.kin, o, z.f, z.scratch, err);
	if (rc == 0)
		rc = freeze_all(&z, err);
	if (rc == 0)
		rc = fault_point("freeze-stopped", err);
	if (rc == 0)
		rc = kin_sort_out(&z.kin, err);
	if (rc == 0)
		rc = all_alive(z.f, err);
	kin_end(&z.kin);
	arena_free(z.scratch);
	if (rc < 0) {
		freeze_thaw(z.f);
		return rc == -ETIMEDOUT ? -EAGAIN : rc;
	}
	log_debug("stopped %u processes, %u have ended", z.f->n_procs, z.f->n_zombies);
	*ret = z.f;
	return 0;
}

int freeze_tree(pid_t root, unsigned timeout_ms, struct frozen **ret, struct err *err)
{
	return freeze_job(&(struct freeze_opts){ .root = root, .timeout_ms = timeout_ms }, ret,
			  err);
}
