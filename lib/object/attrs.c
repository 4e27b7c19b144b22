/* SPDX-License-Identifier: BSD-2-Clause */
/* Attributes of processes and threads: what is captured, checked and put back, in which order. */
#include "object/attrs.h"

#include "util/cleanup.h"
#include "util/fault.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define NS_PER_S 1000000000ULL

int attrs_make_room(struct batch *b, pid_t tid, unsigned n, size_t len, struct err *err)
{
	int rc;

	if (batch_room(b, n, len))
		return 0;
	rc = batch_run(b, tid, err);
	batch_start(b);
	return rc;
}

/* --- capture -------------------------------------------------------------------------------- */

struct queries {
	struct signals_query signals;
	struct identity_query identity;
	struct creds_query creds;
	struct limits_query limits;
	struct memlock_query memlock;
	struct admit_query admit;
	struct leader_query leader;
	unsigned brk_call;
	uint64_t monotonic, boottime, continued;
};

static uint64_t clock_ask(struct batch *b, clockid_t clock)
{
	uint64_t addr = batch_out(b, sizeof(struct timespec));

	batch_call(b, "read the clock", SYS_clock_gettime, clock, addr);
	return addr;
}

static uint64_t clock_take(const struct batch *b, uint64_t addr)
{
	struct timespec ts;

	memcpy(&ts, batch_result(b, addr), sizeof ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Of its children, one that it has not waited for since that was continued, which stays so. */
static uint64_t continued_ask(struct batch *b)
{
	uint64_t info = batch_out(b, sizeof(siginfo_t));

	/* it may have no children at all */
	batch_call(b, NULL, SYS_waitid, P_ALL, 0, info, WCONTINUED | WNOHANG | WNOWAIT | __WALL, 0);
	return info;
}

static bool continued_take(const struct batch *b, uint64_t info)
{
	siginfo_t si;

	memcpy(&si, batch_result(b, info), sizeof si);
	return si.si_pid != 0;
}

/* Everything that only the process can say goes into one batch: each costs a stop and a go. */
static int ask_inside(struct capture *c, struct subject *s, struct err *err)
{
	struct process *p = s->process;
	struct batch *b = s->batch;
	struct queries q;
	int rc;

	batch_start(b);
	signals_ask(b, &q.signals);
	identity_ask(b, &q.identity);
	creds_ask(b, &q.creds);
	limits_ask(b, &q.limits);
	memlock_ask(b, &q.memlock);
	admit_ask(b, &q.admit);
	leader_ask(b, &q.leader);
	/* brk(0) fails and thus says where the break is */
	q.brk_call = batch_call(b, NULL, SYS_brk, 0);
	q.monotonic = clock_ask(b, CLOCK_MONOTONIC);
	q.boottime = clock_ask(b, CLOCK_BOOTTIME);
	q.continued = continued_ask(b);
	rc = batch_run(b, s->pid, err);
	if (rc == 0)
		rc = admit_take(s, &q.admit, err);
	if (rc == 0)
		identity_take(s, &q.identity);
	if (rc == 0)
		rc = signals_take(b, &q.signals, c->arena, p, err);
	if (rc == 0)
		rc = limits_take(b, &q.limits, c->arena, p, err);
	if (rc < 0)
		return rc;
	s->has_continued = continued_take(b, q.continued);
	creds_take(b, &q.creds, &p->creds);
	leader_take(b, &q.leader, &p->threads[0]);
	memlock_take(b, &q.memlock, p);
	p->mm.brk = (uint64_t)batch_ret(b, q.brk_call);
	if (!c->tree->host.monotonic_ns) { /* the first process speaks for the tree */
		c->tree->host.monotonic_ns = clock_take(b, q.monotonic);
		c->tree->host.boottime_ns = clock_take(b, q.boottime);
	}
	return 0;
}

int attrs_capture_process(struct capture *c, struct subject *s, struct err *err)
{
	struct process *p = s->process;
	struct proc_status st;
	int rc;

	rc = fault_point("capture-attrs", err);
	if (rc == 0)
		rc = identity_look(c, s, &s->status, err);
	if (rc == 0)
		rc = ask_inside(c, s, err);
	if (rc == 0)
		rc = ptimers_capture(c, s, err);
	if (rc < 0)
		return rc;
	/* after the timers: one that runs out in between rather comes once more than never */
	rc = proc_status_read(s->proc_dirfd, c->arena, &st, err);
	if (rc < 0)
		return rc;
	return signals_look_pending(s->pid, true, st.shared_pending, c->arena, &p->pending,
				    &p->n_pending, err);
}

/* The leader speaks for the process: its credentials are what the other threads' must be. */
static int admit(struct capture *c, struct subject *s, pid_t tid, const struct thread_regs *regs,
		 const struct proc_status *st, struct err *err)
{
	int rc;

	if (tid == s->pid) {
		rc = namespaces_check(c, s, err);
		if (rc == 0)
			rc = admit_process(&c->tree->settings, s, st, err);
		if (rc < 0)
			return rc;
		creds_look(st, &s->process->creds);
	}
	return admit_thread(&c->tree->settings, s, tid, regs, st, err);
}

int attrs_capture_thread(struct capture *c, struct subject *s, pid_t tid,
			 const struct thread_regs *regs, const struct proc_status *st,
			 struct thread *t, struct err *err)
{
	int rc = admit(c, s, tid, regs, st, err);

	if (rc < 0)
		return rc;
	t->tid = st->ns_pid;
	t->comm = st->name;
	t->sigmask = regs->sigmask;
	rc = signals_look_pending(tid, false, st->sig_pending, c->arena, &t->pending, &t->n_pending,
				  err);
	if (rc == 0)
		rc = threadattr_look(tid, t, err);
	return rc == 0 ? sched_look(tid, c->arena, t, err) : rc;
}

/* --- check ---------------------------------------------------------------------------------- */

int attrs_check(const struct rebuild *rb, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < rb->tree->n_processes && rc == 0; i++) {
		const struct process *p = &rb->tree->processes[i];

		rc = creds_check(p, err);
		if (rc == 0)
			rc = limits_check(p, err);
		if (rc == 0)
			rc = memlock_check(p, err);
		if (rc == 0)
			rc = identity_check(rb, p, err);
		for (unsigned k = 0; k < p->n_threads && rc == 0; k++)
			rc = sched_check(p, &p->threads[k], err);
	}
	return rc;
}

/* --- restore -------------------------------------------------------------------------------- */

int attrs_put_process(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		      struct err *err)
{
	int rc = identity_put(rb, p, b, tid, err);

	if (rc < 0)
		return rc;
	batch_start(b);
	signals_put(b, p);
	return batch_run(b, tid, err);
}

/* Timers after the threads that they may signal. */
static int process_calls(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
			 struct err *err)
{
	int rc = 0;

	if (p->n_timers) {
		rc = batch_run(b, tid, err);
		if (rc == 0)
			rc = ptimers_put(rb, p, b, tid, err);
		batch_start(b);
	}
	if (rc == 0)
		rc = signals_queue(rb, b, tid, p->pending, p->n_pending, rb->new_id(rb, p->pid), 0,
				   err);
	if (rc == 0)
		rc = attrs_make_room(b, tid, 8, 256, err);
	if (rc < 0)
		return rc;
	itimers_put(b, p);
	for (unsigned i = 0; i < p->n_timers && rc == 0; i++) {
		rc = attrs_make_room(b, tid, 1, 64, err);
		if (rc == 0)
			ptimers_arm_put(b, &p->timers[i]);
	}
	return rc;
}

static int thread_calls(struct rebuild *rb, const struct process *p, const struct thread *t,
			struct batch *b, pid_t tid, struct err *err)
{
	int rc;

	batch_start(b);
	rc = threadattr_put(rb, p, t, b, tid, err);
	if (rc < 0)
		return rc;
	sched_put(t, b, tid);
	return signals_queue(rb, b, tid, t->pending, t->n_pending, rb->new_id(rb, p->pid),
			     rb->new_id(rb, t->tid), err);
}

/*
 * A change of ids resets the dumpable flag and the parent-death signal, so those come after;
 * no_new_privs never comes off again and is last. Only the kernel sets a dumpable flag of 2
 * (fs.suid_dumpable): 0 is the nearest.
 */
static void last_calls(const struct process *p, const struct thread *t, bool leader,
		       struct batch *b)
{
	if (leader)
		batch_call(b, "set the dumpable flag", SYS_prctl, PR_SET_DUMPABLE, p->dumpable == 1,
			   0, 0, 0);
	batch_call(b, "set the parent-death signal", SYS_prctl, PR_SET_PDEATHSIG,
		   t->parent_death_signal, 0, 0, 0);
	if (p->creds.no_new_privs)
		batch_call(b, "set no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* A batch costs as much as some forty calls in it, so that all is in one as far as there is room.
 */
int attrs_put_thread(struct rebuild *rb, const struct process *p, const struct thread *t,
		     bool leader, struct batch *b, pid_t tid, struct err *err)
{
	struct limits_change limits = { 0 };
	struct creds_change creds = { 0 };
	int rc = thread_calls(rb, p, t, b, tid, err);

	if (rc == 0 && leader)
		rc = process_calls(rb, p, b, tid, err);
	if (rc == 0)
		rc = attrs_make_room(b, tid, LIMITS_CALLS + CREDS_CALLS,
				     LIMITS_BYTES + CREDS_BYTES(p), err);
	if (rc == 0 && leader) /* after the timers and signals that they may count */
		limits_put(b, p, &limits);
	if (rc == 0) /* everything that needs privilege has been done, or stands before it */
		rc = creds_put(p, b, tid, &creds, err);
	if (rc == 0) {
		last_calls(p, t, leader, b);
		rc = batch_run(b, tid, err);
	}
	if (rc == 0)
		rc = creds_verify(p, b, tid, &creds, err);
	if (rc == 0 && leader)
		rc = limits_put_rest(b, p, &limits, tid, err);
	return rc < 0 ? err_wrap(err, rc, "thread %d", t->tid) : 0;
}
