/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared memory that comes while the job runs. We map it ourselves, with a userfaultfd of our own,
 * through which pages are put into it: atomically, and never over one that is there, whoever
 * touches it at the same time. The job's mappings of it are registered with the userfaultfds of
 * their processes, so that a thread that meets a missing page waits; lazy.c brings what a system
 * call can touch before it begins.
 *
 * A descriptor knows nothing of all this: read(2) from a memfd finds zeros where a page is missing
 * (shmem_file_read_iter asks no userfaultfd), and so does a mapping that is made from it, by
 * whomever. So only memory that nobody can open or attach may come later: shared anonymous
 * mappings, and memfds that are mapped and not open any more. All that has a descriptor, a name
 * (/dev/shm) or an id (System V) is filled first; likewise what is locked, mapped privately, or
 * may never be written to, for which no userfaultfd can be had.
 */
#include "restore/views.h"

#include "object/object.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Less is written as quickly. */
#define MIN_BYTES ((uint64_t)256 << 10)

static bool can_wait_here(const struct vma *v)
{
	const uint32_t not = ADVICE_LOCKED | ADVICE_HUGETLB | ADVICE_GROWSDOWN | ADVICE_DROPPABLE;

	return (v->flags & MAP_SHARED) && (v->advice & ADVICE_MAYWRITE) && !(v->advice & not ) &&
	       !v->file;
}

bool views_can_wait(const struct tree *t, const struct space *s)
{
	if (s->kind != SPACE_SHM || s->path || s->size < MIN_BYTES || sysv_shm_of(t, s->id) ||
	    space_file(t, s->id, FILE_MEMFD))
		return false;
	for (unsigned i = 0; i < t->n_processes; i++)
		for (unsigned j = 0; j < t->processes[i].n_vmas; j++) {
			const struct vma *v = &t->processes[i].vmas[j];

			if (v->kind == VMA_SHM && v->shm_space == s->id && !can_wait_here(v))
				return false;
		}
	return true;
}

static int enroll(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = { .range = { start, end - start },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	return ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

/* No userfaultfd is no error: all is written to the file then. */
int views_open(struct sink *s, const struct space *space, struct err *err)
{
	uint64_t len = (space->size + CKPT_PAGE_SIZE - 1) & ~(uint64_t)(CKPT_PAGE_SIZE - 1);
	struct uffdio_api api = { .api = UFFD_API };
	CLEANUP_FD int uffd =
		(int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	void *at;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
		return 0;
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->fd, 0);
	if (at == MAP_FAILED)
		return 0;
	(void)madvise(at, len, MADV_DONTFORK);
	(void)madvise(at, len, MADV_DONTDUMP);
	s->fresh = calloc(1, sizeof *s->fresh);
	if (!s->fresh || enroll(uffd, (uint64_t)(uintptr_t)at, (uint64_t)(uintptr_t)at + len) < 0) {
		(void)munmap(at, len);
		return s->fresh ? 0 : err_nomem(err);
	}
	s->fresh[0] = (struct range){ 0, len };
	s->n_fresh = 1;
	s->base = (uint64_t)(uintptr_t)at;
	s->uffd = fd_take(&uffd);
	return 0;
}

static struct sink *sink_of(struct filler *f, uint32_t space)
{
	for (unsigned i = 0; i < f->n_sinks; i++)
		if (f->sinks[i].base && f->sinks[i].space == space)
			return &f->sinks[i];
	return NULL;
}

/* Where one of its mappings cannot be registered, nothing of it may be missing. */
static int enroll_process(struct filler *f, struct sink *s, struct err *err)
{
	const struct process *p = s->bp->state;

	s->views = calloc(p->n_vmas + (size_t)1, sizeof *s->views);
	if (!s->views)
		return err_nomem(err);
	for (unsigned i = 0; i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];
		struct sink *of = v->kind == VMA_SHM ? sink_of(f, v->shm_space) : NULL;

		if (!of)
			continue;
		if (s->uffd < 0 || enroll(s->uffd, v->start, v->end) < 0)
			of->now = true;
		else
			s->views[s->n_views++] =
				(struct view){ { v->start, v->end }, of, v->offset };
	}
	return 0;
}

int views_enroll(struct filler *f, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < f->n_sinks; i++)
		if (f->sinks[i].bp)
			rc = enroll_process(f, &f->sinks[i], err);
	return rc;
}

unsigned views_find(const struct sink *s, uint64_t at)
{
	unsigned lo = 0, hi = s->n_views;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (s->views[mid].at.end > at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

void views_forget(struct sink *s)
{
	if (s->base)
		(void)munmap((void *)(uintptr_t)s->base, s->fresh[0].end);
	s->base = 0;
	free(s->views);
	s->views = NULL;
	s->n_views = 0;
}

void views_drop(const struct sink *s, uint64_t at, size_t len)
{
	(void)madvise((void *)(uintptr_t)(s->base + at), len, MADV_DONTNEED);
}
