/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that the process may only read is filled through /proc/PID/mem, which may write to it.
 * Where the kernel forbids that (proc_mem.force_override), it is made writable for the time of the
 * filling.
 */
#include "restore/internal.h"

#include "proc/probe.h"

#include <sys/mman.h>
#include <sys/syscall.h>

static bool is_locked(const struct vma *v)
{
	return (v->kind == VMA_ANON || v->kind == VMA_FILE) && !(v->flags & MAP_SHARED) &&
	       !(v->prot & PROT_WRITE);
}

static bool has_pages(const struct resolved_run *runs, unsigned n, const struct vma *v)
{
	unsigned lo = 0, hi = n;

	while (lo < hi) { /* the first run that ends after the mapping begins */
		unsigned mid = lo + (hi - lo) / 2;

		if ((runs[mid].run.page + runs[mid].run.npages) * CKPT_PAGE_SIZE > v->start)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < n && runs[lo].run.page * CKPT_PAGE_SIZE < v->end;
}

static int protect_all(struct restoring *r, struct build_process *bp, int added, struct err *err)
{
	const struct process *p = bp->state;
	const struct resolved_run *runs;
	unsigned n;
	int rc = 0;

	if (probe_get(PROBE_PROC_MEM)->ok)
		return 0;
	runs = resolved_runs(r->images, p->space, &n);
	batch_start(bp->batch);
	for (unsigned i = 0; rc == 0 && i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];

		if (!is_locked(v) || !has_pages(runs, n, v))
			continue;
		if (!batch_room(bp->batch, 1, 0)) {
			rc = batch_run(bp->batch, bp->pid, err);
			batch_start(bp->batch);
		}
		(void)batch_call(bp->batch, "change the protection of memory", SYS_mprotect,
				 v->start, v->end - v->start, v->prot | (unsigned)added);
	}
	return rc < 0 ? rc : batch_run(bp->batch, bp->pid, err);
}

int protect_open(struct restoring *r, struct build_process *bp, struct err *err)
{
	return protect_all(r, bp, PROT_READ | PROT_WRITE, err);
}

int protect_close(struct restoring *r, struct build_process *bp, struct err *err)
{
	return protect_all(r, bp, 0, err);
}
