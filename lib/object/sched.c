/* SPDX-License-Identifier: BSD-2-Clause */
/* Scheduling of a thread: policy, priority, nice, CPU affinity, I/O priority (sched(7),
 * ioprio_set(2)). */
#include "object/attrs.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <linux/capability.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define CPU_BYTES       1024 /* the kernel's largest cpumask: 8192 CPUs */
#define POLICY_DEADLINE 6
#define MIN_NICE_LIMIT  20 /* RLIMIT_NICE counts 20 - nice */

/* struct sched_attr of sched_setattr(2), first version. */
struct sched_params {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static bool is_realtime(uint32_t policy)
{
	return policy == SCHED_FIFO || policy == SCHED_RR || policy == POLICY_DEADLINE;
}

/* --- affinity ------------------------------------------------------------------------------- */

/* Sets the CPUs of a list like "0-3,8". */
static void parse_cpu_list(const char *s, uint8_t bits[static CPU_BYTES])
{
	memset(bits, 0, CPU_BYTES);
	while (*s) {
		char *end;
		unsigned long first = strtoul(s, &end, 10), last = first;

		if (end == s)
			return;
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		for (unsigned long cpu = first; cpu <= last && cpu < CPU_BYTES * 8UL; cpu++)
			bits[cpu / 8] |= (uint8_t)(1u << cpu % 8);
		s = *end == ',' ? end + 1 : end;
		if (*end != ',')
			return;
	}
}

/* The CPUs that are online, read once; NULL when unknown. */
static const uint8_t *online_cpus(void)
{
	static uint8_t bits[CPU_BYTES];
	static int state; /* 1 known, -1 not */
	CLEANUP_FREE char *text = NULL;

	if (!state) {
		state = io_read_file(-1, "/sys/devices/system/cpu/online", &text, NULL) < 0 ? -1
											    : 1;
		if (state > 0)
			parse_cpu_list(text, bits);
	}
	return state > 0 ? bits : NULL;
}

/*
 * A thread that may run on every CPU has no affinity worth recording (an empty blob): on a bigger
 * machine it shall not be tied to the CPUs of the old one.
 */
static int look_affinity(pid_t tid, struct arena *a, struct thread *t, struct err *err)
{
	uint8_t mask[CPU_BYTES] = { 0 };
	const uint8_t *online = online_cpus();
	long len = syscall(SYS_sched_getaffinity, tid, sizeof mask, mask);
	bool all = online;

	if (len < 0)
		return err_set(err, -errno, "cannot read the CPU affinity of thread %d: %m", tid);
	for (long i = 0; i < len && all; i++)
		all = !(online[i] & ~mask[i]);
	t->affinity = (struct blob){ 0 };
	if (all)
		return 0;
	while (len > 1 && !mask[len - 1])
		len--;
	t->affinity.data = arena_memdup(a, mask, (size_t)len);
	t->affinity.len = (uint32_t)len;
	return t->affinity.data ? 0 : err_nomem(err);
}

static bool affinity_is(pid_t tid, const struct blob *want)
{
	uint8_t mask[CPU_BYTES] = { 0 };
	uint32_t len = MIN(want->len, CPU_BYTES);

	if (syscall(SYS_sched_getaffinity, tid, sizeof mask, mask) < 0 ||
	    memcmp(mask, want->data, len))
		return false;
	for (uint32_t i = len; i < CPU_BYTES; i++)
		if (mask[i])
			return false;
	return true;
}

/* --- capture -------------------------------------------------------------------------------- */

static int get_params(pid_t tid, struct sched_params *ret)
{
	*ret = (struct sched_params){ .size = sizeof *ret };
	return syscall(SYS_sched_getattr, tid, ret, sizeof *ret, 0) < 0 ? -errno : 0;
}

/* getpriority(2) as the kernel has it: 20 - nice, so that no error looks like a value. */
static int get_nice(pid_t tid, int32_t *ret)
{
	long v = syscall(SYS_getpriority, PRIO_PROCESS, tid);

	if (v < 0)
		return -errno;
	*ret = (int32_t)(20 - v);
	return 0;
}

int sched_look(pid_t tid, struct arena *a, struct thread *t, struct err *err)
{
	struct sched_params v;
	long ioprio;
	int rc;

	rc = get_params(tid, &v);
	t->nice = v.nice;
	if (rc == 0 && is_realtime(v.policy)) /* it has one, but it is not among these then */
		rc = get_nice(tid, &t->nice);
	if (rc < 0)
		return err_set(err, rc, "cannot read the scheduling of thread %d: %m", tid);
	t->sched_policy = v.policy;
	t->sched_priority = v.priority;
	t->sched_flags = (uint32_t)v.flags;
	/* Fair policies show their time slice here, which is the kernel's business. */
	t->sched_runtime = v.policy == POLICY_DEADLINE ? v.runtime : 0;
	t->sched_deadline = v.policy == POLICY_DEADLINE ? v.deadline : 0;
	t->sched_period = v.policy == POLICY_DEADLINE ? v.period : 0;
	ioprio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	t->ioprio = ioprio < 0 ? 0 : (uint32_t)ioprio;
	return look_affinity(tid, a, t, err);
}

/* --- restore -------------------------------------------------------------------------------- */

/* What would fail for want of privilege, said before anything is created. */
int sched_check(const struct process *p, const struct thread *t, struct err *err)
{
	struct rlimit limit = { 0 };
	int32_t own = 0;

	if (creds_own_effective() & 1ULL << CAP_SYS_NICE)
		return 0;
	(void)get_nice(0, &own);
	(void)getrlimit(RLIMIT_NICE, &limit);
	if (t->nice < own && (rlim_t)(MIN_NICE_LIMIT - t->nice) > limit.rlim_cur) {
		(void)err_set(err, -EPERM, "pid %d: cannot give thread %d the nice value %d",
			      p->pid, t->tid, t->nice);
		(void)err_hint(err,
			       "ckpt-restart runs at nice %d: start it without nice, or as root",
			       own);
		return -EPERM;
	}
	(void)getrlimit(RLIMIT_RTPRIO, &limit);
	if (is_realtime(t->sched_policy) &&
	    (t->sched_policy == POLICY_DEADLINE || t->sched_priority > limit.rlim_cur) &&
	    sched_getscheduler(0) != (int)t->sched_policy) {
		(void)err_set(err, -EPERM, "pid %d: cannot give thread %d its real-time scheduling",
			      p->pid, t->tid);
		(void)err_hint(err, "raise RLIMIT_RTPRIO (ulimit -r), or run ckpt-restart as root");
		return -EPERM;
	}
	return 0;
}

static bool params_are(pid_t tid, const struct thread *t)
{
	struct sched_params v;
	int32_t nice = 0;

	if (get_params(tid, &v) < 0 || get_nice(tid, &nice) < 0)
		return false;
	return v.policy == t->sched_policy && v.priority == t->sched_priority &&
	       v.flags == t->sched_flags && nice == t->nice &&
	       (v.policy != POLICY_DEADLINE ||
		(v.runtime == t->sched_runtime && v.deadline == t->sched_deadline &&
		 v.period == t->sched_period));
}

/*
 * Adds calls only for what differs from what the thread has inherited, since raising a priority
 * back to where it is may be forbidden. tid as seen from here.
 */
void sched_put(const struct thread *t, struct batch *b, pid_t tid)
{
	struct sched_params v = {
		.size = sizeof v,
		.policy = t->sched_policy,
		.flags = t->sched_flags,
		.nice = t->nice,
		.priority = t->sched_priority,
		.runtime = t->sched_runtime,
		.deadline = t->sched_deadline,
		.period = t->sched_period,
	};
	long ioprio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);

	/* CPUs that are not here are left out by the kernel; if none of them is, it refuses and all
	 * CPUs stay. */
	if (t->affinity.len && !affinity_is(tid, &t->affinity))
		batch_call(b, NULL, SYS_sched_setaffinity, 0, t->affinity.len,
			   batch_in(b, t->affinity.data, t->affinity.len));
	if (!params_are(tid, t)) {
		/* sched_setattr sets it for the fair policies only (not SCHED_IDLE). */
		if (t->sched_policy != SCHED_OTHER && t->sched_policy != SCHED_BATCH)
			batch_call(b, "set the nice value", SYS_setpriority, PRIO_PROCESS, 0,
				   t->nice);
		batch_call(b, "set the scheduling policy", SYS_sched_setattr, 0,
			   batch_in(b, &v, sizeof v), 0);
	}
	if (ioprio >= 0 && (uint32_t)ioprio != t->ioprio)
		batch_call(b, "set the I/O priority", SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
			   t->ioprio);
}
