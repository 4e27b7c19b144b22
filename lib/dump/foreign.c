/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory under a userfaultfd of the program's own. The descriptor cannot be restored: the attempt
 * is refused for it, unless the user leaves it out (--fd N=close). Then the memory comes back with
 * the pages that are there; nobody will bring those that are missing. A mapping has one userfaultfd
 * at most (ours would get EBUSY), and what the program protects and looks for is its own business:
 * no tracker touches these mappings. Their pages are read and compared by hash.
 *
 * Nor is a process that has any forked or copied ahead: a fork can wait for a handler that stands
 * still (UFFD_FEATURE_EVENT_FORK), and a page that goes before it is read would make the reader
 * wait for one.
 */
#include "dump/internal.h"
#include "util/cleanup.h"

#include <stdio.h>
#include <string.h>

void foreign_mark(struct dumper *d, struct watched *w, struct map_list *maps)
{
	for (unsigned i = 0; i < maps->n; i++) {
		struct proc_map *m = &maps->maps[i];

		if ((m->advice & ADVICE_UFFD_MISSING) ||
		    ((m->advice & ADVICE_UFFD_WP) && !(w && uffd_is_ours(w, m->start, m->end))))
			d->has_foreign = m->foreign = true;
	}
}

bool foreign_descriptor(int proc_dirfd, struct arena *a)
{
	unsigned n;
	int *fds;

	if (proc_fds(proc_dirfd, a, &fds, &n, NULL) < 0)
		return false;
	for (unsigned i = 0; i < n; i++) {
		char name[24], *link;

		(void)snprintf(name, sizeof name, "fd/%d", fds[i]);
		if (proc_link(proc_dirfd, name, a, &link, NULL, NULL) == 0 &&
		    !strcmp(link, "anon_inode:[userfaultfd]"))
			return true;
	}
	return false;
}

bool foreign_left_out(struct dumper *d, const struct subject *s)
{
	const struct settings *set = d->job->settings;

	return (set->n_fd_rules || set->close_unsupported) &&
	       foreign_descriptor(s->proc_dirfd, d->arena);
}

/* A descriptor in the job is refused by itself, or left out because the user said so. One outside
 * of it may be needed by those who have it. */
bool foreign_allowed(struct dumper *d, const struct proc_map *m)
{
	for (unsigned i = 0; !m->shared && i < d->cap.n_subjects; i++)
		if (foreign_descriptor(d->cap.subjects[i].proc_dirfd, d->arena))
			return true;
	return false;
}

struct foreign {
	struct dumper *d;
	struct page_list *list;
	struct vma *vma;
};

static int on_run(void *arg, const struct page_class_run *run, struct err *err)
{
	struct foreign *f = arg;
	uint64_t n = (run->end - run->start) / CKPT_PAGE_SIZE;

	if (run->classes & PAGE_GUARD) {
		struct range *g =
			arena_push(f->d->arena, &f->vma->guards, &f->vma->n_guards, sizeof *g);

		if (!g)
			return err_nomem(err);
		*g = (struct range){ run->start, run->end };
		return 0;
	}
	if (!(run->classes & (PAGE_ANON | PAGE_SWAPPED)) &&
	    !(f->vma->kind == VMA_ANON && f->vma->ino)) /* a nameless file's: nowhere else */
		return 0;
	f->d->result->pages_present += n;
	return pages_add(f->d, f->list, EXTENT_COMPARE, run->start / CKPT_PAGE_SIZE, n,
			 run->start) < 0
		       ? err_nomem(err)
		       : 0;
}

int foreign_scan(struct dumper *d, struct subject *s, const struct map_list *maps,
		 struct page_list *list, int pagemap_fd, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && d->has_foreign && i < maps->n; i++) {
		struct foreign f = { .d = d, .list = list, .vma = &s->process->vmas[i] };
		const struct proc_map *m = &maps->maps[i];

		if (m->foreign)
			rc = proc_pagemap_scan(pagemap_fd, m->start, m->end, on_run, &f, err);
	}
	return rc;
}
