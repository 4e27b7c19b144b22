/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The number of the call behind a restart_syscall. A sleep that was interrupted once (by a
 * checkpoint, or by SIGSTOP) goes on as restart_syscall(2): its arguments are still in the
 * registers, its number is not. In a restarted process the kernel's restart block does not exist,
 * so the original call must be issued again and its number found: from what was seen at an earlier
 * checkpoint, from the instructions before the syscall, or from the arguments.
 */
#include "dump/internal.h"
#include "util/io.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

/* The calls that use a restart block (kernel: set_restart_fn and its callers). */
static bool uses_restart_block(int64_t nr)
{
	return nr == SYS_nanosleep || nr == SYS_clock_nanosleep || nr == SYS_poll ||
	       nr == SYS_futex;
}

/* "mov $nr, %eax" shortly before the syscall instruction. */
static int64_t from_code(uint64_t rip, int mem_fd)
{
	uint8_t code[48];

	if (io_pread_full(mem_fd, code, sizeof code, rip - 2 - sizeof code) != (ssize_t)sizeof code)
		return -1;
	for (int i = (int)sizeof code - 5; i >= 0; i--) {
		int64_t nr = code[i + 1] | code[i + 2] << 8 | code[i + 3] << 16 | code[i + 4] << 24;

		if (code[i] == 0xb8 && uses_restart_block(nr))
			return nr;
	}
	return -1;
}

static bool is_timespec(uint64_t addr, int mem_fd)
{
	int64_t ts[2];

	return addr >= 4096 && io_pread_full(mem_fd, ts, sizeof ts, addr) == (ssize_t)sizeof ts &&
	       ts[0] >= 0 && ts[1] >= 0 && ts[1] < 1000000000;
}

static int64_t from_arguments(const struct user_regs_struct *gp, int mem_fd)
{
	unsigned op = (unsigned)gp->rsi & 0x7f;

	if (gp->rdi < 16 && gp->rsi == 0 && is_timespec(gp->rdx, mem_fd))
		return SYS_clock_nanosleep;
	if ((op == 0 || op == 9) && gp->rsi < 0x200 && is_timespec(gp->r10, mem_fd) &&
	    gp->rdi % 4 == 0 && gp->rdi >= 4096 && (gp->rsi != 0 || !is_timespec(gp->rdi, mem_fd)))
		return SYS_futex;
	if (is_timespec(gp->rdi, mem_fd) && (gp->rsi == 0 || gp->rsi >= 4096))
		return SYS_nanosleep;
	return SYS_poll;
}

static int by_tid(const void *a, const void *b)
{
	const struct remembered_call *x = a, *y = b;

	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

/* The number that was seen at an earlier checkpoint, -1: none was. */
static int64_t remembered(const struct dump_job *job, pid_t tid, const struct user_regs_struct *gp)
{
	const struct remembered_call key = { .tid = tid }, *c = NULL;

	if (job->n_calls)
		c = bsearch(&key, job->calls, job->n_calls, sizeof key, by_tid);
	return c && c->rip == gp->rip && c->rsp == gp->rsp ? c->nr : -1;
}

void syscalls_see(const struct user_regs_struct *gp, int mem_fd, struct user_regs_struct *ret)
{
	static const uint8_t insn[2] = { 0x0f, 0x05 };
	uint8_t code[sizeof insn];

	if (regs_enter_restart(gp, ret) &&
	    (io_pread_full(mem_fd, code, sizeof code, gp->rip) != (ssize_t)sizeof code ||
	     memcmp(code, insn, sizeof insn) != 0))
		*ret = *gp;
}

int64_t syscalls_original(struct dump_job *job, pid_t tid, const struct user_regs_struct *gp,
			  int mem_fd)
{
	int64_t nr;

	if ((int64_t)gp->orig_rax != SYS_restart_syscall)
		return (int64_t)gp->orig_rax;
	nr = remembered(job, tid, gp);
	if (nr < 0)
		nr = from_code(gp->rip, mem_fd);
	return nr >= 0 ? nr : from_arguments(gp, mem_fd);
}

void syscalls_remember(struct dump_job *job, const struct frozen *f)
{
	struct remembered_call *fresh = NULL, *more;
	unsigned n = 0, room = 0;

	for (unsigned i = 0; i < f->n_procs; i++) {
		for (unsigned j = 0; j < f->procs[i].n_threads; j++) {
			const struct frozen_thread *t = &f->procs[i].threads[j];
			struct user_regs_struct gp;
			int64_t nr;

			(void)regs_enter_restart(&t->regs.gp, &gp);
			nr = (int64_t)gp.orig_rax;
			if (!regs_in_restart_block(&gp))
				continue;
			if (nr == SYS_restart_syscall)
				nr = remembered(job, t->tid, &gp);
			if (nr < 0)
				continue;
			if (n == room) {
				room = room ? room * 2 : 16;
				more = realloc(fresh, room * sizeof *fresh);
				if (!more)
					break;
				fresh = more;
			}
			fresh[n++] = (struct remembered_call){ t->tid, gp.rip, gp.rsp, nr };
		}
	}
	if (n)
		qsort(fresh, n, sizeof *fresh, by_tid);
	free(job->calls);
	job->calls = fresh;
	job->n_calls = n;
}
