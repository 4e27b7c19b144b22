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
#define STUB_BYTES_MAX 3072
#define ANNEX_PAGES    128
#define ANNEX_BYTES    (ANNEX_PAGES * CKPT_PAGE_SIZE)
/*
 * The kernel puts new memory below old memory, and makes one mapping of two that are alike. Where
 * huge pages are given to everybody, our first touch would then bring one that reaches into memory
 * of the job's that it has never touched, or has given up. So ours is unlike: MAP_NORESERVE, and
 * MAP_STACK, which wants no huge pages since Linux 6.7.
 */
#define APART (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK)

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
	(void)batch_call(b, NULL, nr, a, len, PROT_READ | PROT_EXEC, APART, (uint64_t)-1, 0);
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

static int start_mapping(struct remote *r, struct err *err)
{
	struct user_regs_struct gp = r->leader.regs->gp;
	int rc = live_write_slots(r, 0, &r->leader, 1, err);

	if (rc < 0)
		return rc;
	r->leader_regs = r->leader.regs;
	gp.rax = SYS_mmap;
	gp.rdi = 0;
	gp.rsi = ARENA_BYTES;
	gp.rdx = PROT_READ | PROT_WRITE;
	gp.r10 = APART;
	gp.r8 = (uint64_t)-1;
	gp.r9 = 0;
	gp.rip = r->stub + STUB_OFFSET(stub_map);
	rc = engine_start(r, &r->threads[0], 0, &gp, err);
	r->mapping = rc == 0;
	return rc;
}

/* All that it maps is to be locked (mlockall(2), MCL_FUTURE), our arena too. */
static int no_room_to_lock(const struct remote *r, struct err *err)
{
	(void)err_set(err, -ENOMEM,
		      "process %d: cannot map %d KiB: it locks all its memory (mlockall(2)), and "
		      "its limit for that (RLIMIT_MEMLOCK) has no room for so much more",
		      r->pid, ARENA_BYTES / 1024);
	(void)err_hint(err, "raise it: prlimit --pid %d --memlock=...", r->pid);
	return -ENOMEM;
}

static int finish_mapping(struct remote *r, struct err *err)
{
	struct user_regs_struct gp;
	int rc = engine_finish(r, &r->threads[0], &gp, STUB_OFFSET(stub_marker_map), err);

	r->mapping = false;
	if (rc == 0 && (int64_t)gp.r13 == -EAGAIN)
		rc = no_room_to_lock(r, err);
	else if (rc == 0 && (int64_t)gp.r13 < 0)
		rc = err_set(err, (int)gp.r13, "process %d: cannot map %d KiB: %m", r->pid,
			     ARENA_BYTES / 1024);
	if (rc < 0)
		return rc;
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

int live_begin(const struct live_process *p, struct remote **ret, struct err *err)
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
		r->leader = threads[0];
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
		rc = start_mapping(r, err);
	if (rc < 0) {
		(void)live_end(r, NULL);
		return rc == -ETIMEDOUT ? -EAGAIN : rc;
	}
	*ret = r;
	return 0;
}

int live_ask(struct remote *r, struct err *err)
{
	int rc = finish_mapping(r, err);

	if (rc == 0 && r->n_others)
		rc = ask_some(r, err);
	return rc == -ETIMEDOUT ? -EAGAIN : rc;
}

int live_ready(struct remote *r, struct thread_facts *facts, struct err *err)
{
	unsigned seen = 0;
	int rc = 0;

	while (rc == 0 && seen < r->n_others) {
		if (r->answered == r->asked)
			rc = ask_some(r, err);
		if (rc == 0)
			rc = ask_take_back(r, err);
		if (rc == 0)
			rc = ask_read(r, seen, facts + 1, err);
		seen = r->answered;
	}
	if (rc == 0)
		rc = ask_done(r, err);
	return rc == -ETIMEDOUT ? -EAGAIN : rc;
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

static int start_unmapping(struct remote *r, struct err *err)
{
	struct user_regs_struct gp = r->base;

	gp.rip = r->stub + STUB_OFFSET(stub_unmap);
	gp.r13 = r->arena;
	return engine_start(r, &r->threads[0], 0, &gp, err);
}

/* With a stub that others are in, or with something to be undone, that is live_end's. */
void live_leave(struct remote *r)
{
	if (r && r->arena && !r->in_arena && !r->host && !r->guests && !r->annex && !r->hold &&
	    !r->n_undo)
		r->leaving = start_unmapping(r, NULL) == 0;
}

/* The first thread goes on as if nothing had been. */
static int take_leave(struct remote *r, struct err *err)
{
	struct user_regs_struct gp;
	int rc = 0, back;

	if (r->mapping)
		(void)finish_mapping(r, NULL);
	if (r->in_arena) { /* let go, the first leaves by itself, or has (lent) */
		r->left_inside = true;
		return 0;
	}
	(void)ask_done(r, NULL);
	if (!r->leaving)
		close_annex(r);
	if (!r->leaving && r->arena)
		(void)hold_forget(r, NULL);
	if (!r->leaving && r->arena && r->n_undo)
		undo(r);
	if (!r->leaving && r->arena)
		rc = start_unmapping(r, err);
	if (rc == 0 && r->arena)
		rc = engine_finish(r, &r->threads[0], &gp, STUB_OFFSET(stub_marker_unmap), err);
	(void)fault_point("inject-unmapped", NULL);
	back = live_give_back(r, &r->leader, rc < 0 ? NULL : err);
	return rc < 0 ? rc : back;
}

int live_end(struct remote *r, struct err *err)
{
	int rc = 0;

	if (!r)
		return 0;
	(void)ask_take_back(r, NULL); /* it failed on the way */
	if (r->leader_regs)
		rc = take_leave(r, err);
	if (r->stop_seen)
		(void)kill(r->pid, SIGSTOP);
	remote_free(r);
	return rc;
}
