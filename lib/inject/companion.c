/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A companion: made like a snapshot (snapshot.c), but with CLONE_VM. The job runs on beside it, so
 * nothing of ours may be in its memory any more: no stub, no arena. What the companion runs is one
 * instruction of the job's own, a syscall in the vdso, between two stops, at its entry and its
 * exit. It never runs another one: whatever happens to us it is killed where it stands
 * (PTRACE_O_EXITKILL), without a trace in the memory: it has no list of robust futexes, no address
 * to clear at its end, and leaves no core.
 */
#include "inject/companion.h"

#include "inject/shadow.h"
#include "trace/regs.h"
#include "trace/stop.h"
#include "util/cleanup.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

#define CALL_TIMEOUT_NS (5LL * 1000000000)
#define MAX_CODE_BYTES  (64 * 1024)
/* Less than the job's own, but it holds locks that the job waits for: not the least of all. */
#define NICER 5

/* 0: there is none. */
static uint64_t find_entry(struct remote *r, const struct proc_map *m)
{
	static const uint8_t insn[] = { 0x0f, 0x05 };
	size_t len = (size_t)MIN(m->end - m->start, (uint64_t)MAX_CODE_BYTES);
	CLEANUP_FREE uint8_t *code = malloc(len);
	const uint8_t *at;

	if (!code || engine_read(r, m->start, code, len, NULL) < 0)
		return 0;
	/* not the stub's own, which goes */
	if (m->start < r->stub && r->stub < m->start + len)
		len = (size_t)(r->stub - m->start);
	at = memmem(code, len, insn, sizeof insn);
	return at ? m->start + (uint64_t)(at - code) : 0;
}

/* The job's own policy may be one under which nobody else runs; it may be bound to one CPU. */
static void be_modest(pid_t pid)
{
	const struct sched_param none = { 0 };
	cpu_set_t cpus;
	int nice;

	(void)sched_setscheduler(pid, SCHED_OTHER, &none);
	errno = 0;
	nice = getpriority(PRIO_PROCESS, (id_t)pid);
	if (errno == 0)
		(void)setpriority(PRIO_PROCESS, (id_t)pid, MIN(nice + NICER, 19));
	if (sched_getaffinity(0, sizeof cpus, &cpus) == 0)
		(void)sched_setaffinity(pid, sizeof cpus, &cpus);
}

int companion_make(struct remote *r, const struct proc_map *maps, unsigned n_maps,
		   struct snapshot **ret, struct err *err)
{
	uint64_t entry = 0;
	int rc;

	for (unsigned i = 0; i < n_maps && !entry; i++)
		if (!strcmp(maps[i].path, "[vdso]"))
			entry = find_entry(r, &maps[i]);
	if (!entry)
		return err_set(err, -EOPNOTSUPP, "process %d has no vdso", r->pid);
	if (r->no_stub || r->guests + 2 > r->n_slots)
		return err_set(err, -EOPNOTSUPP, "process %d: no room for another slot", r->pid);
	rc = shadow_make(r, true, NULL, 0, ret, err);
	if (rc < 0)
		return rc;
	(*ret)->entry = entry;
	be_modest((*ret)->r.pid);
	return 0;
}

/* On to the next stop at a system call. */
static int to_syscall(struct snapshot *s, int64_t deadline, struct err *err)
{
	for (;;) {
		struct stop stop = { .kind = STOP_TRAP };
		int rc = trace_resume(s->r.pid, PTRACE_SYSCALL, 0, err);

		if (rc == 0)
			rc = trace_wait(s->r.pid, deadline, &stop, err);
		if (rc < 0 || stop.kind == STOP_SYSCALL)
			return rc;
		if (stop.kind == STOP_EXITED)
			return err_set(err, -ESRCH, "the companion %d has ended", s->r.pid);
		if (stop.kind == STOP_SIGNAL && stop.sig == SIGSEGV) /* the job's vdso has gone */
			return err_set(err, -EFAULT, "the companion %d cannot run", s->r.pid);
	}
}

int companion_call(struct snapshot *s, long nr, uint64_t a0, uint64_t a1, uint64_t a2, int64_t *ret,
		   struct err *err)
{
	int64_t deadline = trace_now_ns() + CALL_TIMEOUT_NS;
	struct user_regs_struct gp = s->r.base;
	int rc;

	gp.rax = (uint64_t)nr;
	gp.orig_rax = (uint64_t)-1;
	gp.rdi = a0;
	gp.rsi = a1;
	gp.rdx = a2;
	gp.r10 = gp.r8 = gp.r9 = 0;
	gp.rip = s->entry;
	rc = regs_set_gp(s->r.pid, &gp, err);
	if (rc == 0)
		rc = to_syscall(s, deadline, err); /* its entry */
	if (rc == 0)
		rc = to_syscall(s, deadline, err); /* its exit */
	if (rc == 0 && ptrace(PTRACE_GETREGS, s->r.pid, 0, &gp) < 0)
		rc = err_set(err, -errno, "cannot read the registers of %d: %m", s->r.pid);
	if (rc == 0)
		*ret = (int64_t)gp.rax;
	return rc;
}
