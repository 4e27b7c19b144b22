/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mappings of a process, and which of their pages an image must hold. A private page is written
 * when the process has its own copy of it (anonymous, or copied on write from a file); pages of
 * shared objects belong to the object's space (dump/shared.c); clean file pages come back from the
 * file.
 */
#include "dump/internal.h"
#include "proc/elf.h"
#include "proc/refusals.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define LOG_ROOM "dump"

static int refuse(const struct subject *s, const struct proc_map *m, const char *what,
		  const char *hint, struct err *err)
{
	(void)err_set(err, -EOPNOTSUPP, "pid %d: %s mapped at %#llx is not supported",
		      s->process->pid, what, (unsigned long long)m->start);
	return hint ? err_hint(err, "%s", hint) : -EOPNOTSUPP;
}

static bool starts_with(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

static int check_supported(struct dumper *d, const struct subject *s, const struct proc_map *m,
			   struct err *err)
{
	const struct refusal *r = refusal_of_mapping(m->path);
	char what[160];

	if (r)
		return refuse(s, m, r->name, r->hint, err);
	if (m->pkey)
		return refuse(s, m, "memory with a protection key", refusal_hint_pkey, err);
	if (m->advice & ADVICE_HUGETLB)
		return refuse(s, m, "hugetlb memory", refusal_hint_hugetlb, err);
	if (m->foreign && !foreign_allowed(d, m))
		return refuse(s, m, "memory under somebody's userfaultfd", refusal_hint_uffd, err);
	if ((m->advice & ADVICE_IO) && m->path[0] != '[') {
		(void)snprintf(what, sizeof what, "device memory (%.100s)", m->path);
		return refuse(s, m, what, refusal_hint_device, err);
	}
	return 0;
}

/* Its inode number is the id of the segment. */
static bool is_sysv(const struct proc_map *m)
{
	return starts_with(m->path, "/SYSV") && m->deleted;
}

static bool is_shmem(const struct proc_map *m)
{
	return is_sysv(m) || starts_with(m->path, "/memfd:") ||
	       (m->deleted && !strcmp(m->path, "/dev/zero"));
}

/* A space reaches as far as it is mapped. */
static void grow_space(struct dumper *d, const struct proc_map *m, const struct vma *v)
{
	uint64_t size = m->offset + (m->end - m->start);

	for (unsigned i = 0; i < d->tree->n_spaces; i++)
		if (d->tree->spaces[i].id == v->shm_space && d->tree->spaces[i].size < size)
			d->tree->spaces[i].size = size;
}

/* The file of the tree whose content is the space that is mapped, if there is one. Of a tree's
 * files few are of the kinds in question. */
static int find_file_of(struct dumper *d, struct vma *v)
{
	for (; d->files_looked_at < d->tree->n_files; d->files_looked_at++) {
		const struct file *f = &d->tree->files[d->files_looked_at];
		const struct file **slot;

		if ((f->kind != FILE_MEMFD && f->kind != FILE_DELETED) || !f->detail)
			continue;
		slot = arena_push(d->arena, &d->contents, &d->n_contents, sizeof(*slot));
		if (!slot)
			return -ENOMEM;
		*slot = f;
	}
	for (unsigned i = 0; i < d->n_contents; i++)
		if (((const struct file_content *)d->contents[i]->detail)->space == v->shm_space)
			v->file = d->contents[i]->id;
	return 0;
}

/* A mapping of a shared object, or of a file whose name is gone: its content is a space of its own.
 */
static int classify_shared(struct dumper *d, const struct proc_map *m, struct vma *v,
			   struct err *err)
{
	enum space_kind kind = is_shmem(m) ? SPACE_SHM : SPACE_FILE;
	uint64_t size = m->offset + (m->end - m->start);
	char key[SPACE_KEY_LEN];

	space_key(key, kind, (unsigned)(m->dev >> 20), (unsigned)(m->dev & 0xfffff), m->ino);
	v->kind = VMA_SHM;
	v->shm_space = is_sysv(m) ? sysv_space(&d->cap, (int)m->ino, size, -1)
				  : capture_space(&d->cap, kind, key, m->path, size, -1);
	if (!v->shm_space)
		return err_nomem(err);
	grow_space(d, m, v);
	return find_file_of(d, v) < 0 ? err_nomem(err) : 0;
}

/* A shared mapping: of a named file in memory (tmpfs), whose content the image holds; of nameless
 * memory; or of a file on disk, which has its content itself. */
static int classify_any_shared(struct dumper *d, const struct proc_map *m, struct vma *v,
			       struct err *err)
{
	int rc = is_shmem(m) || !m->ino ? 0 : tmpfs_capture_mapping(&d->cap, m, &v->shm_space, err);

	v->kind = v->shm_space ? VMA_SHM : VMA_FILE;
	if (rc < 0)
		return rc;
	if (v->shm_space)
		grow_space(d, m, v);
	else if (m->deleted || is_shmem(m))
		return classify_shared(d, m, v, err);
	return 0;
}

static int classify(struct dumper *d, const struct proc_map *m, struct vma *v, struct err *err)
{
	if (!strcmp(m->path, "[vsyscall]"))
		v->kind = VMA_VSYSCALL;
	else if (!strcmp(m->path, "[vdso]") || starts_with(m->path, "[vvar"))
		v->kind = VMA_VDSO;
	else if (m->shared && (m->ino || m->deleted || is_shmem(m)))
		return classify_any_shared(d, m, v, err);
	else if (m->ino == 0 || m->deleted || is_shmem(m) || !strcmp(m->path, "/dev/zero"))
		v->kind = VMA_ANON; /* private and nameless: all its pages are written */
	else
		v->kind = VMA_FILE;
	return 0;
}

/*
 * A private mapping of a file without a name: the clean pages exist nowhere else, so they are
 * touched in by reading them; those beyond the file's end cannot be and are left out by the reader.
 */
static int take_whole(struct dumper *d, struct page_list *list, const struct proc_map *m,
		      struct vma *v, struct err *err)
{
	v->path = NULL;
	return pages_add(d, list, EXTENT_COMPARE, m->start / CKPT_PAGE_SIZE,
			 (m->end - m->start) / CKPT_PAGE_SIZE, m->start) < 0
		       ? err_nomem(err)
		       : 0;
}

static int capture_map(struct dumper *d, struct subject *s, const struct proc_map *m,
		       struct page_list *list, struct err *err)
{
	struct vma *v;
	int rc = check_supported(d, s, m, err);

	if (rc < 0)
		return rc;
	v = &s->process->vmas[s->process->n_vmas++];
	*v = (struct vma){
		.start = m->start,
		.end = m->end,
		.prot = m->prot,
		.offset = m->offset,
		.dev = m->dev,
		.ino = m->ino,
		.flags = m->shared ? MAP_SHARED : MAP_PRIVATE,
		.advice = m->advice & ~(uint32_t)(ADVICE_UFFD_WP | ADVICE_UFFD_MISSING),
		.pkey = m->pkey,
		.path = m->path[0] ? m->path : NULL,
	};
	rc = classify(d, m, v, err);
	if (v->kind != VMA_FILE)
		v->flags |= MAP_ANONYMOUS;
	if (starts_with(m->path, "[anon:"))
		v->anon_name =
			arena_printf(d->arena, "%.*s", (int)strlen(m->path) - 7, m->path + 6);
	if (rc == 0 && v->kind == VMA_ANON && !track_private(m) && !m->foreign &&
	    !(m->advice & ADVICE_DROPPABLE))
		rc = take_whole(d, list, m, v, err);
	return rc;
}

static int64_t mtime_ns(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* Size and time of a mapped file, while nothing can change it. */
static int stat_file(const struct process *p, struct vma *v, struct err *err)
{
	struct stat st;

	if (stat(v->path, &st) < 0) {
		(void)err_set(err, -EOPNOTSUPP, "pid %d: cannot find the mapped file '%s': %m",
			      p->pid, v->path);
		return err_hint(err, "%s", refusal_hint_mapped);
	}
	if (!S_ISREG(st.st_mode)) {
		(void)err_set(
			err, -EOPNOTSUPP,
			"pid %d: a mapping of '%s', which is not a regular file, is not supported",
			p->pid, v->path);
		return err_hint(err, "%s", refusal_hint_device);
	}
	v->file_size = (uint64_t)st.st_size;
	v->file_mtime_ns = mtime_ns(&st);
	return 0;
}

static bool same_file(const struct vma *a, const struct vma *b)
{
	return a->ino == b->ino && a->dev == b->dev && !strcmp(a->path, b->path);
}

/* The same file is mapped several times in a row: looked at once. */
static int stat_files(struct process *p, struct err *err)
{
	const struct vma *last = NULL;

	for (unsigned i = 0; i < p->n_vmas; i++) {
		struct vma *v = &p->vmas[i];
		int rc = 0;

		if (v->kind != VMA_FILE)
			continue;
		if (last && same_file(last, v)) {
			v->file_size = last->file_size;
			v->file_mtime_ns = last->file_mtime_ns;
		} else {
			rc = stat_file(p, v, err);
		}
		if (rc < 0)
			return rc;
		last = v;
	}
	return 0;
}

/* The break is known: attrs_capture_process has asked for it. */
static int capture_layout(struct dumper *d, struct subject *s, struct err *err)
{
	struct mm_layout *mm = &s->process->mm;
	const struct proc_stat *st = &s->stat;
	int rc = proc_auxv_read(s->proc_dirfd, d->arena, &mm->auxv, err);

	if (rc < 0)
		return rc;
	mm->start_code = st->start_code;
	mm->end_code = st->end_code;
	mm->start_data = st->start_data;
	mm->end_data = st->end_data;
	mm->start_brk = st->start_brk;
	mm->start_stack = st->start_stack;
	mm->arg_start = st->arg_start;
	mm->arg_end = st->arg_end;
	mm->env_start = st->env_start;
	mm->env_end = st->env_end;
	return 0;
}

int memory_capture(struct dumper *d, struct subject *s, const struct map_list *maps, int mem_fd,
		   struct err *err)
{
	CLEANUP_FD int pagemap_fd = -1;
	struct watched *w = NULL;
	struct page_list *list;
	bool foreign;
	int rc;

	rc = capture_layout(d, s, err);
	if (rc == 0)
		rc = proc_pagemap_open(s->proc_dirfd, &pagemap_fd, err);
	if (rc == 0)
		rc = watched_get(d->job, s->pid, &s->stat, &w, err);
	if (rc < 0)
		return rc;
	foreign = d->tracker && foreign_left_out(d, s);
	if (foreign)
		d->tracker->forget(w);
	if (!d->tracker || foreign)
		w = NULL;
	list = pages_list_for(d, s->process->space, SOURCE_MEMORY, mem_fd);
	if (!list)
		return err_nomem(err);
	list->pid = s->pid;
	s->process->vmas = arena_array(d->arena, maps->n, sizeof *s->process->vmas);
	if (!s->process->vmas)
		return err_nomem(err);
	for (unsigned i = 0; rc == 0 && i < maps->n; i++)
		rc = capture_map(d, s, &maps->maps[i], list, err);
	if (rc == 0)
		rc = scan_process(d, s, maps, list, w, pagemap_fd, err);
	if (rc == 0)
		rc = foreign_scan(d, s, maps, list, pagemap_fd, err);
	return rc < 0 ? rc : stat_files(s->process, err);
}

/* Flags from before the stop may still show a watch of ours that has been given up since, with the
 * process that held it. */
static bool others_watch(struct watched *w, const struct map_list *l)
{
	for (unsigned i = 0; i < l->n; i++)
		if ((l->maps[i].advice & ADVICE_UFFD_WP) &&
		    !uffd_is_ours(w, l->maps[i].start, l->maps[i].end))
			return true;
	return false;
}

static int read_maps(struct dumper *d, struct watched *w, const struct sight *look,
		     struct map_list *ret, struct err *err)
{
	int proc_dirfd = look->proc_dirfd, rc;

	ret->flags_from = NULL;
	if (d->attaching || (w && w->n_flags)) {
		ret->maps = look->maps;
		ret->n = look->n_maps;
		if (d->attaching)
			return 0;
		if (flags_apply(w, ret->maps, ret->n) && !others_watch(w, ret)) {
			ret->flags_from = w;
			return 0;
		}
	}
	rc = proc_maps_read(proc_dirfd, true, d->arena, &ret->maps, &ret->n, err);
	return rc < 0 || !scan_by_map(d) ? rc
					 : proc_maps_unhide(proc_dirfd, ret->maps, ret->n, err);
}

int memory_read_maps(struct dumper *d, const struct subject *s, const struct sight *look,
		     struct map_list *ret, struct err *err)
{
	struct watched *w = watched_find(d->job, s->pid, s->stat.start_time);
	int rc = read_maps(d, w, look, ret, err);

	if (rc == 0)
		foreign_mark(d, w, ret);
	return rc;
}

/* Its build id, unless another file has taken its place since. */
static void read_build_id(struct dumper *d, struct vma *v)
{
	CLEANUP_FD int fd = open(v->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size == v->file_size &&
	    mtime_ns(&st) == v->file_mtime_ns)
		proc_build_id(fd, d->arena, &v->build_id);
}

static void describe_process(struct dumper *d, struct process *p)
{
	const struct vma *last = NULL;

	for (unsigned i = 0; i < p->n_vmas; i++) {
		struct vma *v = &p->vmas[i];

		if (v->kind != VMA_FILE)
			continue;
		if (last && same_file(last, v))
			v->build_id = last->build_id;
		else
			read_build_id(d, v);
		last = v;
	}
}

void memory_describe_files(struct dumper *d)
{
	for (unsigned i = 0; i < d->tree->n_processes; i++) {
		struct process *p = &d->tree->processes[i];
		struct stat st;

		describe_process(d, p);
		if (p->exe && stat(p->exe, &st) == 0) {
			p->exe_size = (uint64_t)st.st_size;
			p->exe_mtime_ns = mtime_ns(&st);
		}
	}
}
