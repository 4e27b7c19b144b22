/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Resource limits (setrlimit(2)). The soft limit is what a job feels: one that cannot be given back
 * is an error. A hard limit that was higher than what may be had here becomes the one that holds
 * here.
 */
#include "object/attrs.h"

#include "util/cleanup.h"

#include <linux/capability.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static const char *const names[] = {
	[RLIMIT_CPU] = "RLIMIT_CPU",           [RLIMIT_FSIZE] = "RLIMIT_FSIZE",
	[RLIMIT_DATA] = "RLIMIT_DATA",         [RLIMIT_STACK] = "RLIMIT_STACK",
	[RLIMIT_CORE] = "RLIMIT_CORE",         [RLIMIT_RSS] = "RLIMIT_RSS",
	[RLIMIT_NPROC] = "RLIMIT_NPROC",       [RLIMIT_NOFILE] = "RLIMIT_NOFILE",
	[RLIMIT_MEMLOCK] = "RLIMIT_MEMLOCK",   [RLIMIT_AS] = "RLIMIT_AS",
	[RLIMIT_LOCKS] = "RLIMIT_LOCKS",       [RLIMIT_SIGPENDING] = "RLIMIT_SIGPENDING",
	[RLIMIT_MSGQUEUE] = "RLIMIT_MSGQUEUE", [RLIMIT_NICE] = "RLIMIT_NICE",
	[RLIMIT_RTPRIO] = "RLIMIT_RTPRIO",     [RLIMIT_RTTIME] = "RLIMIT_RTTIME",
};

_Static_assert(ARRAY_SIZE(names) == LIMITS_N, "all of them");

struct kernel_rlimit {
	uint64_t soft, hard;
};

void limits_ask(struct batch *b, struct limits_query *q)
{
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		q->limit[i] = batch_out(b, sizeof(struct kernel_rlimit));
		batch_call(b, "read a resource limit", SYS_prlimit64, 0, i, 0, q->limit[i]);
	}
}

int limits_take(const struct batch *b, const struct limits_query *q, struct arena *a,
		struct process *p, struct err *err)
{
	p->rlimits = arena_array(a, ARRAY_SIZE(names), sizeof *p->rlimits);
	if (!p->rlimits)
		return err_nomem(err);
	p->n_rlimits = ARRAY_SIZE(names);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		struct kernel_rlimit v;

		memcpy(&v, batch_result(b, q->limit[i]), sizeof v);
		p->rlimits[i] =
			(struct rlimit_state){ .resource = i, .soft = v.soft, .hard = v.hard };
	}
	return 0;
}

int limits_check(const struct process *p, struct err *err)
{
	if (creds_own_effective() & 1ULL << CAP_SYS_RESOURCE)
		return 0;
	for (unsigned i = 0; i < p->n_rlimits; i++) {
		const struct rlimit_state *want = &p->rlimits[i];
		struct kernel_rlimit here;

		if (want->resource >= ARRAY_SIZE(names) ||
		    syscall(SYS_prlimit64, 0, want->resource, NULL, &here) < 0 ||
		    want->soft <= here.hard)
			continue;
		(void)err_set(err, -EPERM,
			      "pid %d: cannot raise %s to %llu: the hard limit is %llu", p->pid,
			      names[want->resource], (unsigned long long)want->soft,
			      (unsigned long long)here.hard);
		(void)err_hint(err, "raise the hard limit (ulimit -H, limits.conf), or run "
				    "ckpt-restart as root");
		return -EPERM;
	}
	return 0;
}

static unsigned set_call(struct batch *b, const char *what, uint32_t resource, uint64_t soft,
			 uint64_t hard, uint64_t old)
{
	struct kernel_rlimit v = { .soft = soft, .hard = hard };

	return batch_call(b, what, SYS_prlimit64, 0, resource, batch_in(b, &v, sizeof v), old);
}

static unsigned n_limits(const struct process *p)
{
	return (unsigned)MIN(p->n_rlimits, ARRAY_SIZE(names));
}

/* First as recorded; where that is not allowed, with the hard limit that is there. */
void limits_put(struct batch *b, const struct process *p, struct limits_change *ret)
{
	for (unsigned i = 0; i < n_limits(p); i++) {
		ret->old[i] = batch_out(b, sizeof(struct kernel_rlimit));
		batch_call(b, "read a resource limit", SYS_prlimit64, 0, p->rlimits[i].resource, 0,
			   ret->old[i]);
		ret->call[i] = set_call(b, NULL, p->rlimits[i].resource, p->rlimits[i].soft,
					p->rlimits[i].hard, 0);
	}
}

int limits_put_rest(struct batch *b, const struct process *p, const struct limits_change *change,
		    pid_t tid, struct err *err)
{
	struct kernel_rlimit here[LIMITS_N];
	bool refused[LIMITS_N];

	for (unsigned i = 0; i < n_limits(p); i++) {
		refused[i] = batch_ret(b, change->call[i]) < 0;
		memcpy(&here[i], batch_result(b, change->old[i]), sizeof here[i]);
	}
	batch_start(b);
	for (unsigned i = 0; i < n_limits(p); i++)
		if (refused[i])
			set_call(b, "set a resource limit", p->rlimits[i].resource,
				 p->rlimits[i].soft, here[i].hard, 0);
	return batch_run(b, tid, err);
}
