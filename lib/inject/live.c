/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Borrowing a running job. The stub goes into the zero tail of the vdso (or of another executable mapping's last
 * page), through /proc/PID/mem, which may write where the process itself may not; so not even the first call needs
 * room that somebody would have to give back. Order is everything here: at each instant, were we to be killed,
 * every thread must either have its own registers or be in stub code that ends by loading them.
 */
#include "inject/live.h"

#include "inject/engine.h"
#include "proc/proc.h"
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
#include <sys/syscall.h>
#include <sys/wait.h>

#define LOG_ROOM "inject"

static const uint8_t zeros[STUB_ROOM];

/* Room for the stub at the end of the mapping's last page: its address, or 0. */
static uint64_t room_in(struct remote *r, const struct proc_map *m)
{
	uint8_t page[CKPT_PAGE_SIZE];
	unsigned used = CKPT_PAGE_SIZE;
	unsigned need = (unsigned)STUB_BYTES + 16;

	if (engine_read(r, m->end - sizeof page, page, sizeof page, NULL) < 0)
		return 0;
	/* what a ckpt-run that was killed left in the padding may be overwritten (and then goes away) */
	if (!memcmp(page + sizeof page - STUB_BYTES, stub_begin, 64))
		memset(page + sizeof page - STUB_BYTES, 0, STUB_BYTES);
	while (used > 0 && page[used - 1] == 0)
		used--;
	return sizeof page - used >= need ? m->end - STUB_BYTES : 0;
}

static int find_room(struct remote *r, struct err *err)
{
	struct arena *a = arena_new();
	CLEANUP_FD int dirfd = -1;
	struct proc_map *maps;
	unsigned n;
	int rc;

	if (!a)
		return err_nomem(err);
	rc = proc_open_pid(r->pid, &dirfd, err);
	if (rc == 0)
		rc = proc_maps_read(dirfd, false, a, &maps, &n, err);
	for (int pass = 0; rc == 0 && !r->stub && pass < 2; pass++) {
		for (unsigned i = 0; i < n && !r->stub; i++) {
			bool vdso = !strcmp(maps[i].path, "[vdso]");

			if (!(maps[i].prot & PROT_EXEC) || maps[i].shared || !strcmp(maps[i].path, "[vsyscall]"))
				continue;
			if (vdso == (pass == 0))
				r->stub = room_in(r, &maps[i]);
		}
	}
	arena_free(a);
	if (rc == 0 && !r->stub)
		rc = err_set(err, -EOPNOTSUPP, "pid %d: no executable mapping has room for %zu bytes at its end",
			     r->pid, STUB_BYTES);
	return rc;
}

/* A signal that the process ignores by default, without a handler, blocked by none of the threads. */
static int choose_marker(pid_t pid, const struct live_thread *threads, unsigned n)
{
	static const int candidates[] = { SIGURG, SIGWINCH, SIGCONT, SIGCHLD };
	struct arena *a = arena_new();
	struct proc_status st;
	CLEANUP_FD int dirfd = -1;
	uint64_t unfit = ~0ULL;

	if (a && proc_open_pid(pid, &dirfd, NULL) == 0 && proc_status_read(dirfd, a, &st, NULL) == 0)
		unfit = st.sig_caught | st.shared_pending | st.sig_pending;
	arena_free(a);
	for (unsigned i = 0; i < n; i++)
		unfit |= threads[i].regs->sigmask;
	for (unsigned i = 0; i < ARRAY_SIZE(candidates); i++)
		if (!(unfit & 1ULL << (candidates[i] - 1)))
			return candidates[i];
	return 0;
}

/* What the thread goes on with should it have to do so by itself. */
static int write_tail(struct remote *r, const struct thread_regs *regs, struct err *err)
{
	struct user_regs_struct gp;
	struct stub_tail tail;

	assert(sizeof tail == (size_t)(stub_end - stub_tail));
	if (regs_reissue(&regs->gp, SYS_restart_syscall, &gp) < 0)
		gp = regs->gp;
	tail = (struct stub_tail){
		.mask = regs->sigmask, .arena_size = ARENA_BYTES, .rax = gp.rax, .rbx = gp.rbx, .rcx = gp.rcx,
		.rdx = gp.rdx, .rsi = gp.rsi, .rdi = gp.rdi, .rbp = gp.rbp, .r8 = gp.r8, .r9 = gp.r9, .r10 = gp.r10,
		.r11 = gp.r11, .r12 = gp.r12, .r13 = gp.r13, .r14 = gp.r14, .r15 = gp.r15, .rip = gp.rip,
		.df = (gp.eflags >> 10) & 1, .of = (gp.eflags >> 11) & 1, .lowflags = (uint8_t)gp.eflags,
	};
	return engine_write(r, r->stub + STUB_OFFSET(stub_tail), &tail, sizeof tail, err);
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
static int give_back(const struct live_thread *t, struct err *err)
{
	int rc = regs_set_mask(t->tid, t->regs->sigmask, err);

	return rc < 0 ? rc : regs_set_gp(t->tid, &t->regs->gp, err);
}

static int ask_thread(struct remote *r, const struct live_thread *t, struct thread_facts *facts, struct err *err)
{
	struct engine_thread et = { .tid = t->tid, .ns_tid = t->ns_tid };
	struct user_regs_struct gp = t->regs->gp;
	int rc, back;

	rc = write_tail(r, t->regs, err);
	if (rc < 0)
		return rc;
	set_mmap_call(&gp, CKPT_PAGE_SIZE);
	gp.rip = r->stub + STUB_OFFSET(stub_thread);
	rc = engine_run(r, &et, &gp, STUB_OFFSET(stub_marker_thread), engine_mask(r), err);
	back = give_back(t, rc < 0 ? NULL : err);
	if (rc < 0 || back < 0)
		return rc < 0 ? rc : back;
	if (gp.rbx == (uint64_t)-1)
		return err_set(err, -ENOMEM, "thread %d: cannot map a page (memory limit?)", t->tid);
	*facts = (struct thread_facts){
		.altstack_sp = gp.r8, .altstack_flags = (uint32_t)gp.r9, .altstack_size = gp.r10,
		.clear_child_tid = gp.rbp, .timer_slack_ns = gp.rbx, .parent_death_signal = (int32_t)gp.r13,
	};
	return fault_point("inject-thread", err);
}

static int map_arena(struct remote *r, const struct live_thread *leader, struct err *err)
{
	struct user_regs_struct gp = leader->regs->gp;
	int rc;

	rc = write_tail(r, leader->regs, err);
	if (rc < 0)
		return rc;
	r->leader_regs = leader->regs;
	set_mmap_call(&gp, ARENA_BYTES);
	gp.rip = r->stub + STUB_OFFSET(stub_map);
	rc = engine_run(r, &r->threads[0], &gp, STUB_OFFSET(stub_marker_map), engine_mask(r), err);
	if (rc == 0 && (int64_t)gp.r13 < 0)
		rc = err_set(err, (int)gp.r13, "process %d: cannot map %d KiB: %m", r->pid, ARENA_BYTES / 1024);
	if (rc < 0) {
		(void)give_back(leader, NULL);
		r->leader_regs = NULL;
		return rc;
	}
	r->arena = gp.r13;
	log_debug("pid %d: stub at %#llx, arena at %#llx, marker %d", r->pid, (unsigned long long)r->stub,
		  (unsigned long long)r->arena, r->marker_sig);
	return fault_point("inject-mapped", err);
}

static void remote_free(struct remote *r)
{
	if (!r)
		return;
	if (r->stub && r->mem_fd >= 0)
		(void)io_pwrite_full(r->mem_fd, zeros, STUB_BYTES, r->stub);
	if (r->mem_fd >= 0)
		(void)close(r->mem_fd);
	free(r->threads);
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

int live_begin(pid_t pid, pid_t ns_pid, const struct live_thread *threads, unsigned n_threads,
	       struct thread_facts *facts, struct remote **ret, struct err *err)
{
	struct remote *r = calloc(1, sizeof *r);
	int rc;

	assert(STUB_BYTES + 16 <= STUB_ROOM);
	if (!r)
		return err_nomem(err);
	*r = (struct remote){ .pid = pid, .ns_pid = ns_pid, .mem_fd = -1, .base = threads[0].regs->gp };
	r->marker_sig = choose_marker(pid, threads, n_threads);
	r->threads = calloc(1, sizeof *r->threads);
	rc = r->threads ? open_mem(r, err) : err_nomem(err);
	if (rc == 0) {
		r->threads[0] = (struct engine_thread){ .tid = threads[0].tid, .ns_tid = threads[0].ns_tid };
		r->n_threads = 1;
		rc = find_room(r, err);
	}
	if (rc == 0)
		rc = engine_write(r, r->stub, stub_begin, STUB_BYTES, err);
	if (rc == 0)
		rc = fault_point("inject-stub", err);
	for (unsigned i = 0; rc == 0 && i < n_threads; i++)
		rc = ask_thread(r, &threads[i], &facts[i], err);
	if (rc == 0)
		rc = map_arena(r, &threads[0], err);
	if (rc < 0) {
		(void)live_end(r, NULL);
		return rc;
	}
	*ret = r;
	return 0;
}

int live_end(struct remote *r, struct err *err)
{
	int rc = 0;

	if (!r)
		return 0;
	if (r->leader_regs) {
		struct live_thread leader = { .tid = r->threads[0].tid, .regs = r->leader_regs };

		if (r->arena) {
			struct user_regs_struct gp = r->base;

			gp.rip = r->stub + STUB_OFFSET(stub_unmap);
			gp.r13 = r->arena;
			rc = engine_run(r, &r->threads[0], &gp, STUB_OFFSET(stub_marker_unmap), engine_mask(r), err);
		}
		(void)fault_point("inject-unmapped", NULL);
		int back = give_back(&leader, rc < 0 ? NULL : err);

		rc = rc < 0 ? rc : back;
	}
	if (r->stop_seen)
		(void)kill(r->pid, SIGSTOP);
	remote_free(r);
	return rc;
}
