/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking after a process whose memory comes while it runs.
 *
 * A missing page that the program touches is brought by the userfaultfd (demand.c). One that the
 * kernel touches for it, in a system call, is not where only a privileged userfaultfd hears of that
 * (vm.unprivileged_userfaultfd): the call would fail with EFAULT. So the process stays traced,
 * every call stops before it begins, and what it can touch is brought first. A call of which that
 * is not known (calls.c) waits until all is there, and so does every call that would take mappings
 * away: while memory is missing, mappings do not change. Before a signal is delivered its frame's
 * place is brought, and before one that may dump core, everything.
 *
 * When all is there the userfaultfd is closed and every thread let go. Should we be killed before
 * that, the process must not go on with what it has: it is killed too (PTRACE_O_EXITKILL), and
 * until it is, a guard holds the userfaultfd open (keeper.c), so that no thread sees an empty page.
 */
#include "restore/calls.h"
#include "restore/demand.h"
#include "restore/keeper.h"
#include "trace/regs.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <elf.h>
#include <linux/audit.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define LOG_ROOM "restore"
/* More than any signal frame, AMX state included, and the red zone. */
#define FRAME_BYTES (64u << 10)
#define MAX_IOVECS  64

enum state { RUNS, HELD, GONE };

struct kept_thread {
	pid_t tid;
	enum state state;
	int sig; /* HELD: to be delivered when it is let go */
	struct range altstack;
};

struct lazy {
	struct demand *d;
	pid_t pid;
	uint64_t brk;
	struct kept_thread *threads;
	unsigned n_threads, alive;
	int signal_fd;
	bool ended; /* all is there */
};

static int run_on(const struct kept_thread *t, int how, int sig, struct err *err)
{
	int rc = trace_resume(t->tid, how, sig, err);

	return rc == -ESRCH ? 0 : rc; /* killed: the next look tells */
}

/* Until all is there. */
static int hold(struct lazy *l, struct kept_thread *t, int sig, struct err *err)
{
	t->state = HELD;
	t->sig = sig;
	return demand_hurry(l->d, err);
}

/* --- system calls --------------------------------------------------------------------------------
 */

/* The arrays that readv and its like are given, and what they lead to. */
static int bring_iovecs(struct lazy *l, struct range where, struct err *err)
{
	int rc = where.start < where.end ? demand_range(l->d, where, err) : 0;

	for (uint64_t at = where.start; rc == 0 && at < where.end;) {
		uint64_t iov[MAX_IOVECS][2];
		struct iovec to = { iov, MIN(sizeof iov, where.end - at) };
		struct iovec from = { (void *)(uintptr_t)at, to.iov_len };
		ssize_t n = process_vm_readv(l->pid, &to, 1, &from, 1, 0);

		if (n < (ssize_t)sizeof iov[0])
			break; /* the call will say EFAULT too */
		for (ssize_t i = 0; rc == 0 && i < n / (ssize_t)sizeof iov[0]; i++)
			if (iov[i][0] < iov[i][0] + iov[i][1])
				rc = demand_range(
					l->d, (struct range){ iov[i][0], iov[i][0] + iov[i][1] },
					err);
		at += (uint64_t)n / sizeof iov[0] * sizeof iov[0];
	}
	return rc;
}

/* Brings what the call can touch. 1: that is not known, or not to be had before all is there. */
static int prepare_call(struct lazy *l, const struct call *c, struct err *err)
{
	struct call_memory m;
	int rc;

	if (!call_memory(c, &m) || demand_concerns(l->d, m.changes) ||
	    demand_concerns(l->d, m.changes_too))
		return 1;
	rc = bring_iovecs(l, m.iovecs, err);
	for (unsigned i = 0; rc == 0 && i < m.n; i++)
		rc = demand_range(l->d, m.touches[i], err);
	return rc;
}

static int at_call(struct lazy *l, struct kept_thread *t, struct err *err)
{
	struct __ptrace_syscall_info info = { 0 };
	struct call c = { .brk = l->brk };
	int rc = 1;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof info, &info) > 0) {
		if (info.op == PTRACE_SYSCALL_INFO_EXIT)
			return run_on(t, PTRACE_SYSCALL, 0, err);
		c.nr = info.entry.nr;
		c.sp = info.stack_pointer;
		for (unsigned i = 0; i < ARRAY_SIZE(c.arg); i++)
			c.arg[i] = info.entry.args[i];
		if (info.arch == AUDIT_ARCH_X86_64)
			rc = prepare_call(l, &c, err);
	}
	if (rc <= 0)
		return rc < 0 ? rc : run_on(t, PTRACE_SYSCALL, 0, err);
	log_debug("thread %d: call %llu waits until all memory is there", t->tid,
		  (unsigned long long)c.nr);
	return hold(l, t, 0, err);
}

/* --- signals -------------------------------------------------------------------------------------
 */

static bool may_dump_core(int sig)
{
	switch (sig) {
	case SIGQUIT:
	case SIGILL:
	case SIGABRT:
	case SIGFPE:
	case SIGSEGV:
	case SIGBUS:
	case SIGTRAP:
	case SIGSYS:
	case SIGXCPU:
	case SIGXFSZ:
		return true;
	default:
		return false;
	}
}

static int at_signal(struct lazy *l, struct kept_thread *t, int sig, struct err *err)
{
	struct thread_regs regs;
	int rc;

	if (may_dump_core(sig))
		return hold(l, t, sig, err);
	rc = regs_get(t->tid, &regs, err);
	if (rc == 0)
		rc = demand_range(l->d, (struct range){ regs.gp.rsp - FRAME_BYTES, regs.gp.rsp },
				  err);
	if (rc == 0)
		rc = demand_range(l->d, t->altstack, err);
	return rc < 0 ? rc : run_on(t, PTRACE_SYSCALL, sig, err);
}

/* --- the time in between -------------------------------------------------------------------------
 */

static int at_stop(struct lazy *l, struct kept_thread *t, const struct stop *stop, struct err *err)
{
	switch (stop->kind) {
	case STOP_SYSCALL:
		return at_call(l, t, err);
	case STOP_SIGNAL:
		return at_signal(l, t, stop->sig, err);
	case STOP_GROUP:
		return run_on(t, PTRACE_LISTEN, 0, err);
	case STOP_TRAP:
	case STOP_EVENT:
		return run_on(t, PTRACE_SYSCALL, 0, err);
	case STOP_EXITED:
		t->state = GONE;
		l->alive--;
		break;
	}
	return 0;
}

static int look_at_threads(struct lazy *l, struct err *err)
{
	struct signalfd_siginfo si;
	int rc = 0;

	while (read(l->signal_fd, &si, sizeof si) == (ssize_t)sizeof si)
		;
	for (unsigned i = 0; rc >= 0 && i < l->n_threads; i++) {
		struct kept_thread *t = &l->threads[i];
		struct stop stop;

		while (t->state != GONE && (rc = trace_look(t->tid, &stop, err)) > 0) {
			rc = at_stop(l, t, &stop, err);
			if (rc < 0)
				break;
		}
	}
	/* one that was killed just then has no regs and no memory any more */
	return rc == -ESRCH ? 0 : MIN(rc, 0);
}

static int turn(struct lazy *l, struct err *err)
{
	struct pollfd fds[] = {
		{ .fd = l->signal_fd, .events = POLLIN },
		{ .fd = demand_fault_fd(l->d), .events = POLLIN },
		{ .fd = demand_done_fd(l->d), .events = POLLIN },
	};
	int rc = 0;

	if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		return errno == EINTR ? 0 : err_set(err, -errno, "cannot wait: %m");
	if (fds[1].revents)
		rc = demand_answer(l->d, err);
	if (rc == 0 && fds[0].revents)
		rc = look_at_threads(l, err);
	if (rc == 0 && fds[2].revents) {
		rc = demand_end(l->d, err);
		l->ended = rc == 0;
	}
	return rc;
}

/* --- letting go ----------------------------------------------------------------------------------
 */

/* A call that our stop interrupted goes on; see freeze.c. 1: not yet at rest. */
static int leave(struct kept_thread *t, const struct stop *stop, struct err *err)
{
	struct thread_regs regs;
	bool undone;

	if (stop->kind == STOP_EXITED)
		return 0;
	if (stop->kind == STOP_SIGNAL) {
		trace_detach(t->tid, stop->sig);
		return 0;
	}
	if (regs_get(t->tid, &regs, err) < 0)
		return 1;
	undone = regs_undo_eintr(&regs.gp);
	if (undone && regs_set_gp(t->tid, &regs.gp, err) < 0)
		return 1;
	/* the kernel looks at what an interrupted call is to do next after its exit's stop */
	if (stop->kind == STOP_EVENT ||
	    (stop->kind == STOP_SYSCALL && (undone || regs_in_restart_block(&regs.gp) ||
					    regs_eintr_on_handler(&regs.gp, false)))) {
		(void)trace_interrupt(t->tid, NULL);
		(void)run_on(t, PTRACE_CONT, 0, NULL);
		return 1;
	}
	trace_detach(t->tid, 0);
	return 0;
}

/* However long it takes: our end would kill what is still traced. */
static void leave_thread(struct kept_thread *t)
{
	while (t->state == RUNS) {
		struct err err = { 0 };
		struct stop stop;
		int rc = trace_wait(t->tid, trace_now_ns() + 1000000000, &stop, &err);

		if (rc == 0 && leave(t, &stop, &err) == 0)
			t->state = GONE;
		if (rc < 0 && rc != -ETIMEDOUT)
			return;
	}
}

static void let_go(struct lazy *l)
{
	for (unsigned i = 0; i < l->n_threads; i++)
		if (l->threads[i].state == RUNS)
			(void)trace_interrupt(l->threads[i].tid, NULL);
	for (unsigned i = 0; i < l->n_threads; i++) {
		if (l->threads[i].state == HELD)
			trace_detach(l->threads[i].tid, l->threads[i].sig);
		leave_thread(&l->threads[i]);
	}
}

static int open_signals(struct lazy *l, struct err *err)
{
	sigset_t set;

	(void)sigfillset(&set);
	(void)sigprocmask(SIG_SETMASK, &set, NULL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return l->signal_fd < 0 ? err_set(err, -errno, "cannot make a signalfd: %m") : 0;
}

static int begin(struct lazy *l, const struct restoring *r, struct err *err)
{
	const struct build_process *bp = &r->procs[0];
	int rc = open_signals(l, err);

	l->pid = bp->pid;
	l->brk = bp->state->mm.brk;
	l->n_threads = l->alive = bp->state->n_threads;
	l->threads = calloc(l->n_threads, sizeof *l->threads);
	if (rc == 0 && !l->threads)
		rc = err_nomem(err);
	for (unsigned i = 0; rc == 0 && i < l->n_threads; i++) {
		const struct thread *t = bp->threads[i].state;

		l->threads[i] = (struct kept_thread){
			.tid = bp->threads[i].tid,
			.altstack = { t->altstack_sp, t->altstack_sp + t->altstack_size },
		};
	}
	for (unsigned i = 0; rc == 0 && i < l->n_threads; i++)
		rc = run_on(&l->threads[i], PTRACE_SYSCALL, 0, err);
	return rc;
}

int lazy_serve(struct restoring *r, struct err *err)
{
	struct lazy l = { .signal_fd = -1 };
	struct guard guard;
	int rc = guard_start(&guard, r, r->filler->sinks[0].uffd, err);

	keeper_withdraw("ckpt-keeper");
	if (rc == 0)
		rc = demand_new(ptr_take(&r->filler), &l.d, err);
	if (rc == 0)
		rc = begin(&l, r, err);
	while (rc == 0 && l.alive && !l.ended)
		rc = turn(&l, err);
	log_debug("lazy: %d, all memory is there: %d", rc, l.ended);
	if (rc == 0 && l.ended)
		let_go(&l);
	if (rc < 0)
		(void)kill(r->procs[0].pid, SIGKILL);
	guard_end(&guard);
	demand_free(l.d);
	free(l.threads);
	if (l.signal_fd >= 0)
		(void)close(l.signal_fd);
	/* what could not be filled any more was about to end */
	return rc == -ESRCH ? 0 : rc;
}
