/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads: made with their ids, given their attributes, then their registers, then let go. */
#include "restore/internal.h"

#include "trace/poke.h"
#include "trace/regs.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

/* XSAVE area (Intel SDM vol. 1, 13.4): x87, SSE and AVX have a fixed place. */
#define XSTATE_BV_OFFSET 512
#define XFEATURES_FIXED  7ULL

#define THREAD_FLAGS                                                                               \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

/* Where a container's filter says that there is none, ids are not chosen either. */
static bool has_clone3(void)
{
	return syscall(SYS_clone3, NULL, 0) >= 0 || errno != ENOSYS;
}

static int clone_threads(struct restoring *r, struct build_process *bp, struct err *err)
{
	const struct process *p = bp->state;
	bool legacy = r->rb.new_pids && !has_clone3();
	int rc = 0;

	batch_start(bp->batch);
	for (unsigned i = 1; rc == 0 && i < p->n_threads; i++) {
		struct clone_args args = { .flags = THREAD_FLAGS,
					   .stack = bp->ws.stack - 0x8000,
					   .stack_size = 0x4000 };

		if (!batch_room(bp->batch, 1, sizeof args + 16)) {
			rc = batch_run(bp->batch, bp->pid, err);
			batch_start(bp->batch);
		}
		if (legacy) {
			(void)batch_call(bp->batch, "create a thread", SYS_clone, THREAD_FLAGS,
					 args.stack + args.stack_size, 0, 0, 0);
			continue;
		}
		if (!r->rb.new_pids) {
			args.set_tid =
				batch_in(bp->batch, &p->threads[i].tid, sizeof p->threads[i].tid);
			args.set_tid_size = 1;
		}
		(void)batch_call(bp->batch, "create a thread with its id", SYS_clone3,
				 batch_in(bp->batch, &args, sizeof args), sizeof args);
	}
	return rc < 0 ? rc : batch_run(bp->batch, bp->pid, err);
}

/* Newborn threads stop before their first instruction; their registers are set before they run the
 * stub. */
static int settle(pid_t tid, struct err *err)
{
	struct stop stop;
	int rc = trace_wait(tid, trace_now_ns() + 10LL * 1000000000, &stop, err);

	if (rc == 0 && stop.kind != STOP_TRAP)
		rc = err_set(err, -EIO, "thread %d is in an unexpected state", tid);
	return rc;
}

static int ns_tid_of(struct restoring *r, pid_t pid, pid_t tid, pid_t *ret, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_status st;
	int rc = proc_open_tid(pid, tid, &dirfd, err);

	if (rc == 0)
		rc = proc_status_read(dirfd, r->arena, &st, err);
	if (rc == 0)
		*ret = st.ns_pid;
	return rc;
}

static struct build_thread *slot_for(struct restoring *r, struct build_process *bp, pid_t ns_tid,
				     unsigned next)
{
	if (r->rb.new_pids)
		return &bp->threads[next];
	for (unsigned i = 0; i < bp->state->n_threads; i++)
		if (bp->threads[i].state->tid == ns_tid)
			return &bp->threads[i];
	return NULL;
}

int threads_make(struct restoring *r, struct build_process *bp, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	pid_t *tids = NULL;
	unsigned n = 0, next = 1;
	int rc = clone_threads(r, bp, err);

	if (rc == 0)
		rc = proc_open_pid(bp->pid, &dirfd, err);
	if (rc == 0)
		rc = proc_threads(dirfd, r->arena, &tids, &n, err);
	if (rc == 0 && n != bp->state->n_threads)
		rc = err_set(err, -EIO, "pid %d: %u threads were made instead of %u",
			     bp->state->pid, n, bp->state->n_threads);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		struct build_thread *slot;
		pid_t ns_tid = 0;

		if (tids[i] == bp->pid)
			continue;
		rc = settle(tids[i], err);
		if (rc == 0)
			rc = ns_tid_of(r, bp->pid, tids[i], &ns_tid, err);
		if (rc < 0)
			return rc;
		slot = slot_for(r, bp, ns_tid, next++);
		if (!slot)
			return err_set(err, -EIO, "pid %d: thread %d got another id",
				       bp->state->pid, ns_tid);
		slot->tid = tids[i];
		slot->ns_tid = ns_tid;
		rc = build_remote_add_thread(bp->remote, slot->tid, slot->ns_tid, err);
	}
	return rc < 0 ? rc : fault_point("restore-threads", err);
}

int threads_attributes(struct restoring *r, struct build_process *bp, struct err *err)
{
	int rc = 0;

	for (unsigned i = bp->state->n_threads; rc == 0 && i-- > 0;)
		rc = attrs_put_thread(&r->rb, bp->state, bp->threads[i].state, i == 0, bp->batch,
				      bp->threads[i].tid, err);
	return rc;
}

/* What a syscall instruction was put in the place of. */
struct patch {
	uint64_t at; /* 0: nothing */
	uint8_t saved[2];
};

/* An address in the process that holds a syscall instruction: in the vdso, or put at the start of
 * executable memory. */
static int find_syscall(struct build_process *bp, uint64_t *ret, struct patch *patch,
			struct err *err)
{
	static const uint8_t insn[2] = { 0x0f, 0x05 };
	const struct process *p = bp->memory->state;
	int mem = build_remote_mem(bp->remote);
	uint8_t buf[16384];

	for (unsigned i = 0; i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];
		ssize_t n;
		uint8_t *at;

		if (v->kind != VMA_VDSO || !(v->prot & PROT_EXEC))
			continue;
		n = io_pread_full(mem, buf, MIN(v->end - v->start, sizeof buf), v->start);
		at = n > 0 ? memmem(buf, (size_t)n, insn, sizeof insn) : NULL;
		if (at) {
			*ret = v->start + (uint64_t)(at - buf);
			return 0;
		}
	}
	for (unsigned i = 0; i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];

		if (!(v->prot & PROT_EXEC) || v->kind == VMA_VSYSCALL ||
		    io_pread_full(mem, patch->saved, 2, v->start) != 2 ||
		    poke_write(bp->pid, mem, insn, 2, v->start) < 0)
			continue;
		*ret = patch->at = v->start;
		return 0;
	}
	return err_set(err, -ENOEXEC, "pid %d has no executable memory", bp->state->pid);
}

/* The thread's next instruction is this call, whatever has become of the stub. */
static int set_call(struct build_process *bp, pid_t tid, long nr, uint64_t a0, uint64_t a1,
		    struct patch *patch, struct err *err)
{
	struct thread_regs regs;
	uint64_t at;
	int rc;

	*patch = (struct patch){ 0 };
	rc = find_syscall(bp, &at, patch, err);
	if (rc == 0)
		rc = regs_get(tid, &regs, err);
	if (rc < 0)
		return rc;
	regs.gp.rip = at;
	regs.gp.rax = (uint64_t)nr;
	regs.gp.orig_rax = (uint64_t)-1;
	regs.gp.rdi = a0;
	regs.gp.rsi = a1;
	return regs_set_gp(tid, &regs.gp, err);
}

/* tid: a thread that still has the memory. */
static int take_patch_back(struct build_process *bp, pid_t tid, const struct patch *patch,
			   struct err *err)
{
	int rc = 0;

	if (patch->at)
		rc = poke_write(tid, build_remote_mem(bp->remote), patch->saved,
				sizeof patch->saved, patch->at);
	return rc < 0 ? err_set(err, rc, "pid %d: cannot write to its memory: %m", bp->state->pid)
		      : 0;
}

/* The stub cannot unmap the page that it runs from: one last call from a place that stays. */
static int unmap_workspace(struct build_process *bp, struct err *err)
{
	struct thread_regs regs;
	struct patch patch;
	struct stop stop;
	int rc;

	rc = set_call(bp, bp->pid, SYS_munmap, bp->ws.start, bp->ws.end - bp->ws.start, &patch,
		      err);
	for (int stops = 0; rc == 0 && stops < 2;) {
		rc = trace_resume(bp->pid, PTRACE_SYSCALL, 0, err);
		if (rc == 0)
			rc = trace_wait(bp->pid, trace_now_ns() + 10LL * 1000000000, &stop, err);
		if (rc == 0 && stop.kind == STOP_EXITED)
			rc = err_set(err, -ESRCH, "process %d has died", bp->pid);
		stops += stop.kind == STOP_SYSCALL;
	}
	if (rc == 0)
		rc = regs_get(bp->pid, &regs, err);
	if (rc == 0 && regs.gp.rax != 0)
		rc = err_set(err, (int)regs.gp.rax, "pid %d: cannot unmap the workspace: %m",
			     bp->state->pid);
	return rc < 0 ? rc : take_patch_back(bp, bp->pid, &patch, err);
}

/* PTRACE_SETREGSET takes an area of exactly this CPU's size; components that the other CPU did not
 * know are in their initial state (XSTATE_BV says so). */
static int set_xstate(struct restoring *r, pid_t tid, const struct thread *t, struct err *err)
{
	uint8_t buf[16384] = { 0 };
	size_t len = sizeof buf;
	uint64_t in_use;
	int rc = regs_get_xstate(tid, buf, &len, err);

	(void)r;
	if (rc < 0)
		return rc;
	if (t->xstate.len > len)
		return err_image(err, -EOPNOTSUPP,
				 "thread %d: its FPU state has %u bytes, this CPU's %zu", t->tid,
				 t->xstate.len, len);
	memcpy(&in_use, t->xstate.data + XSTATE_BV_OFFSET, sizeof in_use);
	/* where the later components lie differs between makes of CPU, and then so does the size */
	if (t->xstate.len != len && (in_use & ~XFEATURES_FIXED))
		return err_image(
			err, -EOPNOTSUPP,
			"thread %d: its FPU state (%u bytes, components %#llx) does not fit this "
			"CPU's layout (%zu bytes)",
			t->tid, t->xstate.len, (unsigned long long)in_use, len);
	memset(buf, 0, len);
	memcpy(buf, t->xstate.data, t->xstate.len);
	return regs_set_xstate(tid, buf, len, err);
}

/*
 * Who was in a system call gets the registers of one whose call has just been interrupted: when it
 * is let go the kernel first looks for signals, as always after a stop. A handler that runs then
 * ends the call with EINTR, as it would have done; else the call is issued again.
 */
int threads_complete(struct restoring *r, struct build_process *bp, struct err *err)
{
	int rc = unmap_workspace(bp, err);

	for (unsigned i = 0; rc == 0 && i < bp->state->n_threads; i++) {
		const struct build_thread *t = &bp->threads[i];
		struct user_regs_struct was, gp;

		memcpy(&was, t->state->gregs.data, sizeof was);
		gp = was;
		(void)regs_interrupt(&was, t->state->syscall_nr, &gp);
		rc = set_xstate(r, t->tid, t->state, err);
		if (rc == 0)
			rc = regs_set_mask(t->tid, t->state->sigmask, err);
		if (rc == 0)
			rc = regs_set_gp(t->tid, &gp, err);
	}
	return rc < 0 ? rc : fault_point("restore-complete", err);
}

/* Its next stop must be by the group stop that another thread has made. */
static int settle_stopped(pid_t tid, struct err *err)
{
	struct stop stop;
	int rc;

	for (;;) {
		rc = trace_wait(tid, trace_now_ns() + 10LL * 1000000000, &stop, err);
		if (rc == 0 && stop.kind == STOP_EXITED)
			rc = err_set(err, -ESRCH, "thread %d has died", tid);
		if (rc < 0 || stop.kind == STOP_GROUP)
			return rc;
		rc = trace_resume(tid, PTRACE_CONT, stop.kind == STOP_SIGNAL ? stop.sig : 0, err);
		if (rc < 0)
			return rc;
	}
}

static unsigned first_alive(const struct build_process *bp)
{
	return bp->state->leader_ended ? 1 : 0;
}

static bool has_left(pid_t pid)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;

	return proc_open_tid(pid, pid, &dirfd, NULL) < 0 || proc_stat_read(dirfd, &st, NULL) < 0 ||
	       st.state == 'Z';
}

/* The others keep still, and no signal is for it to take. */
int threads_end_leader(struct build_process *bp, struct err *err)
{
	const struct process *p = bp->state;
	uint64_t deadline = (uint64_t)trace_now_ns() + 10 * UINT64_C(1000000000);
	struct patch patch;
	int rc;

	if (!p->leader_ended)
		return 0;
	rc = set_call(bp, bp->pid, SYS_exit, (uint64_t)WEXITSTATUS(p->leader_status), 0, &patch,
		      err);
	if (rc == 0)
		rc = regs_set_mask(bp->pid, ~UINT64_C(0), err);
	if (rc < 0)
		return rc;
	/* traced, it would be ours to wait for when the process ends */
	trace_detach(bp->pid, 0);
	while (!has_left(bp->pid)) {
		if ((uint64_t)trace_now_ns() > deadline)
			return err_set(err, -ETIMEDOUT, "pid %d: its first thread does not end",
				       p->pid);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
	}
	/* it has no memory any more */
	return take_patch_back(bp, bp->threads[1].tid, &patch, err);
}

/* The terminal's stop signals do nothing to a group of which no member has a parent in another
 * group of its session. Asked of the processes as they are now: ids of outside are not known. */
static bool is_orphaned(struct restoring *r, const struct build_process *bp)
{
	pid_t group = getpgid(bp->pid), session = getsid(bp->pid);

	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		const struct build_process *member = &r->procs[i], *parent;

		if (member->state->pgid != bp->state->pgid || getpgid(member->pid) != group)
			continue;
		parent = restore_parent_of(r, member);
		if (parent && getpgid(parent->pid) != group && getsid(parent->pid) == session)
			return false;
	}
	return true;
}

/* The signal to stop it with, as its parent will see: another than SIGSTOP only where that is sure
 * to stop it too. */
static int stop_signal(struct restoring *r, const struct build_process *bp)
{
	const struct process *p = bp->state;
	int sig = (int)p->stopped;

	if ((sig != SIGTSTP && sig != SIGTTIN && sig != SIGTTOU) || p->sighand_of)
		return SIGSTOP;
	for (unsigned i = 0; i < p->n_sigactions; i++)
		if ((int)p->sigactions[i].signo == sig && p->sigactions[i].handler != 0)
			return SIGSTOP;
	return is_orphaned(r, bp) ? SIGSTOP : sig;
}

static int send_stop(const struct build_process *bp, pid_t tid, struct err *err)
{
	if (syscall(SYS_tgkill, bp->pid, tid, SIGSTOP) < 0)
		return err_set(err, -errno, "cannot stop process %d: %m", bp->pid);
	return 0;
}

/*
 * The SIGSTOP is sent, and sig takes its place. Should the kernel ignore that, the thread comes to
 * a system call that means nothing, instead of the program's next instruction, and the SIGSTOP
 * stops it there.
 */
static int stop_first(struct build_process *bp, pid_t tid, int sig, struct err *err)
{
	struct stop stop = { 0 };
	int rc = send_stop(bp, tid, err);

	for (int calls = 0; rc == 0;) {
		int deliver = stop.kind != STOP_SIGNAL ? 0 : stop.sig == SIGSTOP ? sig : stop.sig;

		rc = trace_resume(tid, PTRACE_SYSCALL, deliver, err);
		if (rc == 0)
			rc = trace_wait(tid, trace_now_ns() + 10LL * 1000000000, &stop, err);
		if (rc == 0 && stop.kind == STOP_EXITED)
			rc = err_set(err, -ESRCH, "thread %d has died", tid);
		if (rc < 0 || stop.kind == STOP_GROUP)
			return rc;
		if (stop.kind != STOP_SYSCALL)
			continue;
		if (sig == SIGSTOP && calls != 1)
			return err_set(err, -EIO, "process %d does not stop", bp->pid);
		if (calls++ == 0)
			rc = send_stop(bp, tid, err);
		sig = SIGSTOP;
	}
	return rc;
}

/* What the thread is to go on with is untouched. */
static int stop_first_safely(struct build_process *bp, pid_t tid, int sig, struct err *err)
{
	struct thread_regs regs;
	struct patch patch;
	int rc = regs_get(tid, &regs, err);

	if (rc == 0)
		rc = set_call(bp, tid, SYS_getpid, 0, 0, &patch, err);
	if (rc == 0)
		rc = stop_first(bp, tid, sig, err);
	if (rc == 0)
		rc = take_patch_back(bp, tid, &patch, err);
	return rc < 0 ? rc : regs_set_gp(tid, &regs.gp, err);
}

/*
 * Everything but SIGSTOP is blocked meanwhile, so that no other signal comes first. It is sent to
 * one thread, which is the first to run and makes the group stop; the others then find it before
 * they get to an instruction of the program. Sent to the process, any thread could take it, and
 * the others would run until then. What it takes in its place must not be blocked.
 */
int threads_stop(struct restoring *r, struct build_process *bp, struct err *err)
{
	unsigned first = first_alive(bp);
	int rc = 0, sig = stop_signal(r, bp);

	for (unsigned i = first; rc == 0 && i < bp->state->n_threads; i++)
		rc = regs_set_mask(bp->threads[i].tid, ~(UINT64_C(1) << (sig - 1)), err);
	if (rc == 0)
		rc = stop_first_safely(bp, bp->threads[first].tid, sig, err);
	for (unsigned i = first + 1; rc == 0 && i < bp->state->n_threads; i++) {
		rc = trace_resume(bp->threads[i].tid, PTRACE_CONT, 0, err);
		if (rc == 0)
			rc = settle_stopped(bp->threads[i].tid, err);
	}
	for (unsigned i = first; rc == 0 && i < bp->state->n_threads; i++)
		rc = regs_set_mask(bp->threads[i].tid, bp->state->threads[i].sigmask, err);
	return rc;
}

void threads_release(struct build_process *bp)
{
	for (unsigned i = first_alive(bp); i < bp->state->n_threads; i++)
		trace_detach(bp->threads[i].tid, 0);
}
