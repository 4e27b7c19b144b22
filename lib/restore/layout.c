/* SPDX-License-Identifier: BSD-2-Clause */
/* The address space: everything of ours out, but for the workspace; everything of the image's in.
 */
#include "restore/huge.h"
#include "restore/internal.h"

#include "trace/poke.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"

#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>

#define ADDRESS_END 0x7ffffffff000ULL

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#define SYS_MSEAL       462
#define RSEQ_UNREGISTER 1

/* glibc registered an rseq area for the maker; the kernel would go on writing to it when it is
 * unmapped. */
static int leave_rseq(struct build_process *bp, struct err *err)
{
	struct {
		uint64_t ptr;
		uint32_t size, signature, flags, pad;
	} conf = { 0 };

	batch_start(bp->batch);
	if (ptrace((enum __ptrace_request)0x420f /* PTRACE_GET_RSEQ_CONFIGURATION */, bp->pid,
		   sizeof conf, &conf) > 0 &&
	    conf.ptr)
		(void)batch_call(bp->batch, "unregister rseq", SYS_rseq, conf.ptr, conf.size,
				 RSEQ_UNREGISTER, conf.signature);
	(void)batch_call(bp->batch, "reset the robust list", SYS_set_robust_list, 0, 24);
	(void)batch_call(bp->batch, "reset the thread id address", SYS_set_tid_address, 0);
	return batch_run(bp->batch, bp->pid, err);
}

static void unmap(struct build_process *bp, uint64_t start, uint64_t end)
{
	if (start < end)
		(void)batch_call(bp->batch, "unmap memory", SYS_munmap, start, end - start);
}

static int make_room(struct build_process *bp, unsigned calls, size_t data, struct err *err)
{
	int rc = 0;

	if (!batch_room(bp->batch, calls, data)) {
		rc = batch_run(bp->batch, bp->pid, err);
		batch_start(bp->batch);
	}
	return rc;
}

static int by_start(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* The vdso's mappings, and the workspaces of all that share this memory. */
static int list_kept(struct restoring *r, const struct build_process *bp, struct range **ret,
		     unsigned *ret_n, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_map *maps;
	unsigned n_maps, n = 0;
	struct range *keep;
	int rc = proc_open_pid(bp->pid, &dirfd, err);

	if (rc == 0)
		rc = proc_maps_read(dirfd, false, r->arena, &maps, &n_maps, err);
	if (rc < 0)
		return rc;
	keep = arena_array(r->arena, n_maps + r->tree->n_processes, sizeof *keep);
	if (!keep)
		return err_nomem(err);
	for (unsigned i = 0; i < n_maps; i++)
		if (!strcmp(maps[i].path, "[vdso]") || !strncmp(maps[i].path, "[vvar", 5))
			keep[n++] = (struct range){ maps[i].start, maps[i].end };
	for (unsigned i = 0; i < r->tree->n_processes; i++)
		if (r->procs[i].memory == bp)
			keep[n++] = (struct range){ r->procs[i].ws.start, r->procs[i].ws.end };
	qsort(keep, n, sizeof *keep, by_start);
	*ret = keep;
	*ret_n = n;
	return 0;
}

int layout_clear(struct restoring *r, struct build_process *bp, struct err *err)
{
	uint64_t from = 0;
	struct range *keep = NULL;
	unsigned n = 0;
	int rc = leave_rseq(bp, err);

	if (rc < 0 || bp->memory != bp)
		return rc;
	rc = list_kept(r, bp, &keep, &n, err);
	if (rc < 0)
		return rc;
	batch_start(bp->batch);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		rc = make_room(bp, 2, 0, err);
		unmap(bp, from, keep[i].start);
		from = keep[i].end;
	}
	unmap(bp, from, ADDRESS_END);
	return rc < 0 ? rc : batch_run(bp->batch, bp->pid, err);
}

static uint64_t map_flags(const struct vma *v)
{
	uint64_t flags = MAP_FIXED_NOREPLACE | (v->flags & (MAP_SHARED | MAP_PRIVATE));

	if (v->kind == VMA_ANON) {
		flags |= MAP_ANONYMOUS;
		if (v->advice & ADVICE_DROPPABLE)
			flags = (flags & ~(uint64_t)MAP_PRIVATE) | MAP_DROPPABLE;
	}
	if (v->advice & ADVICE_NORESERVE)
		flags |= MAP_NORESERVE;
	if (v->advice & ADVICE_GROWSDOWN)
		flags |= MAP_GROWSDOWN;
	return flags;
}

/* Advice that changes how memory is filled, or that only this mapping knows. */
static void advise(struct build_process *bp, const struct vma *v)
{
	static const struct {
		uint32_t bit;
		int advice;
		const char *what;
	} table[] = {
		{ ADVICE_DONTFORK, MADV_DONTFORK, "set MADV_DONTFORK" },
		{ ADVICE_DONTDUMP, MADV_DONTDUMP, "set MADV_DONTDUMP" },
		{ ADVICE_HUGEPAGE, MADV_HUGEPAGE, NULL },
		{ ADVICE_NOHUGEPAGE, MADV_NOHUGEPAGE, NULL },
		{ ADVICE_MERGEABLE, MADV_MERGEABLE, NULL },
		{ ADVICE_WIPEONFORK, MADV_WIPEONFORK, "set MADV_WIPEONFORK" },
		{ ADVICE_SEQUENTIAL, MADV_SEQUENTIAL, NULL },
		{ ADVICE_RANDOM, MADV_RANDOM, NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if ((v->advice & table[i].bit) && !(v->advice & ADVICE_DROPPABLE))
			(void)batch_call(bp->batch, table[i].what, SYS_madvise, v->start,
					 v->end - v->start, table[i].advice);
	if (v->anon_name)
		(void)batch_call(bp->batch, NULL, SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME,
				 v->start, v->end - v->start,
				 batch_in(bp->batch, v->anon_name, strlen(v->anon_name) + 1));
}

static bool is_ours_to_map(const struct vma *v)
{
	return v->kind == VMA_ANON || v->kind == VMA_FILE || v->kind == VMA_SHM;
}

/* --- groups -------------------------------------------------------------------------------------
 */

/*
 * The kernel merges neighbouring anonymous mappings that become alike (by mprotect, say) only if
 * their pages hang off the same anon_vma, as they do when the program once split them off one
 * mapping. So neighbours that can have been one are mapped as one, get a first page, and are then
 * split as they were.
 */
static bool groupable(const struct vma *v)
{
	return v->kind == VMA_ANON && !(v->advice & (ADVICE_GROWSDOWN | ADVICE_DROPPABLE));
}

static bool same_group(const struct vma *a, const struct vma *b)
{
	const uint32_t reserve = ADVICE_NORESERVE | ADVICE_ACCOUNT;

	return groupable(a) && groupable(b) && a->end == b->start &&
	       (a->advice & reserve) == (b->advice & reserve);
}

static unsigned group_end(const struct process *p, unsigned i)
{
	unsigned end = i + 1;

	while (end < p->n_vmas && same_group(&p->vmas[end - 1], &p->vmas[end]))
		end++;
	return end;
}

/* Memory that counts as committed was once writable: mapped so, and protected afterwards. */
static uint64_t first_prot(const struct vma *v, bool alone)
{
	if (v->kind == VMA_SHM || (v->flags & MAP_SHARED))
		return v->prot;
	if (v->advice & ADVICE_ACCOUNT)
		return v->prot | PROT_READ | PROT_WRITE;
	return alone ? v->prot
		     : (v->advice & ADVICE_NORESERVE ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static const struct sysv_shm *segment_of(const struct tree *t, const struct vma *v)
{
	return v->kind == VMA_SHM ? sysv_shm_of(t, v->shm_space) : NULL;
}

static int attach_flags(const struct vma *v)
{
	return (v->advice & ADVICE_MAYWRITE ? 0 : SHM_RDONLY) |
	       (v->prot & PROT_EXEC ? SHM_EXEC : 0);
}

/*
 * With vm.overcommit_memory at 0 the kernel refuses to map more at once than there is memory and
 * swap. Programs that map piece by piece can have more, and so does what was mapped where there was
 * more memory. Neighbours that are alike become one mapping.
 */
static uint64_t largest_piece(const struct vma *v)
{
	struct sysinfo si;

	if (!(v->advice & ADVICE_ACCOUNT) || (v->flags & MAP_SHARED) || sysinfo(&si) < 0)
		return UINT64_MAX;
	return ((uint64_t)si.totalram + si.totalswap) * si.mem_unit / 2 & ~(CKPT_PAGE_SIZE - 1ull);
}

static int map_group(struct restoring *r, struct build_process *bp, unsigned i, unsigned end,
		     struct err *err)
{
	const struct vma *v = &bp->state->vmas[i];
	uint64_t len = bp->state->vmas[end - 1].end - v->start, most = largest_piece(v);
	const struct sysv_shm *shm = segment_of(r->tree, v);
	bool anon = v->kind == VMA_ANON;
	int rc = make_room(bp, 1, 0, err);

	if (rc == 0 && shm) { /* whole, at its first piece */
		if (v->offset == 0)
			(void)batch_call(bp->batch, "attach System V shared memory", SYS_shmat,
					 shm->id, v->start, attach_flags(v));
		return 0;
	}
	for (uint64_t at = 0; rc == 0 && at < len; at += MIN(most, len - at)) {
		rc = make_room(bp, 1, 0, err);
		(void)batch_call(bp->batch, v->path && v->path[0] == '/' ? v->path : "map memory",
				 SYS_mmap, v->start + at, MIN(most, len - at),
				 first_prot(v, end == i + 1), map_flags(v),
				 anon ? (uint64_t)-1 : (uint64_t)bp->map_fds[i],
				 anon ? 0 : v->offset + at);
	}
	return rc;
}

/*
 * A page that will be filled anyway is touched, so that the whole group has one anon_vma before it
 * is split; by us, or by the kernel while parts of it are registered with a userfaultfd (sink.c).
 * No huge page: what else would be in that the program may have given up.
 */
static int touch_group(struct restoring *r, struct build_process *bp, unsigned i, unsigned end,
		       struct err *err)
{
	const struct vma *vmas = bp->state->vmas;
	uint64_t first = vmas[i].start / CKPT_PAGE_SIZE, last = vmas[end - 1].end / CKPT_PAGE_SIZE;
	const struct resolved_run *runs;
	unsigned n, lo = 0, hi;
	uint64_t page;

	if (end == i + 1 && (r->lazy || vmas[i].kind != VMA_ANON || !huge_divides(bp, &vmas[i])))
		return 0;
	runs = resolved_runs(r->images, bp->state->space, &n);
	for (hi = n; lo < hi;) { /* the first run that ends after the group begins */
		unsigned mid = lo + (hi - lo) / 2;

		if (runs[mid].run.page + runs[mid].run.npages > first)
			hi = mid;
		else
			lo = mid + 1;
	}
	while (lo < n && runs[lo].run.kind == RUN_ZERO)
		lo++;
	if (lo == n)
		return 0;
	page = MAX(runs[lo].run.page, first);
	if (page >= last)
		return 0;
	bp->touched[bp->n_touched++] = page * CKPT_PAGE_SIZE;
	if (poke_write(bp->pid, build_remote_mem(bp->remote), "", 1, page * CKPT_PAGE_SIZE) == 0)
		return 0;
	return err_set(err, -EFAULT, "pid %d: cannot write to its memory", bp->state->pid);
}

static int split_group(struct restoring *r, struct build_process *bp, unsigned i, unsigned end,
		       struct err *err)
{
	for (unsigned j = i; j < end; j++) {
		const struct vma *v = &bp->state->vmas[j];
		int rc = make_room(bp, 12, 256, err);

		if (rc < 0)
			return rc;
		if (first_prot(&bp->state->vmas[i], end == i + 1) != v->prot ||
		    segment_of(r->tree, v))
			(void)batch_call(bp->batch, "protect memory", SYS_mprotect, v->start,
					 v->end - v->start, v->prot);
		advise(bp, v);
	}
	return 0;
}

/* Runs one step over all groups, and the batch that it leaves. */
static int each_group(struct restoring *r, struct build_process *bp, int step, struct err *err)
{
	const struct process *p = bp->state;
	int rc = 0;

	batch_start(bp->batch);
	if (step == 0)
		huge_forbid(bp);
	else if (step == 2)
		huge_permit(bp);
	for (unsigned i = 0, end; rc == 0 && i < p->n_vmas; i = end) {
		end = group_end(p, i);
		if (!is_ours_to_map(&p->vmas[i]))
			continue;
		rc = step == 0   ? map_group(r, bp, i, end, err)
		     : step == 1 ? touch_group(r, bp, i, end, err)
				 : split_group(r, bp, i, end, err);
	}
	return rc < 0 ? rc : batch_run(bp->batch, bp->pid, err);
}

int layout_map(struct restoring *r, struct build_process *bp, struct err *err)
{
	int rc = 0;

	bp->touched = arena_array(r->arena, bp->state->n_vmas + 1, sizeof *bp->touched);
	if (!bp->touched)
		return err_nomem(err);
	for (int step = 0; rc == 0 && step < 3; step++)
		rc = each_group(r, bp, step, err);
	return rc < 0 ? rc : fault_point("restore-mapped", err);
}

/* brk, the places of arguments and environment, auxv, /proc/PID/exe: all in one call (prctl(2),
 * PR_SET_MM_MAP). */
static int set_mm(struct restoring *r, struct build_process *bp, struct err *err)
{
	const struct mm_layout *mm = &bp->state->mm;
	int exe = bp->map_fds[bp->state->n_vmas];
	struct prctl_mm_map map = {
		.start_code = mm->start_code,
		.end_code = mm->end_code,
		.start_data = mm->start_data,
		.end_data = mm->end_data,
		.start_brk = mm->start_brk,
		.brk = mm->brk,
		.start_stack = mm->start_stack,
		.arg_start = mm->arg_start,
		.arg_end = mm->arg_end,
		.env_start = mm->env_start,
		.env_end = mm->env_end,
		.exe_fd = (uint32_t)exe,
	};
	unsigned with_exe;
	int rc;

	batch_start(bp->batch);
	map.auxv = (void *)(uintptr_t)batch_in(bp->batch, mm->auxv.data, mm->auxv.len);
	map.auxv_size = mm->auxv.len;
	with_exe = batch_call(bp->batch, NULL, SYS_prctl, PR_SET_MM, PR_SET_MM_MAP,
			      batch_in(bp->batch, &map, sizeof map), sizeof map, 0);
	rc = batch_run(bp->batch, bp->pid, err);
	if (rc < 0 || batch_ret(bp->batch, with_exe) == 0)
		return rc;
	/* without privilege only /proc/PID/exe stays what it was: ckpt-restart */
	batch_start(bp->batch);
	map.exe_fd = (uint32_t)-1;
	map.auxv = (void *)(uintptr_t)batch_in(bp->batch, mm->auxv.data, mm->auxv.len);
	(void)batch_call(bp->batch, "set the program break (PR_SET_MM_MAP)", SYS_prctl, PR_SET_MM,
			 PR_SET_MM_MAP, batch_in(bp->batch, &map, sizeof map), sizeof map, 0);
	rc = batch_run(bp->batch, bp->pid, err);
	if (rc == 0 && !r->rb.new_pids)
		restore_warn(r, "pid %d: /proc/PID/exe does not show its program", bp->state->pid);
	return rc;
}

int layout_finish(struct restoring *r, struct build_process *bp, struct err *err)
{
	const struct process *p = bp->state;
	int rc = set_mm(r, bp, err);

	batch_start(bp->batch);
	for (unsigned i = 0; rc == 0 && i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];

		if (!is_ours_to_map(v))
			continue;
		for (unsigned j = 0; rc == 0 && j < v->n_guards; j++) {
			rc = make_room(bp, 1, 0, err);
			(void)batch_call(bp->batch, "install guard pages", SYS_madvise,
					 v->guards[j].start, v->guards[j].end - v->guards[j].start,
					 MADV_GUARD_INSTALL);
		}
	}
	if (rc == 0)
		rc = batch_run(bp->batch, bp->pid, err);
	if (rc == 0)
		rc = memlock_put(p, bp->batch, bp->pid, err);
	batch_start(bp->batch);
	for (unsigned i = 0; rc == 0 && i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];

		if (!is_ours_to_map(v) || !(v->advice & ADVICE_SEALED))
			continue;
		rc = make_room(bp, 1, 0, err);
		(void)batch_call(bp->batch, "seal memory", SYS_MSEAL, v->start, v->end - v->start,
				 0);
	}
	return rc < 0 ? rc : batch_run(bp->batch, bp->pid, err);
}
