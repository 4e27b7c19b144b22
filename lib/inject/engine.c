/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entering the stub and coming back at its marker. The marker is a signal of the thread to itself;
 * where the process has handlers for all that could serve, the thread is stopped at its system
 * calls instead (twice each: slower).
 */
#include "inject/engine.h"

#include "trace/poke.h"
#include "trace/regs.h"
#include "trace/settle.h"
#include "trace/stop.h"
#include "util/io.h"
#include "util/log.h"

#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#define LOG_ROOM "inject"
/* A job in a frozen cgroup, say, does not run at all: then its threads are left to heal themselves.
 */
#define RUN_TIMEOUT_NS (5LL * 1000000000)
/* One that can run, but gets no processor or has much to unmap, is waited for so often. */
#define PATIENCE 12

/* Every signal but the marker. */
static uint64_t mask_of(const struct remote *r)
{
	return r->marker_sig ? ~(1ULL << (r->marker_sig - 1)) : ~0ULL;
}

uint64_t engine_slot_address(const struct remote *r, unsigned slot)
{
	return r->stub + STUB_OFFSET(stub_slots) +
	       (r->first_slot + slot) * sizeof(struct stub_slot);
}

void engine_slot(const struct remote *r, const struct engine_thread *t,
		 const struct thread_regs *regs, struct stub_slot *ret)
{
	struct user_regs_struct gp = { 0 };

	if (regs && regs_reissue(&regs->gp, SYS_restart_syscall, &gp) < 0)
		gp = regs->gp;
	*ret = (struct stub_slot){
		.tgid = (uint64_t)r->ns_pid,
		.tid = (uint64_t)t->ns_tid,
		.sig = (uint64_t)r->marker_sig,
		.mask = regs ? regs->sigmask : 0,
		.arena_size = ARENA_BYTES,
		.rax = gp.rax,
		.rbx = gp.rbx,
		.rcx = gp.rcx,
		.rdx = gp.rdx,
		.rsi = gp.rsi,
		.rdi = gp.rdi,
		.rbp = gp.rbp,
		.r8 = gp.r8,
		.r9 = gp.r9,
		.r10 = gp.r10,
		.r11 = gp.r11,
		.r12 = gp.r12,
		.r13 = gp.r13,
		.r14 = gp.r14,
		.r15 = gp.r15,
		.rip = gp.rip,
		.df = (gp.eflags >> 10) & 1,
		.of = (gp.eflags >> 11) & 1,
		.lowflags = (uint8_t)gp.eflags,
	};
	memcpy(ret->code, stub_slots, sizeof ret->code);
}

int engine_write(struct remote *r, uint64_t addr, const void *p, size_t len, struct err *err)
{
	pid_t tid = r->stopped ? r->stopped : r->threads[0].tid;
	int rc = poke_write(tid, r->mem_fd, p, len, addr);

	if (rc < 0)
		return err_set(err, rc, "cannot write to the memory of process %d at %#llx: %m",
			       r->pid, (unsigned long long)addr);
	return 0;
}

int engine_read(struct remote *r, uint64_t addr, void *p, size_t len, struct err *err)
{
	ssize_t n = io_pread_full(r->mem_fd, p, len, addr);

	if (n != (ssize_t)len)
		return err_set(err, n < 0 ? (int)n : -EIO,
			       "cannot read the memory of process %d at %#llx: %m", r->pid,
			       (unsigned long long)addr);
	return 0;
}

static int rip_of(pid_t tid, struct user_regs_struct *gp, struct err *err)
{
	if (ptrace(PTRACE_GETREGS, tid, 0, gp) < 0)
		return err_set(err, -errno, "cannot read the registers of thread %d: %m", tid);
	return 0;
}

/*
 * One stop on the way. 1: at the marker, in a stop inside the kernel's signal code (where the
 * registers that we set next pass its restart logic); 0: to be resumed with *sig.
 */
static int at_stop(struct remote *r, const struct engine_thread *t, const struct stop *stop,
		   struct user_regs_struct *gp, uint64_t marker, bool *passed_marker,
		   struct err *err)
{
	int rc;

	switch (stop->kind) {
	case STOP_SIGNAL:
		rc = rip_of(t->tid, gp, err);
		if (rc < 0)
			return rc;
		if (stop->sig == r->marker_sig && gp->rip == r->stub + marker)
			return 1;
		if (stop->sig == SIGSTOP)
			r->stop_seen = true;
		else if (stop->sig != r->marker_sig)
			return err_set(err, -EFAULT,
				       "thread %d got signal %d at %#llx while it ran our calls",
				       t->tid, stop->sig, (unsigned long long)gp->rip);
		return 0;
	case STOP_SYSCALL:
		rc = rip_of(t->tid, gp, err);
		if (rc < 0)
			return rc;
		if (gp->rip == r->stub + marker && (int64_t)gp->rax != -ENOSYS) {
			*passed_marker = true;
			(void)trace_interrupt(t->tid, NULL);
		}
		return 0;
	case STOP_TRAP:
	case STOP_GROUP:
		if (!*passed_marker)
			return 0;
		rc = rip_of(t->tid, gp, err);
		return rc < 0 ? rc : 1;
	case STOP_EVENT:
		return 0; /* a newborn is for engine_birth, which does not pass it on */
	case STOP_EXITED:
		return err_set(err, -ESRCH, "process %d has ended", r->pid);
	}
	return 0;
}

int engine_prepare(struct remote *r, const struct engine_thread *t, unsigned slot,
		   struct user_regs_struct *gp, struct err *err)
{
	int rc;

	gp->rbp = engine_slot_address(r, slot);
	gp->orig_rax = (uint64_t)-1;
	/* Registers first: from here on the thread heals itself, its mask included. */
	rc = regs_set_gp(t->tid, gp, err);
	return rc == 0 ? regs_set_mask(t->tid, mask_of(r), err) : rc;
}

int engine_start(struct remote *r, const struct engine_thread *t, unsigned slot,
		 struct user_regs_struct *gp, struct err *err)
{
	int rc = engine_prepare(r, t, slot, gp, err);

	return rc == 0 ? engine_continue(r, t, err) : rc;
}

static int wait_stop(pid_t tid, struct stop *ret, struct err *err)
{
	for (unsigned n = 1;; n++) {
		int rc = trace_wait(tid, trace_now_ns() + RUN_TIMEOUT_NS, ret, err);

		if (rc != -ETIMEDOUT || n == PATIENCE || !settle_can_run(tid))
			return rc;
	}
}

/* 1: at the marker; 2: it has created another thread, whose id is in *newborn (when wanted). */
static int go_on(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp,
		 uint64_t marker, pid_t *newborn, struct err *err)
{
	int how = r->marker_sig ? PTRACE_CONT : PTRACE_SYSCALL;
	bool passed_marker = false;
	int rc = 0;

	while (rc == 0) {
		struct stop stop;

		rc = wait_stop(t->tid, &stop, err);
		if (rc == 0 && stop.kind == STOP_EVENT && newborn) {
			rc = trace_newborn(t->tid, newborn, err);
			return rc < 0 ? rc : 2;
		}
		if (rc == 0)
			rc = at_stop(r, t, &stop, gp, marker, &passed_marker, err);
		if (rc == 0)
			rc = trace_resume(t->tid, passed_marker ? PTRACE_CONT : how, 0, err);
	}
	return rc;
}

int engine_finish(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp,
		  uint64_t marker, struct err *err)
{
	int rc = go_on(r, t, gp, marker, NULL, err);

	return rc < 0 ? rc : 0;
}

int engine_birth(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp,
		 uint64_t marker, pid_t *ret_newborn, struct err *err)
{
	int rc = go_on(r, t, gp, marker, ret_newborn, err);

	return rc < 0 ? rc : rc == 2;
}

int engine_continue(struct remote *r, const struct engine_thread *t, struct err *err)
{
	return trace_resume(t->tid, r->marker_sig ? PTRACE_CONT : PTRACE_SYSCALL, 0, err);
}

int engine_run(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp,
	       uint64_t marker, struct err *err)
{
	int rc = engine_start(r, t, 0, gp, err);

	return rc < 0 ? rc : engine_finish(r, t, gp, marker, err);
}
