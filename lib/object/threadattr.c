/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What belongs to a single thread: name, signal mask, alternate stack, robust futex list,
 * clear_child_tid, restartable sequences (rseq), timer slack, personality. The mask is captured
 * here; it is put back with the registers.
 */
#include "object/attrs.h"

#include "inject/live.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define COMM_BYTES      16
#define RSEQ_UNREGISTER 1
/* Of glibc's lock word, before the list's entry in pthread_mutex_t. */
#define GLIBC_FUTEX_OFFSET (-32)

struct kernel_stack {
	uint64_t sp;
	int32_t flags, pad;
	uint64_t size;
};

static int read_memory(pid_t tid, uint64_t addr, void *buf, size_t len)
{
	struct iovec local = { .iov_base = buf, .iov_len = len };
	struct iovec remote = { .iov_base = (void *)(uintptr_t)addr, .iov_len = len };

	return process_vm_readv(tid, &local, 1, &remote, 1, 0) == (ssize_t)len ? 0 : -EFAULT;
}

/* --- capture -------------------------------------------------------------------------------- */

static int look_rseq(pid_t tid, struct __ptrace_rseq_configuration *ret, struct err *err)
{
	memset(ret, 0, sizeof *ret);
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof *ret, ret) >= 0)
		return 0;
	memset(ret, 0, sizeof *ret);
	/* A kernel that cannot tell (before 5.13): glibc 2.35 and later would not survive without.
	 */
	if (errno == EIO || errno == EINVAL)
		return 0;
	return err_set(err, -errno, "cannot read the rseq registration of thread %d: %m", tid);
}

int threadattr_look(pid_t tid, struct thread *t, struct err *err)
{
	struct __ptrace_rseq_configuration rseq;
	void *head = NULL;
	size_t len = 0;
	int rc;

	if (syscall(SYS_get_robust_list, tid, &head, &len) < 0 && errno != ENOSYS)
		return err_set(err, -errno, "cannot read the robust futex list of thread %d: %m",
			       tid);
	t->robust_list = (uint64_t)(uintptr_t)head;
	t->robust_list_len = head ? len : 0;
	rc = look_rseq(tid, &rseq, err);
	if (rc < 0)
		return rc;
	t->rseq_ptr = rseq.rseq_abi_pointer;
	t->rseq_len = rseq.rseq_abi_size;
	t->rseq_sig = rseq.signature;
	t->rseq_flags = rseq.flags;
	return 0;
}

void attrs_take_facts(struct thread *t, const struct thread_facts *facts)
{
	t->altstack_sp = facts->altstack_sp;
	t->altstack_size = facts->altstack_size;
	t->altstack_flags = facts->altstack_flags;
	t->clear_child_tid = facts->clear_child_tid;
	t->timer_slack_ns = facts->timer_slack_ns;
	t->parent_death_signal = facts->parent_death_signal;
	t->personality = facts->personality;
}

void leader_ask(struct batch *b, struct leader_query *q)
{
	q->altstack = batch_out(b, sizeof(struct kernel_stack));
	batch_call(b, "read the alternate signal stack", SYS_sigaltstack, 0, q->altstack);
	q->clear_child_tid = batch_out(b, sizeof(uint64_t));
	/* a kernel that cannot tell: 0 */
	batch_call(b, NULL, SYS_prctl, PR_GET_TID_ADDRESS, q->clear_child_tid, 0, 0, 0);
	q->parent_death_signal = batch_out(b, sizeof(int32_t));
	batch_call(b, "read the parent-death signal", SYS_prctl, PR_GET_PDEATHSIG,
		   q->parent_death_signal, 0, 0, 0);
	q->slack_call =
		batch_call(b, "read the timer slack", SYS_prctl, PR_GET_TIMERSLACK, 0, 0, 0, 0);
	q->personality_call = batch_call(b, "read the personality", SYS_personality, 0xffffffff);
}

void leader_take(const struct batch *b, const struct leader_query *q, struct thread *t)
{
	struct thread_facts facts = {
		.timer_slack_ns = (uint64_t)batch_ret(b, q->slack_call),
		.personality = (uint32_t)batch_ret(b, q->personality_call),
	};
	struct kernel_stack ss;

	memcpy(&ss, batch_result(b, q->altstack), sizeof ss);
	facts.altstack_sp = ss.sp;
	facts.altstack_flags = (uint32_t)ss.flags;
	facts.altstack_size = ss.size;
	memcpy(&facts.clear_child_tid, batch_result(b, q->clear_child_tid),
	       sizeof facts.clear_child_tid);
	memcpy(&facts.parent_death_signal, batch_result(b, q->parent_death_signal),
	       sizeof facts.parent_death_signal);
	attrs_take_facts(t, &facts);
}

/* --- restore -------------------------------------------------------------------------------- */

static void altstack_call(struct batch *b, const struct thread *t)
{
	struct kernel_stack ss = {
		.sp = t->altstack_sp,
		.size = t->altstack_size,
		/* Whether the thread is on it the kernel sees from its stack pointer. */
		.flags = (int32_t)(t->altstack_flags & ~(uint32_t)SS_ONSTACK),
	};

	if (!ss.size) /* an autodisarming handler is running, or there never was one */
		ss = (struct kernel_stack){ .flags = SS_DISABLE };
	batch_call(b, "set the alternate signal stack", SYS_sigaltstack,
		   batch_in(b, &ss, sizeof ss), 0);
}

/* The thread may have the registration of the thread that it was forked from, elsewhere. */
static int rseq_calls(struct batch *b, const struct thread *t, pid_t tid, struct err *err)
{
	struct __ptrace_rseq_configuration now;
	int rc = look_rseq(tid, &now, err);

	if (rc < 0)
		return rc;
	if (now.rseq_abi_pointer == t->rseq_ptr && now.rseq_abi_size == t->rseq_len &&
	    now.signature == t->rseq_sig)
		return 0;
	if (now.rseq_abi_pointer)
		batch_call(b, "end an rseq registration", SYS_rseq, now.rseq_abi_pointer,
			   now.rseq_abi_size, RSEQ_UNREGISTER, now.signature);
	if (t->rseq_ptr)
		batch_call(b, "register rseq", SYS_rseq, t->rseq_ptr, t->rseq_len, 0, t->rseq_sig);
	return 0;
}

/*
 * With new process ids: what the kernel will clear at the thread's end is where glibc keeps the
 * thread's id (struct pthread). It is changed only if the recorded id stands there, so that another
 * use of the word is left alone.
 */
static bool patch_word(pid_t tid, uint64_t addr, uint32_t mask, const struct thread *t, int32_t id)
{
	uint32_t word;
	struct iovec local = { .iov_base = &word, .iov_len = sizeof word };
	struct iovec remote = { .iov_base = (void *)(uintptr_t)addr, .iov_len = sizeof word };

	if (read_memory(tid, addr, &word, sizeof word) < 0 || (word & mask) != (uint32_t)t->tid)
		return true;
	word = (word & ~mask) | (uint32_t)id;
	return process_vm_writev(tid, &local, 1, &remote, 1, 0) == sizeof word;
}

/*
 * The futexes that the thread holds, by the list that the kernel would walk at its end (struct
 * robust_list_head, linux/futex.h): the owner in each word is the thread's new id. glibc writes the
 * owner down once more, behind the word; where the list is not glibc's, that is left alone.
 */
static bool patch_robust(const struct thread *t, pid_t tid, int32_t id)
{
	uint64_t head[3], at = t->robust_list, offset;
	bool ok = true, glibc;

	if (!at || read_memory(tid, at, head, sizeof head) < 0)
		return true;
	offset = head[1];
	glibc = (int64_t)offset == GLIBC_FUTEX_OFFSET;
	for (unsigned i = 0; ok && i <= ROBUST_LIST_LIMIT; i++) {
		/* first what is just being taken or given back; bit 0 says: with priority
		 * inheritance */
		uint64_t entry = (i == 0 ? head[2] : head[0]) & ~1ULL;

		if (i > 0 && entry == at)
			break;
		if (entry) {
			ok = patch_word(tid, entry + offset, FUTEX_TID_MASK, t, id);
			if (ok && glibc)
				ok = patch_word(tid, entry + offset + 8, ~0u, t, id);
		}
		if (i > 0 && (!entry || read_memory(tid, entry, head, sizeof head[0]) < 0))
			break;
	}
	return ok;
}

static int patch_tid(const struct rebuild *rb, const struct process *p, const struct thread *t,
		     pid_t tid, struct err *err)
{
	int32_t word, id = rb->new_id(rb, t->tid);
	struct iovec local = { .iov_base = &id, .iov_len = sizeof id };
	struct iovec remote = { .iov_base = (void *)(uintptr_t)t->clear_child_tid,
				.iov_len = sizeof id };

	if (!rb->new_pids || id == t->tid)
		return 0;
	if (!patch_robust(t, tid, id))
		return err_set(err, -EFAULT,
			       "pid %d: cannot give the mutexes of thread %d its new id", p->pid,
			       t->tid);
	if (!t->clear_child_tid || read_memory(tid, t->clear_child_tid, &word, sizeof word) < 0 ||
	    word != t->tid)
		return 0;
	if (process_vm_writev(tid, &local, 1, &remote, 1, 0) != sizeof id)
		return err_set(err, -EFAULT, "pid %d: cannot tell thread %d its new id", p->pid,
			       t->tid);
	return 0;
}

int threadattr_put(const struct rebuild *rb, const struct process *p, const struct thread *t,
		   struct batch *b, pid_t tid, struct err *err)
{
	char comm[COMM_BYTES] = { 0 };
	int rc;

	rc = patch_tid(rb, p, t, tid, err);
	if (rc < 0)
		return rc;
	(void)snprintf(comm, sizeof comm, "%s", t->comm ? t->comm : "");
	batch_call(b, "set a thread's name", SYS_prctl, PR_SET_NAME, batch_in(b, comm, sizeof comm),
		   0, 0, 0);
	batch_call(b, "set the personality", SYS_personality, t->personality);
	altstack_call(b, t);
	if (t->robust_list_len)
		batch_call(b, "set the robust futex list", SYS_set_robust_list, t->robust_list,
			   t->robust_list_len);
	batch_call(b, "set the address that a thread's end clears", SYS_set_tid_address,
		   t->clear_child_tid);
	/* 0 would mean "the default"; it is what a real-time thread shows. */
	if (t->timer_slack_ns)
		batch_call(b, "set the timer slack", SYS_prctl, PR_SET_TIMERSLACK,
			   t->timer_slack_ns, 0, 0, 0);
	return rseq_calls(b, t, tid, err);
}
