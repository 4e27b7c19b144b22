/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forking a stopped process. Its leader makes a helper (CLONE_VM: nothing is copied; exit signal 0:
 * nobody is told of its end), the helper makes the copy and ends, and the leader waits for the
 * helper, all in one go of the stub (stub_fork). The copy thus goes to whoever adopts the job's
 * orphans, and nobody in the job, all of which stands still meanwhile, can see it as a child.
 *
 * All three are held by us from birth (PTRACE_O_TRACECLONE is inherited). Should we die in
 * between, the helper ends by itself, the leader goes on, and the copy ends, too: it stands before
 * an exit in the stub until PTRACE_O_EXITKILL is set. It never shares a descriptor with the job
 * except by CLONE_FILES, which keeps nothing open and ends with close_range(CLOSE_RANGE_UNSHARE).
 */
#include "inject/snapshot.h"

#include "inject/shadow.h"
#include "trace/outlive.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define LOG_ROOM "inject"
/* A fork takes about 20 ms for each GiB of 4 KiB pages. */
#define FORK_TIMEOUT_NS (60LL * 1000000000)
#define GONE_TIMEOUT_MS 60000
#define REAP_TIMEOUT_NS (2LL * 1000000000)

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#endif

/* --- making it -----------------------------------------------------------------------------------
 */

/* The newborn's first stop. */
static int wait_born(pid_t pid, struct err *err)
{
	int64_t deadline = trace_now_ns() + FORK_TIMEOUT_NS;
	struct stop stop;
	int rc = trace_wait(pid, deadline, &stop, err);

	if (rc == 0 && stop.kind == STOP_EXITED)
		return err_set(err, -EAGAIN, "the copy %d has been killed", pid);
	return rc;
}

/* The copy is born, its maker stands in the stop of that event. From here on it dies with us. */
static int take_copy(struct snapshot *s, pid_t helper, struct err *err)
{
	int rc = trace_newborn(helper, &s->r.pid, err);

	if (rc == 0)
		rc = wait_born(s->r.pid, err);
	if (rc == -EAGAIN)
		s->r.pid = 0;
	if (rc == 0)
		rc = fault_point(s->shares ? "companion-born" : "snapshot-copy", err);
	if (rc == 0)
		rc = trace_set_options(s->r.pid, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD, err);
	return rc == 0 ? fault_point(s->shares ? "companion-held" : "snapshot-held", err) : rc;
}

/* Lets the helper run from its birth to its end; in between it makes the copy. */
static int run_helper(struct snapshot *s, pid_t helper, struct err *err)
{
	int64_t deadline = trace_now_ns() + FORK_TIMEOUT_NS;
	int rc = 0;

	for (;;) {
		struct stop stop;
		int one = trace_wait(helper, deadline, &stop, rc == 0 ? err : NULL);

		if (one < 0)
			return rc < 0 ? rc : one;
		if (stop.kind == STOP_EXITED)
			return rc;
		if (stop.kind == STOP_EVENT) {
			one = take_copy(s, helper, rc == 0 ? err : NULL);
			rc = rc < 0 ? rc : one;
		} else if (rc == 0 && !s->r.pid) {
			rc = fault_point("snapshot-helper", err);
		}
		/* also after a failure, to its end. Signals are dropped: they were not for it. */
		one = trace_resume(helper, PTRACE_CONT, 0, rc == 0 ? err : NULL);
		if (one < 0 && one != -ESRCH)
			return rc < 0 ? rc : one;
	}
}

/* The helper makes what it is asked for, with the flags in r14. */
static void set_fork_call(const struct remote *r, bool shares, struct user_regs_struct *gp)
{
	*gp = r->base;
	gp->rax = SYS_clone;
	gp->rdi = CLONE_VM | CLONE_FILES; /* and no exit signal */
	gp->rsi = gp->rdx = gp->r10 = gp->r8 = gp->r9 = 0;
	gp->r13 = r->arena;
	gp->r14 = CLONE_FILES | (shares ? CLONE_VM : 0);
	gp->rip = r->stub + STUB_OFFSET(stub_fork);
}

/* -errno as the kernel refused the first or the second clone. */
static int refused(const struct remote *r, int64_t code, struct err *err)
{
	if (code >= 0) /* the helper was killed before it got that far */
		code = -EAGAIN;
	return err_set(err, (int)code, "cannot fork process %d: %m", r->pid);
}

/*
 * The leader goes through stub_fork. Whatever fails, it is let go on to the end of that: there it
 * stands again as after any batch.
 */
static int fork_inside(struct remote *r, struct snapshot *s, struct err *err)
{
	const struct engine_thread *leader = &r->threads[0];
	int64_t forked = 0;
	struct user_regs_struct gp;
	pid_t helper;
	int rc, back, born;

	rc = engine_write(r, r->arena + offsetof(struct arena_head, forked), &forked, sizeof forked,
			  err);
	if (rc < 0)
		return rc;
	set_fork_call(r, s->shares, &gp);
	rc = engine_start(r, leader, 0, &gp, err);
	if (rc < 0)
		return rc;
	born = engine_birth(r, leader, &gp, STUB_OFFSET(stub_marker_fork), &helper, err);
	if (born <= 0)
		return born < 0 ? born : refused(r, (int64_t)gp.r12, err);
	rc = run_helper(s, helper, err);
	back = engine_continue(r, leader, rc == 0 ? err : NULL);
	if (back == 0)
		back = engine_finish(r, leader, &gp, STUB_OFFSET(stub_marker_fork),
				     rc == 0 ? err : NULL);
	if (rc < 0 || back < 0)
		return rc < 0 ? rc : back;
	rc = engine_read(r, r->arena + offsetof(struct arena_head, forked), &forked, sizeof forked,
			 err);
	if (rc == 0 && (forked <= 0 || !s->r.pid))
		rc = refused(r, forked, err);
	s->r.ns_pid = (pid_t)forked;
	return rc;
}

/* --- settling it ---------------------------------------------------------------------------------
 */

static int open_copy(struct snapshot *s, struct err *err)
{
	char path[64];

	s->pidfd = (int)syscall(SYS_pidfd_open, s->r.pid, 0);
	if (s->pidfd < 0)
		return err_set(err, -errno, "cannot open a pidfd for the copy %d: %m", s->r.pid);
	(void)snprintf(path, sizeof path, "/proc/%d/mem", s->r.pid);
	s->r.mem_fd = open(path, O_RDWR | O_CLOEXEC);
	if (s->r.mem_fd < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	if (s->shares) /* what is written there counts for all who share the memory */
		return 0;
	/* when memory runs out it is to go first, rather than anything of the job */
	(void)snprintf(path, sizeof path, "/proc/%d/oom_score_adj", s->r.pid);
	(void)io_write_file(-1, path, "1000");
	return 0;
}

/* Whatever it is given to run, by itself it then goes to its exit. */
static int give_end(struct snapshot *s, struct err *err)
{
	static const struct arena_head none;
	struct stub_slot slot;
	int rc;

	s->end = (struct thread_regs){ .gp = s->r.base, .sigmask = ~0ULL };
	s->end.gp.orig_rax = (uint64_t)-1;
	s->end.gp.rip = s->r.stub + STUB_OFFSET(stub_exit);
	s->r.leader_regs = &s->end;
	engine_slot(&s->r, &s->thread, &s->end, &slot);
	rc = engine_write(&s->r, engine_slot_address(&s->r, 0), &slot, sizeof slot, err);
	/* where the memory is shared, that is the job's own */
	return rc == 0 && !s->shares
		       ? engine_write(&s->r, s->r.arena, &none, sizeof none.n_undo, err)
		       : rc;
}

/* The stub and the arena are still needed. */
static bool is_ours(const struct remote *r, const struct snapshot_range *d)
{
	return (d->start < r->stub + STUB_BYTES(r->n_slots) && r->stub < d->end) ||
	       (d->start < r->arena + ARENA_BYTES && r->arena < d->end);
}

static void add_settling(struct batch *b, bool shares)
{
	static const struct rlimit no_core;
	const char *name = shares ? "ckpt-mender" : "ckpt-snapshot";

	/* First of all: it shares the job's table of descriptors. */
	(void)batch_call(b, "leave its descriptors", SYS_close_range, 0, ~0U, CLOSE_RANGE_UNSHARE);
	/* Signals to the job's process group, and its terminal's, are not for it. */
	(void)batch_call(b, "leave its session", SYS_setsid);
	(void)batch_call(b, NULL, SYS_chdir, batch_in(b, "/", 2));
	(void)batch_call(b, NULL, SYS_setrlimit, RLIMIT_CORE,
			 batch_in(b, &no_core, sizeof no_core));
	(void)batch_call(b, NULL, SYS_prctl, PR_SET_NAME, batch_in(b, name, strlen(name) + 1));
}

/* One call (munmap(2), madvise(2)) for each range but ours; settling: after what comes first. */
static int run_over(struct snapshot *s, bool settling, const struct snapshot_range *ranges,
		    unsigned n, long nr, uint64_t arg, struct err *err)
{
	struct batch *b = batch_new(&s->r, NULL);
	int rc = 0;

	if (!b)
		return err_nomem(err);
	batch_start(b);
	if (settling)
		add_settling(b, s->shares);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		const struct snapshot_range *range = &ranges[i];

		if (is_ours(&s->r, range))
			continue;
		if (!batch_room(b, 1, 0)) {
			rc = batch_run(b, s->r.pid, err);
			batch_start(b);
		}
		(void)batch_call(b, NULL, nr, range->start, range->end - range->start, arg);
	}
	if (rc == 0)
		rc = batch_run(b, s->r.pid, err);
	batch_free(b);
	return rc;
}

static int settle(struct snapshot *s, const struct snapshot_range *drop, unsigned n_drop,
		  struct err *err)
{
	int rc = run_over(s, true, drop, n_drop, SYS_munmap, 0, err);

	return rc == 0 ? fault_point(s->shares ? "companion-settled" : "snapshot-settled", err)
		       : rc;
}

void snapshot_kill(struct snapshot *s)
{
	if (!s || s->r.pid <= 0)
		return;
	/* traced and not waited for, it cannot have been reaped: the pid is its own */
	if (s->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0);
	else
		(void)kill(s->r.pid, SIGKILL);
}

static void give_up(struct snapshot *s)
{
	if (s->r.mem_fd >= 0)
		(void)close(s->r.mem_fd);
	if (s->pidfd >= 0)
		(void)close(s->pidfd);
	free(s);
}

/* As its tracer, which is to make no other attempt: whoever adopts the copy reaps it. */
static void discard(struct snapshot *s)
{
	struct stop stop = { .kind = STOP_TRAP };

	snapshot_kill(s);
	while (s->r.pid > 0 && stop.kind != STOP_EXITED)
		if (trace_wait(s->r.pid, trace_now_ns() + FORK_TIMEOUT_NS, &stop, NULL) < 0)
			break;
	give_up(s);
}

int shadow_make(struct remote *r, bool shares, const struct snapshot_range *drop, unsigned n_drop,
		struct snapshot **ret, struct err *err)
{
	struct snapshot *s = calloc(1, sizeof *s);
	int rc;

	if (!s)
		return err_nomem(err);
	s->pidfd = -1;
	s->shares = shares;
	/* the same memory at the same addresses; a job that handles the marker never gets it */
	s->r = (struct remote){
		.mem_fd = -1,
		.stub = r->stub,
		.arena = r->arena,
		.n_slots = r->n_slots,
		.first_slot = shares ? r->n_slots - 1 : 0, /* the first is the leader's */
		.marker_sig = r->marker_sig ? r->marker_sig : SIGURG,
		.threads = &s->thread,
		.n_threads = 1,
		.base = r->base,
	};
	rc = fault_point(shares ? "companion-start" : "snapshot-start", err);
	if (rc == 0 && outlive_orphaned())
		rc = err_set(err, -ECANCELED, "ckpt-run has been killed");
	if (rc == 0)
		rc = fork_inside(r, s, err);
	if (rc == 0) {
		s->thread = (struct engine_thread){ .tid = s->r.pid, .ns_tid = s->r.ns_pid };
		rc = open_copy(s, err);
	}
	if (rc == 0)
		rc = give_end(s, err);
	if (rc == 0)
		rc = settle(s, drop, n_drop, err);
	if (rc < 0) {
		discard(s);
		return rc;
	}
	log_debug("pid %d: %s as %d", r->pid, shares ? "joined" : "copied", s->r.pid);
	*ret = s;
	return 0;
}

int snapshot_fork(struct remote *r, const struct snapshot_range *drop, unsigned n_drop,
		  struct snapshot **ret, struct err *err)
{
	return shadow_make(r, false, drop, n_drop, ret, err);
}

/* --- using and ending it -------------------------------------------------------------------------
 */

int snapshot_give_up(struct snapshot *s, const struct snapshot_range *ranges, unsigned n,
		     struct err *err)
{
	return run_over(s, false, ranges, n, SYS_madvise, MADV_DONTNEED, err);
}

int snapshot_mem(const struct snapshot *s)
{
	return s->r.mem_fd;
}

pid_t snapshot_pid(const struct snapshot *s)
{
	return s->r.pid;
}

/* Dead, and reaped: by us if it became ours, else by its parent, which should. */
static bool wait_gone(struct snapshot *s)
{
	struct pollfd dead = { .fd = s->pidfd, .events = POLLIN };
	int64_t deadline = trace_now_ns() + REAP_TIMEOUT_NS;
	siginfo_t si;

	(void)poll(&dead, 1, GONE_TIMEOUT_MS);
	for (;;) {
		(void)waitid(P_PID, (id_t)s->r.pid, &si, WEXITED | __WALL | WNOHANG);
		if (syscall(SYS_pidfd_send_signal, s->pidfd, 0, NULL, 0) < 0)
			return true;
		if (trace_now_ns() > deadline)
			return false;
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){ .tv_nsec = 1000000 },
				      NULL);
	}
}

bool snapshot_free(struct snapshot *s)
{
	bool gone;

	if (!s)
		return true;
	snapshot_kill(s);
	gone = wait_gone(s);
	if (!gone)
		log_debug("the copy %d is not reaped by its parent", s->r.pid);
	give_up(s);
	return gone;
}
