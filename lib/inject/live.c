/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Borrowing a running job. The stub goes into the zero tail of the vdso (or of another executable
 * mapping's last page), through /proc/PID/mem, which may write where the process itself may not; so
 * not even the first call needs room that somebody would have to give back. Order is everything
 * here: at each instant, were we to be killed, every thread must either have its own registers or
 * be in stub code that ends by loading them.
 */
#include "inject/live.h"

#include "inject/engine.h"
#include "proc/proc.h"
#include "trace/outlive.h"
#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define LOG_ROOM       "inject"
#define STUB_BYTES_MAX 2560
#define ANNEX_PAGES    128
#define ANNEX_BYTES    (ANNEX_PAGES * CKPT_PAGE_SIZE)

static const uint8_t zeros[STUB_BYTES_MAX];

/* What a ckpt-run that was killed left in the padding goes away. */
static void forget_remains(uint8_t *page)
{
	for (unsigned n = 1; n <= STUB_MAX_SLOTS; n++)
		if (!memcmp(page + CKPT_PAGE_SIZE - STUB_BYTES(n), stub_begin, 64))
			memset(page + CKPT_PAGE_SIZE - STUB_BYTES(n), 0, STUB_BYTES(n));
}

/* Room for the stub at the end of the mapping's last page: the stub's address, or 0; and how many
 * slots. */
static uint64_t room_in(struct remote *r, const struct proc_map *m)
{
	uint8_t page[CKPT_PAGE_SIZE];
	unsigned used = CKPT_PAGE_SIZE;

	if (engine_read(r, m->end - sizeof page, page, sizeof page, NULL) < 0)
		return 0;
	if (!r->host) /* else there may be stubs in use */
		forget_remains(page);
	while (used > 0 && page[used - 1] == 0)
		used--;
	for (r->n_slots = STUB_MAX_SLOTS; r->n_slots > 0; r->n_slots--)
		if (used + 16 + STUB_BYTES(r->n_slots) <= sizeof page)
			return m->end - STUB_BYTES(r->n_slots);
	return 0;
}

/* --- guests -------------------------------------------------------------------------------- */

static int64_t run_one(struct remote *r, long nr, uint64_t a, uint64_t len, struct err *err)
{
	struct batch *b = batch_new(r, NULL);
	int64_t rc = -ENOMEM;

	if (!b)
		return err_nomem(err);
	batch_start(b);
	(void)batch_call(b, NULL, nr, a, len, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
			 (uint64_t)-1, 0);
	rc = batch_run(b, r->threads[0].tid, err);
	if (rc == 0)
		rc = batch_ret(b, 0);
	batch_free(b);
	return rc;
}

int64_t live_map(struct remote *r, size_t len, struct err *err)
{
	int64_t at = run_one(r, SYS_mmap, 0, len, err);

	if (at < 0 && at >= -4095)
		return err_set(err, (int)at, "process %d: cannot map %zu bytes: %m", r->pid, len);
	return at;
}

int live_unmap(struct remote *r, uint64_t at, size_t len, struct err *err)
{
	return (int)run_one(r, SYS_munmap, at, len, err);
}

/*
 * Pages for more stubs. Nobody who heals can give them back, since others may still be in them:
 * where ckpt-run and its tracer are killed at once, they stay.
 */
static int open_annex(struct remote *host, struct err *err)
{
	int64_t at = host->annex ? 0 : run_one(host, SYS_mmap, 0, ANNEX_BYTES, err);

	if (at > 0 || at < -4095)
		host->annex = (uint64_t)at;
	return host->annex ? fault_point("inject-annex", err) : -ENOMEM;
}

static void close_annex(struct remote *host)
{
	if (host->annex && !host->left_inside)
		(void)run_one(host, SYS_munmap, host->annex, ANNEX_BYTES, NULL);
	host->annex = 0;
}

/* A process that shares the host's memory uses its stub, with a slot of its own; or when there is
 * none left, one in the annex. 1: it has one. */
static int take_slot(struct remote *r, struct err *err)
{
	struct remote *host = r->host;
	int rc;

	if (!host)
		return 0;
	if (host->guests + 1 < host->n_slots) {
		r->stub = host->stub;
		r->first_slot = ++host->guests;
	} else {
		rc = open_annex(host, err);
		if (rc < 0 || host->annex_used == ANNEX_PAGES * STUB_MAX_SLOTS)
			return rc == -ENOMEM ? 0 : rc;
		r->stub = host->annex + host->annex_used / STUB_MAX_SLOTS * CKPT_PAGE_SIZE;
		r->first_slot = host->annex_used++ % STUB_MAX_SLOTS;
	}
	r->n_slots = 1;
	r->no_stub = true;
	rc = r->stub != host->stub && r->first_slot == 0
		     ? engine_write(r, r->stub, stub_begin, STUB_BYTES(1), err)
		     : 0;
	return rc < 0 ? rc : 1;
}

static int find_room(struct remote *r, const struct live_process *p, struct err *err)
{
	int rc = take_slot(r, err);

	if (rc != 0)
		return MIN(rc, 0);
	for (int pass = 0; !r->stub && pass < 2; pass++) {
		for (unsigned i = 0; i < p->n_maps && !r->stub; i++) {
			const struct proc_map *m = &p->maps[i];
			bool vdso = !strcmp(m->path, "[vdso]");

			if (!(m->prot & PROT_EXEC) || m->shared || !strcmp(m->path, "[vsyscall]"))
				continue;
			if (vdso == (pass == 0))
				r->stub = room_in(r, m);
		}
	}
	if (r->stub)
		return 0;
	if (r->host)
		return err_set(
			err, -EOPNOTSUPP,
			"pid %d: too many processes share its memory (CLONE_VM): no executable "
			"mapping has room for more of them",
			r->pid);
	return err_set(err, -EOPNOTSUPP,
		       "pid %d: no executable mapping has room for %zu bytes at its end", r->pid,
		       STUB_BYTES(1));
}

/* A signal that the process ignores by default, without a handler, blocked by none of the threads.
 */
static int choose_marker(const struct live_process *p)
{
	static const int candidates[] = { SIGURG, SIGWINCH,
					  SIGCHLD }; /* SIGCONT ends a group stop */
	uint64_t unfit = p->not_ignored;

	for (unsigned i = 0; i < p->n_threads; i++)
		unfit |= p->threads[i].regs->sigmask;
	for (unsigned i = 0; i < ARRAY_SIZE(candidates); i++)
		if (!(unfit & 1ULL << (candidates[i] - 1)))
			return candidates[i];
	return 0;
}

/* What the thread goes on with should it have to do so by itself. */
static int write_slot(struct remote *r, unsigned slot, const struct engine_thread *t,
		      const struct thread_regs *regs, struct err *err)
{
	struct stub_slot s;

	engine_slot(r, t, regs, &s);
	r->stopped = t->tid;
	return engine_write(r, engine_slot_address(r, slot), &s, sizeof s, err);
}

static void set_mmap_call(struct user_regs_struct *gp, uint64_t len)
{
	gp->rax = SYS_mmap;
	gp->rdi = 0;
	gp->rsi = len;
	gp->rdx = PROT_READ | PROT_WRITE;
	gp->r10 = MAP_PRIVATE | MAP_ANONYMOUS;
	gp->r8 = (uint64_t)-1;
	gp->r9 = 0;
}

/* Registers last: until they are the thread's own again it would heal itself. */
int live_give_back(struct remote *r, const struct live_thread *t, struct err *err)
{
	int rc = regs_set_mask(t->tid, t->regs->sigmask, err);

	if (rc == 0)
		rc = regs_set_gp(t->tid, &t->regs->gp, err);
	if (rc < 0) /* dead, or still running in the stub, which must stay for it then */
		r->left_inside = true;
	return rc;
}

static int start_asking(struct remote *r, unsigned slot, const struct live_thread *t,
			struct err *err)
{
	struct engine_thread et = { .tid = t->tid, .ns_tid = t->ns_tid };
	struct user_regs_struct gp = t->regs->gp;
	int rc = write_slot(r, slot, &et, t->regs, err);

	if (rc < 0)
		return rc;
	set_mmap_call(&gp, CKPT_PAGE_SIZE);
	gp.rip = r->stub + STUB_OFFSET(stub_thread);
	rc = engine_start(r, &et, slot, &gp, err);
	if (rc < 0)
		(void)live_give_back(r, t, NULL);
	return rc;
}

static int finish_asking(struct remote *r, const struct live_thread *t, struct thread_facts *facts,
			 struct err *err)
{
	struct engine_thread et = { .tid = t->tid, .ns_tid = t->ns_tid };
	struct user_regs_struct gp;
	int rc, back;

	rc = engine_finish(r, &et, &gp, STUB_OFFSET(stub_marker_thread), err);
	back = live_give_back(r, t, rc < 0 ? NULL : err);
	if (rc < 0 || back < 0)
		return rc < 0 ? rc : back;
	if (gp.rbx == (uint64_t)-1)
		return err_set(err, -ENOMEM, "thread %d: cannot map a page (memory limit?)",
			       t->tid);
	*facts = (struct thread_facts){
		.altstack_sp = gp.r8,
		.altstack_flags = (uint32_t)gp.r9,
		.altstack_size = gp.r10,
		.clear_child_tid = gp.r12,
		.timer_slack_ns = gp.rbx,
		.parent_death_signal = (int32_t)gp.r13,
		.personality = (uint32_t)gp.r15,
	};
	return fault_point("inject-thread", err);
}

/* As many threads at a time as there are slots: they run on other CPUs while we prepare the next.
 */
static int ask_threads(struct remote *r, const struct live_thread *threads, unsigned n,
		       struct thread_facts *facts, struct err *err)
{
	unsigned started = 0, done = 0;
	int rc = 0;

	while (done < n) {
		if (rc == 0 && outlive_orphaned())
			rc = err_set(err, -ECANCELED, "ckpt-run has been killed");
		if (rc == 0 && started < n && started - done < r->n_slots) {
			rc = start_asking(r, started % r->n_slots, &threads[started], err);
			started += rc == 0;
			continue;
		}
		if (done == started) /* a start failed, and all before it are back */
			break;
		int one = finish_asking(r, &threads[done], &facts[done], rc == 0 ? err : NULL);

		rc = rc < 0 ? rc : one;
		done++;
	}
	return rc;
}

static int map_arena(struct remote *r, const struct live_thread *leader, struct err *err)
{
	struct user_regs_struct gp = leader->regs->gp;
	int rc;

	rc = write_slot(r, 0, &r->threads[0], leader->regs, err);
	if (rc < 0)
		return rc;
	r->leader_regs = leader->regs;
	set_mmap_call(&gp, ARENA_BYTES);
	gp.rip = r->stub + STUB_OFFSET(stub_map);
	rc = engine_run(r, &r->threads[0], &gp, STUB_OFFSET(stub_marker_map), err);
	if (rc == 0 && (int64_t)gp.r13 < 0)
		rc = err_set(err, (int)gp.r13, "process %d: cannot map %d KiB: %m", r->pid,
			     ARENA_BYTES / 1024);
	if (rc < 0) {
		(void)live_give_back(r, leader, NULL);
		r->leader_regs = NULL;
		return rc;
	}
	r->arena = gp.r13;
	log_debug("pid %d: stub at %#llx, arena at %#llx, marker %d", r->pid,
		  (unsigned long long)r->stub, (unsigned long long)r->arena, r->marker_sig);
	return fault_point("inject-mapped", err);
}

static void remote_free(struct remote *r)
{
	if (!r)
		return;
	if (r->no_stub)
		r->host->left_inside |= r->left_inside;
	else if (r->stub && r->mem_fd >= 0 && !r->left_inside)
		(void)engine_write(r, r->stub, zeros, STUB_BYTES(r->n_slots), NULL);
	if (r->borrowed) /* before anything that takes a lock */
		outlive_given_back();
	if (r->mem_fd >= 0)
		(void)close(r->mem_fd);
	free(r->threads);
	free(r->others);
	free(r);
}

static int open_mem(struct remote *r, struct err *err)
{
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/%d/mem", r->pid);
	r->mem_fd = open(path, O_RDWR | O_CLOEXEC);
	if (r->mem_fd < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	return 0;
}

int live_begin(const struct live_process *p, struct thread_facts *facts, struct remote **ret,
	       struct err *err)
{
	const struct live_thread *threads = p->threads;
	struct remote *r = calloc(1, sizeof *r);
	int rc;

	assert((size_t)(stub_slot_end - stub_slots) == sizeof(struct stub_slot));
	assert(STUB_BYTES(STUB_MAX_SLOTS) <= sizeof zeros);
	if (!r)
		return err_nomem(err);
	*r = (struct remote){ .pid = p->pid,
			      .ns_pid = p->ns_pid,
			      .mem_fd = -1,
			      .host = p->host,
			      .base = threads[0].regs->gp };
	r->marker_sig = choose_marker(p);
	r->threads = calloc(1, sizeof *r->threads);
	r->n_others = p->n_threads - 1;
	r->others = calloc(p->n_threads, sizeof *r->others);
	rc = r->threads && r->others ? open_mem(r, err) : err_nomem(err);
	if (rc == 0) {
		r->threads[0] = (struct engine_thread){ .tid = threads[0].tid,
							.ns_tid = threads[0].ns_tid };
		r->n_threads = 1;
		memcpy(r->others, threads + 1, r->n_others * sizeof *threads);
		rc = find_room(r, p, err);
	}
	if (rc == 0) {
		outlive_borrowed();
		r->borrowed = true;
	}
	if (rc == 0 && !r->no_stub)
		rc = engine_write(r, r->stub, stub_begin, STUB_BYTES(1), err);
	if (rc == 0)
		rc = fault_point("inject-stub", err);
	if (rc == 0)
		rc = ask_threads(r, threads + 1, p->n_threads - 1, facts + 1, err);
	if (rc == 0)
		rc = map_arena(r, &threads[0], err);
	if (rc < 0) {
		(void)live_end(r, NULL);
		return rc == -ETIMEDOUT ? -EAGAIN : rc;
	}
	*ret = r;
	return 0;
}

uint64_t live_arena(const struct remote *r)
{
	return r->arena;
}

bool live_is_memory(struct remote *r, int mem_fd)
{
	uint64_t at = r->arena + offsetof(struct arena_head, reserved), nonce[2], seen[2];

	return getrandom(nonce, sizeof nonce, 0) == (ssize_t)sizeof nonce &&
	       engine_write(r, at, nonce, sizeof nonce, NULL) == 0 &&
	       io_pread_full(mem_fd, seen, sizeof seen, at) == (ssize_t)sizeof seen &&
	       !memcmp(nonce, seen, sizeof seen);
}

/* What a batch had borrowed from the process, and no later one has given back. */
static void undo(struct remote *r)
{
	struct user_regs_struct gp = r->base;

	gp.rip = r->stub + STUB_OFFSET(stub_batch);
	gp.rbx = r->arena + offsetof(struct arena_head, undo);
	gp.r14 = r->n_undo;
	gp.r13 = r->arena;
	(void)engine_run(r, &r->threads[0], &gp, STUB_OFFSET(stub_marker_batch), NULL);
}

int live_end(struct remote *r, struct err *err)
{
	int rc = 0;

	if (!r)
		return 0;
	if (r->leader_regs) {
		struct live_thread leader = { .tid = r->threads[0].tid, .regs = r->leader_regs };

		close_annex(r);
		if (r->arena)
			(void)hold_forget(r, NULL);
		if (r->arena && r->n_undo)
			undo(r);
		if (r->arena) {
			struct user_regs_struct gp = r->base;

			gp.rip = r->stub + STUB_OFFSET(stub_unmap);
			gp.r13 = r->arena;
			rc = engine_run(r, &r->threads[0], &gp, STUB_OFFSET(stub_marker_unmap),
					err);
		}
		(void)fault_point("inject-unmapped", NULL);
		int back = live_give_back(r, &leader, rc < 0 ? NULL : err);

		rc = rc < 0 ? rc : back;
	}
	if (r->stop_seen)
		(void)kill(r->pid, SIGSTOP);
	remote_free(r);
	return rc;
}
