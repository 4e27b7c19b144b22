/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Content of shared spaces. With a descriptor, SEEK_DATA says what is there (swapped pages
 * included) and pread reads it. Without one (MAP_SHARED|MAP_ANONYMOUS, or a deleted file that is
 * only mapped) the content is read through a mapping; there the page tables do not tell, since a
 * shared page may be present with no entry of this process. mincore(2) run inside tells which pages
 * are in memory; it does not see swapped ones, so where there is swap, all are read.
 */
#include "dump/internal.h"
#include "util/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define MINCORE_PAGES (128 * 1024)

static int list_fd(struct dumper *d, uint32_t space, int fd, struct err *err)
{
	struct page_list *l = pages_list_for(d, space, SOURCE_FD, fd);
	off_t start = 0, end;

	if (!l)
		return err_nomem(err);
	for (;;) {
		uint64_t first, last;

		start = lseek(fd, start, SEEK_DATA);
		if (start < 0)
			break;
		end = lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			break;
		first = (uint64_t)start / CKPT_PAGE_SIZE;
		last = ((uint64_t)end + CKPT_PAGE_SIZE - 1) / CKPT_PAGE_SIZE;
		if (pages_add(d, l, EXTENT_COMPARE, first, last - first, first * CKPT_PAGE_SIZE) <
		    0)
			return err_nomem(err);
		start = (off_t)(last * CKPT_PAGE_SIZE);
	}
	return errno == ENXIO ? 0
			      : err_set(err, -errno,
					"cannot find the data of a deleted or memory file: %m");
}

/* Through the job's own description, whose offset SEEK_DATA would change. */
static int list_all_of_fd(struct dumper *d, uint32_t space, int fd, struct err *err)
{
	struct page_list *l = pages_list_for(d, space, SOURCE_FD, fd);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot look at a deleted or memory file: %m");
	if (!l || pages_add(d, l, EXTENT_COMPARE, 0,
			    ((uint64_t)st.st_size + CKPT_PAGE_SIZE - 1) / CKPT_PAGE_SIZE, 0) < 0)
		return err_nomem(err);
	return 0;
}

static int add_resident(struct dumper *d, struct page_list *l, const struct vma *v, uint64_t at,
			const uint8_t *vec, uint64_t n, struct err *err)
{
	for (uint64_t i = 0; i < n;) {
		uint64_t first = i;

		while (i < n && (vec[i] & 1))
			i++;
		if (i > first && pages_add(d, l, EXTENT_COMPARE,
					   (v->offset + (at - v->start)) / CKPT_PAGE_SIZE + first,
					   i - first, at + first * CKPT_PAGE_SIZE) < 0)
			return err_nomem(err);
		while (i < n && !(vec[i] & 1))
			i++;
	}
	return 0;
}

/* The pages of a mapped shared object that are in memory. */
static int list_resident(struct dumper *d, const struct subject *s, struct page_list *l,
			 const struct vma *v, struct err *err)
{
	for (uint64_t at = v->start; at < v->end;) {
		uint64_t n = MIN((v->end - at) / CKPT_PAGE_SIZE, (uint64_t)MINCORE_PAGES);
		uint64_t vec;
		int rc;

		batch_start(s->batch);
		vec = batch_out(s->batch, n);
		(void)batch_call(s->batch, "find the pages of shared memory", SYS_mincore, at,
				 n * CKPT_PAGE_SIZE, vec);
		rc = batch_run(s->batch, s->pid, err);
		if (rc == 0)
			rc = add_resident(d, l, v, at, batch_result(s->batch, vec), n, err);
		if (rc < 0)
			return rc;
		at += n * CKPT_PAGE_SIZE;
	}
	return 0;
}

/* Has anything been swapped out on this machine? Asked after mincore, which does not see such
 * pages. */
static bool swap_in_use(void)
{
	struct sysinfo si;

	return sysinfo(&si) < 0 || si.totalswap != si.freeswap;
}

static int list_whole(struct dumper *d, struct page_list *l, const struct vma *v, struct err *err)
{
	int rc = pages_add(d, l, EXTENT_COMPARE, v->offset / CKPT_PAGE_SIZE,
			   (v->end - v->start) / CKPT_PAGE_SIZE, v->start);

	return rc < 0 ? err_nomem(err) : 0;
}

/* A process's mapping of a space. */
struct mapped {
	uint32_t space;
	unsigned process;
	const struct vma *vma;
};

struct all_mapped {
	struct mapped *v;
	unsigned n;
};

static int by_mapped_space(const void *a, const void *b)
{
	const struct mapped *x = a, *y = b;

	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	if (x->process != y->process)
		return x->process < y->process ? -1 : 1;
	return x->vma < y->vma ? -1 : x->vma > y->vma;
}

static int find_mapped(struct dumper *d, struct all_mapped *ret, struct err *err)
{
	for (unsigned i = 0; i < d->tree->n_processes; i++) {
		const struct process *p = &d->tree->processes[i];

		for (unsigned j = 0; j < p->n_vmas; j++) {
			struct mapped *slot;

			if (p->vmas[j].kind != VMA_SHM)
				continue;
			slot = arena_push(d->arena, &ret->v, &ret->n, sizeof *slot);
			if (!slot)
				return err_nomem(err);
			*slot = (struct mapped){ p->vmas[j].shm_space, i, &p->vmas[j] };
		}
	}
	if (ret->n)
		qsort(ret->v, ret->n, sizeof *ret->v, by_mapped_space);
	return 0;
}

/* The first of a space's mappings; all->n: it has none. */
static unsigned first_of(const struct all_mapped *all, uint32_t space)
{
	unsigned lo = 0, hi = all->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (all->v[mid].space < space)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool lies_within(const struct vma *v, const struct vma *seen)
{
	return seen && v->offset >= seen->offset &&
	       v->offset + (v->end - v->start) <= seen->offset + (seen->end - seen->start);
}

/* What is in memory of a shared object is so for all that have it mapped: one is asked. */
static int list_mapped(struct dumper *d, const struct space *space, const struct all_mapped *all,
		       struct err *err)
{
	const struct vma *seen = NULL;

	for (unsigned i = first_of(all, space->id); i < all->n && all->v[i].space == space->id;
	     i++) {
		const struct vma *v = all->v[i].vma;
		unsigned process = all->v[i].process;
		struct page_list *l;
		int rc = 0;

		if (lies_within(v, seen))
			continue;
		seen = v;
		l = pages_list_for(d, space->id, SOURCE_MEMORY, d->mem_fds[process]);
		if (!l)
			return err_nomem(err);
		if (space->kind == SPACE_SHM)
			rc = list_resident(d, &d->cap.subjects[process], l, v, err);
		if (rc == 0 && (space->kind == SPACE_FILE || swap_in_use()))
			rc = list_whole(d, l, v, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int shared_capture(struct dumper *d, struct err *err)
{
	struct all_mapped all = { 0 };
	int found = find_mapped(d, &all, err);

	if (found < 0)
		return found;
	for (unsigned i = 0; i < d->tree->n_spaces; i++) {
		const struct space *space = &d->tree->spaces[i];
		const struct space_source *source = NULL;
		int rc;

		if (space->kind == SPACE_MM)
			continue;
		for (unsigned j = 0; j < d->cap.n_sources; j++)
			if (d->cap.sources[j].space == space->id)
				source = &d->cap.sources[j];
		if (!source || source->fd < 0)
			rc = list_mapped(d, space, &all, err);
		else
			rc = (source->theirs ? list_all_of_fd : list_fd)(d, space->id, source->fd,
									 err);
		if (rc < 0)
			return rc;
	}
	return 0;
}
