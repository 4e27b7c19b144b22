/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers and attributes of each thread of a stopped process. */
#include "dump/internal.h"
#include "util/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

/* struct rseq in the job (include/uapi/linux/rseq.h), and the critical section that it may point
 * to. */
#define RSEQ_CS_OFFSET   8
#define XSTATE_BV_OFFSET 512
#define XFEATURE_AMX     (3ULL << 17)
struct rseq_cs {
	uint32_t version, flags;
	uint64_t start_ip, post_commit_offset, abort_ip;
};

/*
 * A thread stopped inside an rseq critical section has been preempted: the kernel would send it to
 * the abort handler on its way back, but looks at the registers only then - at ours, if we run
 * calls in between. So do it here.
 */
static int abort_rseq(struct frozen_thread *ft, const struct thread *t, int mem_fd, struct err *err)
{
	struct rseq_cs cs;
	uint64_t cs_addr;

	/* no system call is made inside of one */
	if (!t->rseq_ptr || regs_in_syscall(&ft->regs.gp))
		return 0;
	if (pread(mem_fd, &cs_addr, sizeof cs_addr, (off_t)(t->rseq_ptr + RSEQ_CS_OFFSET)) !=
	    sizeof cs_addr)
		return 0;
	if (!cs_addr || pread(mem_fd, &cs, sizeof cs, (off_t)cs_addr) != sizeof cs)
		return 0;
	if (ft->regs.gp.rip - cs.start_ip >= cs.post_commit_offset)
		return 0;
	ft->regs.gp.rip = cs.abort_ip;
	return regs_set_gp(ft->tid, &ft->regs.gp, err);
}

static uint64_t pending_set(const struct pending_signal *list, unsigned n)
{
	uint64_t set = 0;

	for (unsigned i = 0; i < n; i++) {
		int32_t signo;

		memcpy(&signo, list[i].siginfo.data, sizeof signo);
		if (signo > 0 && signo <= 64)
			set |= 1ULL << (signo - 1);
	}
	return set;
}

/* The handler that runs next, when one of these signals is let in: the lowest number first. */
static const struct sigaction_state *next_handler(const struct process *p, uint64_t set)
{
	const struct sigaction_state *next = NULL;

	for (unsigned i = 0; i < p->n_sigactions; i++) {
		const struct sigaction_state *a = &p->sigactions[i];

		if (a->handler > 1 &&
		    (set & 1ULL << (a->signo - 1)) && /* neither SIG_DFL nor SIG_IGN */
		    (!next || a->signo < next->signo))
			next = a;
	}
	return next;
}

/*
 * Registers for a restart: rewound so that an interrupted call is issued again. Where a handler is
 * about to run (its signal is pending and not blocked) and the call would then return EINTR, it
 * returns EINTR.
 */
static int set_registers(struct dumper *d, const struct process *p, struct frozen_thread *ft,
			 struct thread *t, int mem_fd, uint64_t *process_pending, struct err *err)
{
	struct user_regs_struct seen, gp;
	const struct sigaction_state *handler;
	uint64_t about_to_run =
		(pending_set(t->pending, t->n_pending) | *process_pending) & ~t->sigmask;
	int64_t nr;

	syscalls_see(&ft->regs.gp, mem_fd, &seen);
	nr = syscalls_original(d->job, ft->tid, &seen, mem_fd);
	t->syscall_nr = regs_reissue(&seen, nr, &gp);
	if (t->syscall_nr == SYS_restart_syscall) {
		t->syscall_nr = nr;
		gp.rax = (uint64_t)nr;
	}
	handler = next_handler(p, about_to_run);
	if (t->syscall_nr >= 0 && handler &&
	    regs_eintr_on_handler(&seen, handler->flags & SA_RESTART)) {
		gp = seen;
		gp.rax = (uint64_t)-EINTR;
		gp.orig_rax = (uint64_t)-1;
		t->syscall_nr = -1;
		*process_pending = 0; /* one thread takes it */
	}
	t->gregs.data = arena_memdup(d->arena, &gp, sizeof gp);
	t->gregs.len = sizeof gp;
	return t->gregs.data ? 0 : err_nomem(err);
}

static int get_xstate(struct dumper *d, pid_t pid, pid_t tid, struct thread *t, struct err *err)
{
	uint8_t buf[16384];
	size_t len = sizeof buf;
	uint64_t in_use;
	int rc = regs_get_xstate(tid, buf, &len, err);

	if (rc < 0)
		return rc;
	memcpy(&in_use, buf + XSTATE_BV_OFFSET, sizeof in_use);
	if (in_use & XFEATURE_AMX) {
		(void)err_set(err, -EOPNOTSUPP,
			      "pid %d: AMX tile registers in use (thread %d) are not supported",
			      pid, tid);
		return err_hint(err, "they are in use until the program runs TILERELEASE");
	}
	t->xstate.data = arena_memdup(d->arena, buf, len);
	t->xstate.len = (uint32_t)len;
	return t->xstate.data ? 0 : err_nomem(err);
}

int threads_look(struct dumper *d, unsigned index, struct err *err)
{
	struct frozen_process *fp = &d->frozen->procs[index];
	struct process *p = &d->tree->processes[index];

	p->n_threads = d->attaching ? 1 : fp->n_threads; /* which will run calls for us */
	p->threads = arena_array(d->arena, p->n_threads, sizeof *p->threads);
	if (!p->threads)
		return err_nomem(err);
	for (unsigned i = 0; i < p->n_threads; i++) {
		struct frozen_thread *ft = &fp->threads[i];
		struct thread *t = &p->threads[i];
		const struct proc_status *st;
		int rc = look_thread(d, index, i, &st, err);

		if (rc == 0)
			rc = attrs_capture_thread(&d->cap, &d->cap.subjects[index], ft->tid,
						  &ft->regs, st, t, err);
		if (rc == 0)
			rc = get_xstate(d, fp->pid, ft->tid, t, err);
		if (rc == 0)
			rc = abort_rseq(ft, t, d->mem_fds[index], err);
		if (rc < 0)
			return rc;
		p->stopped |= ft->group_stop;
	}
	return 0;
}

int threads_finish(struct dumper *d, unsigned index, const struct thread_facts *facts,
		   struct err *err)
{
	struct frozen_process *fp = &d->frozen->procs[index];
	struct process *p = &d->tree->processes[index];
	uint64_t process_pending = pending_set(p->pending, p->n_pending);

	for (unsigned i = 0; i < fp->n_threads; i++) {
		struct thread *t = &p->threads[i];
		int rc;

		if (i > 0)
			attrs_take_facts(t, &facts[i]);
		rc = set_registers(d, p, &fp->threads[i], t, d->mem_fds[index], &process_pending,
				   err);
		if (rc < 0)
			return rc;
	}
	return fault_point("dump-threads", err);
}
