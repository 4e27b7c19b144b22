/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking after processes whose memory comes while they run.
 *
 * A missing page that the program touches is brought by the userfaultfd (demand.c). One that the
 * kernel touches for it, in a system call, is not where only a privileged userfaultfd hears of that
 * (vm.unprivileged_userfaultfd): the call would fail with EFAULT. So the processes stay traced,
 * every call stops before it begins, and what it can touch is brought first. A call of which that
 * is not known (calls.c) waits until all is there, and so does every call that would take mappings
 * away: while memory is missing, mappings do not change. Before a signal is delivered its frame's
 * place is brought, and before one that may dump core, everything.
 *
 * So does one that can touch another process's memory: process_vm_readv, and opening /proc/PID/mem.
 *
 * When all is there the userfaultfds are closed and every thread let go. Should we be killed before
 * that, no process must go on with what it has: they are killed too (PTRACE_O_EXITKILL), and until
 * they are, a guard holds the userfaultfds open (keeper.c), so that no thread sees an empty page.
 */
#include "restore/awaited.h"
#include "restore/bring.h"
#include "restore/demand.h"
#include "restore/ends.h"
#include "restore/huge.h"
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
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#define LOG_ROOM "restore"
/* More than any signal frame, AMX state included, and the red zone. */
#define FRAME_BYTES (64u << 10)

enum state { RUNS, HELD, GONE };

struct kept_process {
	pid_t pid;
	uint64_t brk;
	unsigned memory; /* demand_of */
};

struct kept_thread {
	const struct kept_process *of;
	const struct thread *was;
	pid_t tid;
	enum state state;
	int sig; /* HELD: to be delivered when it is let go */
	struct range altstack;
	struct awaited call;
};

struct lazy {
	struct demand *d;
	struct kept_process *procs;
	struct pollfd *fds; /* signals, the background's end, and each memory's faults */
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

static int at_call(struct lazy *l, struct kept_thread *t, struct err *err)
{
	struct __ptrace_syscall_info info = { 0 };
	struct call c = { .brk = t->of->brk, .leader = t->tid == t->of->pid };
	int rc = 1;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof info, &info) > 0) {
		if (info.op == PTRACE_SYSCALL_INFO_EXIT)
			return run_on(t, PTRACE_SYSCALL, 0, err);
		c.nr = info.entry.nr;
		c.sp = info.stack_pointer;
		for (unsigned i = 0; i < ARRAY_SIZE(c.arg); i++)
			c.arg[i] = info.entry.args[i];
		if (info.arch == AUDIT_ARCH_X86_64)
			rc = calls_bring(l->d, t->of->memory, t->of->pid, &c, err);
	}
	if (rc <= 0) {
		t->call.nr = -1; /* it is there */
		return rc < 0 ? rc : run_on(t, PTRACE_SYSCALL, 0, err);
	}
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

	rc = awaited_interrupt(&t->call, t->tid, err);
	if (rc < 0)
		return rc;
	if (may_dump_core(sig))
		return hold(l, t, sig, err);
	rc = regs_get(t->tid, &regs, err);
	if (rc == 0)
		rc = demand_range(l->d, t->of->memory,
				  (struct range){ regs.gp.rsp - FRAME_BYTES, regs.gp.rsp }, err);
	if (rc == 0)
		rc = demand_range(l->d, t->of->memory, t->altstack, err);
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

enum { SIGNALS, DONE, FAULTS };

static int turn(struct lazy *l, struct err *err)
{
	unsigned n = demand_count(l->d);
	int rc = 0;

	if (poll(l->fds, FAULTS + n, -1) < 0)
		return errno == EINTR ? 0 : err_set(err, -errno, "cannot wait: %m");
	for (unsigned i = 0; rc == 0 && i < n; i++)
		if (l->fds[FAULTS + i].revents & POLLIN)
			rc = demand_answer(l->d, i, err);
	if (rc == 0 && l->fds[SIGNALS].revents)
		rc = look_at_threads(l, err);
	if (rc == 0 && l->fds[DONE].revents) {
		rc = demand_end(l->d, err);
		l->ended = rc == 0;
	}
	return rc;
}

/* --- letting go ----------------------------------------------------------------------------------
 */

/* However long it takes: our end would kill what is still traced. */
static void leave_thread(struct kept_thread *t)
{
	while (t->state == RUNS) {
		struct err err = { 0 };
		struct stop stop;
		int rc = trace_wait(t->tid, trace_now_ns() + 1000000000, &stop, &err);

		if (rc == 0 && awaited_leave(&t->call, t->tid, &stop, &err) == 0)
			t->state = GONE;
		if (rc < 0 && rc != -ETIMEDOUT)
			return;
	}
}

/*
 * Before that nobody has the userfaultfds any more: a page that the program gives back (madvise)
 * would again be one that a system call does not find. Another guard stays until the last thread
 * is gone, to say what has become of the job should we be killed just now.
 */
static int let_go(struct lazy *l, struct restoring *r, struct err *err)
{
	struct guard last;
	int rc = guard_start(&last, r, NULL, 0, err);

	guard_end(&r->guard);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < l->n_threads; i++)
		if (l->threads[i].state == RUNS)
			(void)trace_interrupt(l->threads[i].tid, NULL);
	for (unsigned i = 0; i < l->n_threads; i++) {
		struct kept_thread *t = &l->threads[i];
		const struct stop held = { .kind = t->sig ? STOP_SIGNAL : STOP_SYSCALL,
					   .sig = t->sig };

		if (t->state == HELD)
			t->state = awaited_leave(&t->call, t->tid, &held, err) ? RUNS : GONE;
		leave_thread(t);
	}
	guard_end(&last);
	return 0;
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

static int list_threads(struct lazy *l, const struct restoring *r, struct err *err)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->tree->n_processes; i++)
		n += r->procs[i].state->n_threads;
	l->procs = calloc(r->tree->n_processes, sizeof *l->procs);
	l->threads = calloc(n, sizeof *l->threads);
	if (!l->procs || !l->threads)
		return err_nomem(err);
	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		const struct build_process *bp = &r->procs[i];

		l->procs[i] = (struct kept_process){ .pid = bp->pid,
						     .brk = bp->memory->state->mm.brk,
						     .memory = demand_of(l->d, bp) };
		for (unsigned j = 0; j < bp->state->n_threads; j++) {
			const struct thread *t = bp->threads[j].state;

			l->threads[l->n_threads] = (struct kept_thread){
				.of = &l->procs[i],
				.was = t,
				.tid = bp->threads[j].tid,
				.altstack = { t->altstack_sp, t->altstack_sp + t->altstack_size },
				.call = { .nr = t->syscall_nr },
			};
			memcpy(&l->threads[l->n_threads++].call.before, t->gregs.data,
			       sizeof l->threads->call.before);
		}
	}
	l->alive = l->n_threads;
	return 0;
}

static int begin(struct lazy *l, const struct restoring *r, struct err *err)
{
	unsigned n = demand_count(l->d);
	int rc = open_signals(l, err);

	if (rc == 0)
		rc = list_threads(l, r, err);
	l->fds = calloc(FAULTS + n, sizeof *l->fds);
	if (rc == 0 && !l->fds)
		rc = err_nomem(err);
	if (rc < 0)
		return rc;
	l->fds[SIGNALS] = (struct pollfd){ .fd = l->signal_fd, .events = POLLIN };
	l->fds[DONE] = (struct pollfd){ .fd = demand_done_fd(l->d), .events = POLLIN };
	for (unsigned i = 0; i < n; i++)
		l->fds[FAULTS + i] =
			(struct pollfd){ .fd = demand_fault_fd(l->d, i), .events = POLLIN };
	for (unsigned i = 0; rc == 0 && i < l->n_threads; i++)
		rc = ends_bring(l->d, l->threads[i].of->memory, l->threads[i].of->pid,
				l->threads[i].was, err);
	/* a stop more, so that the kernel sees to the call that it was interrupted in */
	for (unsigned i = 0; rc == 0 && i < l->n_threads; i++) {
		if (l->threads[i].call.nr >= 0)
			(void)trace_interrupt(l->threads[i].tid, NULL);
		rc = run_on(&l->threads[i], PTRACE_SYSCALL, 0, err);
	}
	return rc;
}

/* What holds the userfaultfds beside us. */
int lazy_guard(struct restoring *r, struct err *err)
{
	const struct filler *f = r->filler;
	CLEANUP_FREE int *uffds = calloc(f->n_sinks, sizeof *uffds);

	if (!uffds)
		return err_nomem(err);
	for (unsigned i = 0; i < f->n_sinks; i++)
		uffds[i] = f->sinks[i].bp ? f->sinks[i].uffd : -1;
	return guard_start(&r->guard, r, uffds, f->n_sinks, err);
}

int lazy_serve(struct restoring *r, struct err *err)
{
	struct lazy l = { .signal_fd = -1 };
	int rc;

	keeper_withdraw("ckpt-keeper");
	rc = demand_new(ptr_take(&r->filler), &l.d, err);
	if (rc == 0)
		rc = begin(&l, r, err);
	while (rc == 0 && l.alive && !l.ended)
		rc = turn(&l, err);
	log_debug("lazy: %d, all memory is there: %d", rc, l.ended);
	if (rc == 0 && l.ended)
		rc = let_go(&l, r, err);
	if (rc == 0 && l.ended)
		huge_join(r);
	huge_discharge(r);
	for (unsigned i = 0; rc < 0 && i < r->tree->n_processes; i++)
		(void)kill(r->procs[i].pid, SIGKILL);
	guard_end(&r->guard);
	demand_free(l.d);
	free(l.threads);
	free(l.procs);
	free(l.fds);
	if (l.signal_fd >= 0)
		(void)close(l.signal_fd);
	return rc;
}
