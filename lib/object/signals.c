/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals: dispositions, the queues of pending signals, and the three interval timers
 * (setitimer(2)). */
#include "object/attrs.h"

#include "util/cleanup.h"

#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define KERNEL_SIGNALS 64
#define SIGINFO_BYTES  128

/* What rt_sigaction(2) takes: not the C library's struct. */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

/* Where the fields that are not in every siginfo lie (x86-64). */
enum siginfo_at {
	AT_SIGNO = 0,
	AT_CODE = 8,
	AT_PID = 16,
	AT_TIMER_PRIVATE = 32,
};

static const int itimers[] = { ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF };

static bool has_disposition(int sig)
{
	return sig != SIGKILL && sig != SIGSTOP;
}

void signals_ask(struct batch *b, struct signals_query *q)
{
	for (int sig = 1; sig <= KERNEL_SIGNALS; sig++) {
		if (!has_disposition(sig))
			continue;
		q->act[sig] = batch_out(b, sizeof(struct kernel_sigaction));
		batch_call(b, "read a signal's disposition", SYS_rt_sigaction, sig, 0, q->act[sig],
			   8);
	}
	for (size_t i = 0; i < ARRAY_SIZE(itimers); i++) {
		q->itimer[i] = batch_out(b, sizeof(struct itimerval));
		batch_call(b, "read an interval timer", SYS_getitimer, itimers[i], q->itimer[i]);
	}
}

static uint64_t usecs(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * 1000000 + (uint64_t)tv->tv_usec;
}

static struct timeval timeval_of(uint64_t us)
{
	return (struct timeval){ .tv_sec = (time_t)(us / 1000000),
				 .tv_usec = (suseconds_t)(us % 1000000) };
}

static int take_itimers(const struct batch *b, const struct signals_query *q, struct arena *a,
			struct process *p, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(itimers); i++) {
		struct itimer_state *slot;
		struct itimerval v;

		memcpy(&v, batch_result(b, q->itimer[i]), sizeof v);
		/* With an interval and nothing to go it has expired, and its signal is pending. */
		if (!usecs(&v.it_value) && !usecs(&v.it_interval))
			continue;
		slot = arena_push(a, &p->itimers, &p->n_itimers, sizeof *slot);
		if (!slot)
			return err_nomem(err);
		*slot = (struct itimer_state){ .which = (uint32_t)itimers[i],
					       .value_us = usecs(&v.it_value),
					       .interval_us = usecs(&v.it_interval) };
	}
	return 0;
}

/* Only what is not the default is recorded; signals_put makes the rest default. */
int signals_take(const struct batch *b, const struct signals_query *q, struct arena *a,
		 struct process *p, struct err *err)
{
	p->sigactions = NULL;
	p->n_sigactions = 0;
	p->itimers = NULL;
	p->n_itimers = 0;
	for (int sig = 1; sig <= KERNEL_SIGNALS; sig++) {
		struct kernel_sigaction sa;
		struct sigaction_state *slot;

		if (!has_disposition(sig))
			continue;
		memcpy(&sa, batch_result(b, q->act[sig]), sizeof sa);
		if (!sa.handler && !sa.flags && !sa.mask)
			continue;
		slot = arena_push(a, &p->sigactions, &p->n_sigactions, sizeof *slot);
		if (!slot)
			return err_nomem(err);
		*slot = (struct sigaction_state){ .signo = (uint32_t)sig,
						  .handler = sa.handler,
						  .flags = sa.flags,
						  .restorer = sa.restorer,
						  .mask = sa.mask };
	}
	return take_itimers(b, q, a, p, err);
}

/* --- pending -------------------------------------------------------------------------------- */

static int32_t get_i32(const uint8_t *info, enum siginfo_at at)
{
	int32_t v;

	memcpy(&v, info + at, sizeof v);
	return v;
}

static void put_i32(uint8_t *info, enum siginfo_at at, int32_t v)
{
	memcpy(info + at, &v, sizeof v);
}

static int add_pending(const uint8_t *info, struct arena *a, struct pending_signal **list,
		       unsigned *n, struct err *err)
{
	struct pending_signal *slot = arena_push(a, list, n, sizeof *slot);

	if (!slot)
		return err_nomem(err);
	slot->siginfo.data = arena_memdup(a, info, SIGINFO_BYTES);
	if (!slot->siginfo.data)
		return err_nomem(err);
	slot->siginfo.len = SIGINFO_BYTES;
	/* The kernel's own mark that ties the signal to a timer object: that object will not be
	 * there. */
	if (get_i32(info, AT_CODE) == SI_TIMER)
		put_i32(slot->siginfo.data, AT_TIMER_PRIVATE, 0);
	return 0;
}

/* A signal can be pending without an entry in the queue (no memory, or over RLIMIT_SIGPENDING): it
 * says nothing. */
static int add_bare(uint64_t bits, struct arena *a, struct pending_signal **list, unsigned *n,
		    struct err *err)
{
	for (int sig = 1; sig <= KERNEL_SIGNALS; sig++) {
		uint8_t info[SIGINFO_BYTES] = { 0 };
		int rc;

		if (!(bits & 1ULL << (sig - 1)) || sig == SIGKILL)
			continue;
		put_i32(info, AT_SIGNO, sig);
		rc = add_pending(info, a, list, n, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int signals_look_pending(pid_t tid, bool shared, uint64_t bits, struct arena *a,
			 struct pending_signal **ret, unsigned *ret_n, struct err *err)
{
	struct __ptrace_peeksiginfo_args args = { .flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
						  .nr = 32 };
	struct pending_signal *list = NULL;
	unsigned n = 0;
	int rc = 0;

	while (bits) {
		uint8_t info[32][SIGINFO_BYTES];
		long got = ptrace(PTRACE_PEEKSIGINFO, tid, &args, info);

		if (got < 0)
			return err_set(err, -errno,
				       "cannot read the pending signals of thread %d: %m", tid);
		if (got == 0)
			break;
		args.off += (uint64_t)got;
		for (long i = 0; i < got && rc == 0; i++)
			rc = add_pending(info[i], a, &list, &n, err);
		if (rc < 0)
			return rc;
	}
	for (unsigned i = 0; i < n; i++)
		bits &= ~(1ULL << (get_i32(list[i].siginfo.data, AT_SIGNO) - 1));
	rc = add_bare(bits, a, &list, &n, err);
	if (rc < 0)
		return rc;
	*ret = list;
	*ret_n = n;
	return 0;
}

/* --- restore -------------------------------------------------------------------------------- */

void signals_put(struct batch *b, const struct process *p)
{
	struct kernel_sigaction acts[KERNEL_SIGNALS + 1] = { 0 };

	for (unsigned i = 0; i < p->n_sigactions; i++) {
		const struct sigaction_state *s = &p->sigactions[i];

		if (s->signo >= 1 && s->signo <= KERNEL_SIGNALS)
			acts[s->signo] = (struct kernel_sigaction){ .handler = s->handler,
								    .flags = s->flags,
								    .restorer = s->restorer,
								    .mask = s->mask };
	}
	for (int sig = 1; sig <= KERNEL_SIGNALS; sig++)
		if (has_disposition(sig))
			batch_call(b, "set a signal's disposition", SYS_rt_sigaction, sig,
				   batch_in(b, &acts[sig], sizeof acts[sig]), 0, 8);
}

void itimers_put(struct batch *b, const struct process *p)
{
	for (unsigned i = 0; i < p->n_itimers; i++) {
		const struct itimer_state *t = &p->itimers[i];
		/* The kernel starts ITIMER_REAL's next interval when the signal is taken: expired,
		 * with its signal still pending, it would be disarmed. So it goes on with its next
		 * interval. The others have none to go only where they are disarmed. */
		bool expired = t->which == ITIMER_REAL && !t->value_us;
		uint64_t value_us = expired ? t->interval_us : t->value_us;
		struct itimerval v = { .it_value = timeval_of(value_us),
				       .it_interval = timeval_of(t->interval_us) };

		batch_call(b, "set an interval timer", SYS_setitimer, t->which,
			   batch_in(b, &v, sizeof v), 0);
	}
}

/* Does the siginfo name the process that sent it, at AT_PID? */
static bool names_sender(const uint8_t *info)
{
	int code = get_i32(info, AT_CODE);

	return code == SI_USER || code == SI_TKILL || code == SI_QUEUE || code == SI_MESGQ ||
	       (get_i32(info, AT_SIGNO) == SIGCHLD && code > 0);
}

/*
 * Queued by the receiving thread to itself: only then does the kernel let any si_code pass. Nothing
 * is delivered now, since everything is blocked while calls are run.
 */
int signals_queue(const struct rebuild *rb, struct batch *b, pid_t run_tid,
		  const struct pending_signal *list, unsigned n, int32_t pid, int32_t tid,
		  struct err *err)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t info[SIGINFO_BYTES] = { 0 };
		uint64_t addr;
		int sig, rc;

		memcpy(info, list[i].siginfo.data, MIN(list[i].siginfo.len, sizeof info));
		sig = get_i32(info, AT_SIGNO);
		if (sig < 1 || sig > KERNEL_SIGNALS || !has_disposition(sig))
			continue;
		if (names_sender(info)) {
			int32_t sender = rb->new_id(rb, get_i32(info, AT_PID));

			if (sender)
				put_i32(info, AT_PID, sender);
		}
		rc = attrs_make_room(b, run_tid, 1, sizeof info, err);
		if (rc < 0)
			return rc;
		addr = batch_in(b, info, sizeof info);
		if (tid)
			batch_call(b, "queue a thread's pending signal", SYS_rt_tgsigqueueinfo, pid,
				   tid, sig, addr);
		else
			batch_call(b, "queue a pending signal", SYS_rt_sigqueueinfo, pid, sig,
				   addr);
	}
	return 0;
}
