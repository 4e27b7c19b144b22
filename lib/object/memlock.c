/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that stays in memory: mlock(2), mlockall(2). Which mappings are locked smaps says; that
 * those to come will be (MCL_FUTURE) nothing says. But the arena, just mapped, is one that came: a
 * locked mapping does not let a page go (MADV_DONTNEED: EINVAL), and of one that was not locked
 * "on fault" (MCL_ONFAULT) all pages are there, also one that nobody has touched. Children made by
 * fork(2) inherit none of it (mlock(2), Notes): neither does a snapshot.
 *
 * What cannot be read (PROT_NONE, guard pages, beyond a file's end) mlock2 says ENOMEM of, as if
 * the limit had been reached, and has locked it. So VmLck is asked in the end, how much that is.
 * And guard pages cannot be installed in memory that is locked: they come before.
 */
#include "object/attrs.h"

#include "util/cleanup.h"

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#define MLOCK2_ONFAULT 1
#define KIB            1024

void memlock_ask(struct batch *b, struct memlock_query *q)
{
	uint64_t page = batch_untouched(b);

	q->present = batch_out(b, 1);
	batch_call(b, "ask what is in memory", SYS_mincore, page, CKPT_PAGE_SIZE, q->present);
	q->let_go_call = batch_call(b, NULL, SYS_madvise, page, CKPT_PAGE_SIZE, MADV_DONTNEED);
}

void memlock_take(const struct batch *b, const struct memlock_query *q, struct process *p)
{
	const uint8_t *present = batch_result(b, q->present);

	if (batch_ret(b, q->let_go_call) == -EINVAL)
		p->mlock_future = MCL_FUTURE | (*present & 1 ? 0 : MCL_ONFAULT);
}

/* Of System V and other shared memory, too; the vdso cannot be. */
static bool is_locked(const struct vma *v)
{
	return (v->advice & ADVICE_LOCKED) &&
	       (v->kind == VMA_ANON || v->kind == VMA_FILE || v->kind == VMA_SHM);
}

static uint64_t locked_bytes(const struct process *p)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < p->n_vmas; i++)
		if (is_locked(&p->vmas[i]))
			sum += p->vmas[i].end - p->vmas[i].start;
	return sum;
}

/* What its own limits allowed when it locked this says nothing: they may be lower since. */
int memlock_check(const struct process *p, struct err *err)
{
	uint64_t bytes = locked_bytes(p);
	struct rlimit here;

	if ((!bytes && !p->mlock_future) || creds_own_effective() & 1ULL << CAP_IPC_LOCK ||
	    getrlimit(RLIMIT_MEMLOCK, &here) < 0 || (here.rlim_max && bytes <= here.rlim_max))
		return 0;
	(void)err_set(
		err, -EPERM,
		"pid %d: it has %llu KiB of locked memory (mlock(2)), and the hard limit here "
		"(RLIMIT_MEMLOCK) is %llu KiB",
		p->pid, (unsigned long long)bytes / KIB, (unsigned long long)here.rlim_max / KIB);
	(void)err_hint(err, "raise it (ulimit -H -l, limits.conf), or run ckpt-restart as root");
	return -EPERM;
}

static int verify(const struct process *p, pid_t tid, struct err *err)
{
	uint64_t want = locked_bytes(p);
	CLEANUP_FD int dirfd = -1;
	struct proc_status st;
	struct arena *a = want ? arena_new() : NULL;
	int rc;

	if (!want)
		return 0;
	rc = a ? proc_open_pid(tid, &dirfd, err) : err_nomem(err);
	if (rc == 0)
		rc = proc_status_read(dirfd, a, &st, err);
	arena_free(a);
	if (rc < 0 || st.locked_kib >= want / KIB)
		return rc;
	(void)err_set(err, -EPERM, "pid %d: cannot lock its memory (mlock(2)): %llu KiB of %llu",
		      p->pid, (unsigned long long)st.locked_kib, (unsigned long long)want / KIB);
	(void)err_hint(err, "raise the limit (RLIMIT_MEMLOCK: ulimit -l), or free memory");
	return -EPERM;
}

int memlock_put(const struct process *p, struct batch *b, pid_t tid, struct err *err)
{
	int rc = 0;

	batch_start(b);
	for (unsigned i = 0; rc == 0 && i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];

		if (!is_locked(v))
			continue;
		rc = attrs_make_room(b, tid, 2, 0, err);
		(void)batch_call(b, NULL, SYS_mlock2, v->start, v->end - v->start,
				 v->advice & ADVICE_LOCKONFAULT ? MLOCK2_ONFAULT : 0);
	}
	/* without MCL_CURRENT it changes nothing of what is there */
	if (rc == 0 && p->mlock_future)
		(void)batch_call(b, "have memory locked that comes later (mlockall(2))",
				 SYS_mlockall,
				 MCL_FUTURE | (p->mlock_future & (uint32_t)MCL_ONFAULT));
	if (rc == 0)
		rc = batch_run(b, tid, err);
	return rc < 0 ? rc : verify(p, tid, err);
}
