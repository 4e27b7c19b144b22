/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * POSIX timers (timer_create(2)). What they are stands in /proc/PID/timers, what they show is asked
 * from inside. They come back with the same ids, which programs hold in their memory: by
 * PR_TIMER_CREATE_RESTORE_IDS where the kernel has it (6.15), else by counting up, since the kernel
 * numbers a process's timers in sequence.
 */
#include "object/attrs.h"

#include "proc/refusals.h"
#include "util/cleanup.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS 77
#endif

/* Counting up goes no further than this. */
#define MAX_COUNTED_ID 100000
#define NS_PER_S       1000000000ULL

bool ptimers_force_counted;

/* struct sigevent as the kernel takes it: 64 bytes. */
struct kernel_sigevent {
	uint64_t value;
	int32_t signo, notify, tid, pad[11];
};

static int32_t clock_with_owner(int32_t clockid, int32_t owner)
{
	return (int32_t)((~(uint32_t)owner << 3) | ((uint32_t)clockid & 7));
}

/* --- capture -------------------------------------------------------------------------------- */

static int check_timer(const struct subject *s, struct posix_timer *t, struct arena *a,
		       struct err *err)
{
	const char *why = proc_timer_refusal(s->pid, s->process->pid, t, a);

	if (why) {
		(void)err_set(err, -EOPNOTSUPP, "pid %d: a POSIX timer (id %d) %s is not supported",
			      s->pid, t->id, why);
		return err_hint(err, "%s", refusal_hint_timer);
	}
	t->notify_tid = t->notify & SIGEV_THREAD_ID ? proc_inner_tid(s->pid, t->notify_tid, a) : 0;
	return 0;
}

static uint64_t nsecs(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec * NS_PER_S + (uint64_t)ts->tv_nsec;
}

static int ask_values(struct subject *s, struct posix_timer *timers, unsigned n, struct err *err)
{
	enum { AT_ONCE = 256 };
	uint64_t spec[AT_ONCE];
	unsigned over[AT_ONCE];
	int rc;

	batch_start(s->batch);
	for (unsigned i = 0; i < n; i++) {
		spec[i] = batch_out(s->batch, sizeof(struct itimerspec));
		batch_call(s->batch, "read a POSIX timer", SYS_timer_gettime, timers[i].id,
			   spec[i]);
		over[i] = batch_call(s->batch, NULL, SYS_timer_getoverrun, timers[i].id);
	}
	rc = batch_run(s->batch, s->pid, err);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		int64_t overrun = batch_ret(s->batch, over[i]);
		struct itimerspec v;

		memcpy(&v, batch_result(s->batch, spec[i]), sizeof v);
		timers[i].value_ns = nsecs(&v.it_value);
		timers[i].interval_ns = nsecs(&v.it_interval);
		timers[i].overrun = overrun > 0 ? (uint32_t)overrun : 0;
	}
	return rc;
}

int ptimers_capture(struct capture *c, struct subject *s, struct err *err)
{
	struct process *p = s->process;
	int rc;

	p->next_timer_id = -1;
	rc = proc_timers_read(s->proc_dirfd, c->arena, &p->timers, &p->n_timers, err);
	for (unsigned i = 0; rc == 0 && i < p->n_timers; i++)
		rc = check_timer(s, &p->timers[i], c->arena, err);
	for (unsigned i = 0; rc == 0 && i < p->n_timers; i += 256)
		rc = ask_values(s, &p->timers[i], MIN(256, p->n_timers - i), err);
	return rc;
}

/* --- restore -------------------------------------------------------------------------------- */

static struct kernel_sigevent event_of(const struct rebuild *rb, const struct posix_timer *t)
{
	struct kernel_sigevent ev = { .value = t->sigval, .signo = t->signo, .notify = t->notify };

	if (t->notify & SIGEV_THREAD_ID)
		ev.tid = rb->new_id(rb, t->notify_tid);
	return ev;
}

static int32_t clock_of(const struct rebuild *rb, const struct posix_timer *t)
{
	int32_t owner = t->clockid < 0 ? proc_clock_owner(t->clockid) : 0;

	return owner ? clock_with_owner(t->clockid, rb->new_id(rb, owner)) : t->clockid;
}

static unsigned create_call(const struct rebuild *rb, struct batch *b, const struct posix_timer *t,
			    uint64_t *ret_id)
{
	struct kernel_sigevent ev = event_of(rb, t);

	*ret_id = batch_in(b, &t->id, sizeof t->id);
	return batch_call(b, NULL, SYS_timer_create, clock_of(rb, t), batch_in(b, &ev, sizeof ev),
			  *ret_id);
}

static int created_id(const struct batch *b, uint64_t addr)
{
	int32_t id;

	memcpy(&id, batch_result(b, addr), sizeof id);
	return id;
}

/* n timers with the kernel's help. 0: all are there; 1: this kernel cannot, and nothing has been
 * created. */
static int create_exact(const struct rebuild *rb, const struct process *p, unsigned first,
			unsigned n, struct batch *b, pid_t tid, struct err *err)
{
	uint64_t id[256];
	unsigned call[256], on;
	int rc;

	if (ptimers_force_counted)
		return 1;
	batch_start(b);
	on = batch_call(b, NULL, SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0);
	rc = batch_run(b, tid, err);
	if (rc < 0 || batch_ret(b, on) < 0)
		return rc < 0 ? rc : 1;
	batch_start(b);
	for (unsigned i = 0; i < n; i++)
		call[i] = create_call(rb, b, &p->timers[first + i], &id[i]);
	batch_call(b, "leave the mode in which timers get chosen ids", SYS_prctl,
		   PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0);
	rc = batch_run(b, tid, err);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		const struct posix_timer *t = &p->timers[first + i];

		if (batch_ret(b, call[i]) < 0)
			rc = err_set(err, (int)batch_ret(b, call[i]),
				     "pid %d: cannot create POSIX timer %d: %m", p->pid, t->id);
		else if (created_id(b, id[i]) != t->id)
			rc = err_set(err, -EINVAL,
				     "pid %d: POSIX timer %d came back with the id %d", p->pid,
				     t->id, created_id(b, id[i]));
	}
	return rc;
}

/* Moves the kernel's count forward from the free id `from` to `to`: each id in between is made and
 * dropped. */
static int count_up(struct batch *b, pid_t tid, int32_t from, int32_t to, struct err *err)
{
	while (from < to) {
		int rc;

		batch_start(b);
		for (; from < to && batch_room(b, 2, 128); from++) {
			struct kernel_sigevent ev = { .notify = SIGEV_NONE };

			batch_call(b, "create a timer", SYS_timer_create, CLOCK_MONOTONIC,
				   batch_in(b, &ev, sizeof ev), batch_out(b, sizeof(int32_t)));
			batch_call(b, "count timers up", SYS_timer_delete, from);
		}
		rc = batch_run(b, tid, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Timers in the order of their ids: each is at or after what the kernel would give next. */
static int create_counted(const struct rebuild *rb, const struct process *p,
			  const struct posix_timer *t, struct batch *b, pid_t tid, struct err *err)
{
	for (int attempt = 0; attempt < 2; attempt++) {
		unsigned call;
		uint64_t addr;
		int32_t id;
		int rc;

		batch_start(b);
		call = create_call(rb, b, t, &addr);
		rc = batch_run(b, tid, err);
		if (rc < 0)
			return rc;
		if (batch_ret(b, call) < 0)
			return err_set(err, (int)batch_ret(b, call),
				       "pid %d: cannot create POSIX timer %d: %m", p->pid, t->id);
		id = created_id(b, addr);
		if (id == t->id)
			return 0;
		batch_start(b);
		batch_call(b, "delete a timer", SYS_timer_delete, id);
		rc = batch_run(b, tid, err);
		if (rc == 0 && id < t->id && t->id <= MAX_COUNTED_ID)
			rc = count_up(b, tid, id + 1, t->id, err);
		if (rc < 0)
			return rc;
	}
	return err_set(
		err, -EOPNOTSUPP,
		"pid %d: cannot give a POSIX timer the id %d on this kernel (Linux 6.15 can)",
		p->pid, t->id);
}

void ptimers_arm_put(struct batch *b, const struct posix_timer *t)
{
	struct itimerspec v = {
		.it_value = { .tv_sec = (time_t)(t->value_ns / NS_PER_S),
			      .tv_nsec = (long)(t->value_ns % NS_PER_S) },
		.it_interval = { .tv_sec = (time_t)(t->interval_ns / NS_PER_S),
				 .tv_nsec = (long)(t->interval_ns % NS_PER_S) },
	};

	batch_call(b, "set a POSIX timer", SYS_timer_settime, t->id, 0, batch_in(b, &v, sizeof v),
		   0);
}

static int by_id(const void *x, const void *y)
{
	int32_t a = ((const struct posix_timer *)x)->id, b = ((const struct posix_timer *)y)->id;

	return (a > b) - (a < b);
}

/* Creates the timers, disarmed. The order of recorded timers is /proc's, newest first: not the
 * order of ids. */
int ptimers_put(const struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		struct err *err)
{
	struct posix_timer *sorted;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < p->n_timers; i += 256)
		rc = create_exact(rb, p, i, MIN(256, p->n_timers - i), b, tid, err);
	if (rc <= 0)
		return rc;
	sorted = arena_memdup(rb->arena, p->timers, p->n_timers * sizeof *sorted);
	if (!sorted)
		return err_nomem(err);
	qsort(sorted, p->n_timers, sizeof *sorted, by_id);
	rc = 0;
	for (unsigned i = 0; rc == 0 && i < p->n_timers; i++)
		rc = create_counted(rb, p, &sorted[i], b, tid, err);
	return rc;
}
