/* SPDX-License-Identifier: BSD-2-Clause */
/* The invariants of a tree, in n log n: a hostile image may hold millions of anything. */
#include "image/check.h"

#include "util/cleanup.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>

#define GREGS_BYTES      (27 * 8)
#define XSTATE_MIN_BYTES 576 /* legacy region and XSAVE header */
#define SIGINFO_BYTES    128
#define MAX_SIGNAL       64
#define MAX_ADDRESS      ((uint64_t)1 << 56)
#define VSYSCALL_ADDRESS 0xffffffffff600000u

/* A sorted set of numbers, to find doubles and to look references up. */
struct set {
	uint64_t *v;
	size_t n;
};

struct checker {
	const struct tree *t;
	struct set files, spaces;
	struct err *err;
};

#define bad(c, ...) err_image((c)->err, -EBADMSG, __VA_ARGS__)

static void set_fini(struct set *s)
{
	free(s->v);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int set_init(struct set *s, size_t n, struct err *err)
{
	s->n = 0;
	s->v = calloc(n ? n : 1, sizeof *s->v);
	return s->v ? 0 : err_nomem(err);
}

/* Sorts; true when a number occurs twice, which is then in *ret_twice. */
static bool set_sort(struct set *s, uint64_t *ret_twice)
{
	qsort(s->v, s->n, sizeof *s->v, by_value);
	for (size_t i = 1; i < s->n; i++)
		if (s->v[i] == s->v[i - 1]) {
			*ret_twice = s->v[i];
			return true;
		}
	return false;
}

static bool set_has(const struct set *s, uint64_t v)
{
	return bsearch(&v, s->v, s->n, sizeof v, by_value) != NULL;
}

/* --- spaces and files ----------------------------------------------------------------------------
 */

/* A set key: the kind stands above the id, so that one look-up checks both. */
static uint64_t space_key(uint32_t kind, uint32_t id)
{
	return (uint64_t)id << 8 | kind;
}

static bool has_content_space(const struct checker *c, uint32_t id)
{
	return set_has(&c->spaces, space_key(SPACE_SHM, id)) ||
	       set_has(&c->spaces, space_key(SPACE_FILE, id));
}

static int check_spaces(struct checker *c)
{
	const struct tree *t = c->t;
	CLEANUP(set_fini) struct set ids = { 0 };
	uint64_t twice;
	int rc = set_init(&c->spaces, t->n_spaces, c->err);

	if (rc == 0)
		rc = set_init(&ids, t->n_spaces, c->err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < t->n_spaces; i++) {
		const struct space *s = &t->spaces[i];

		if (!s->id)
			return bad(c, "space %u has no id", i);
		if (s->kind < SPACE_MM || s->kind > SPACE_FILE)
			return bad(c, "space %u is of the unknown kind %u", s->id, s->kind);
		c->spaces.v[c->spaces.n++] = space_key(s->kind, s->id);
		ids.v[ids.n++] = s->id;
	}
	(void)set_sort(&c->spaces, &twice);
	return set_sort(&ids, &twice) ? bad(c, "space %u occurs twice", (unsigned)twice) : 0;
}

static bool needs_path(uint32_t kind)
{
	return kind == FILE_REGULAR || kind == FILE_DIRECTORY || kind == FILE_DEVICE ||
	       kind == FILE_FIFO || kind == FILE_PROC || kind == FILE_PATH;
}

static int check_file(struct checker *c, const struct file *f)
{
	if (f->kind == 0 || f->kind >= FILE_KIND_COUNT)
		return bad(c, "file %u is of the unknown kind %u", f->id, f->kind);
	if (file_kind_schema(f->kind) && !f->detail)
		return bad(c, "file %u (%s) has no detail", f->id, file_kind_name(f->kind));
	if (needs_path(f->kind) && !f->path)
		return bad(c, "file %u (%s) has no path", f->id, file_kind_name(f->kind));
	for (unsigned i = 0; i < f->n_locks; i++)
		if (f->locks[i].type < LOCK_TYPE_FLOCK || f->locks[i].type > LOCK_TYPE_POSIX)
			return bad(c, "file %u has a lock of the unknown type %u", f->id,
				   f->locks[i].type);
	if (f->kind == FILE_DELETED || f->kind == FILE_MEMFD) {
		const struct file_content *d = f->detail;

		if (!has_content_space(c, d->space))
			return bad(c, "file %u: its space %u is missing", f->id, d->space);
	}
	if (f->kind == FILE_EPOLL) {
		const struct file_epoll *d = f->detail;

		/* 0: the watched description is no longer open in the tree */
		for (unsigned i = 0; i < d->n_watches; i++)
			if (d->watches[i].file && !set_has(&c->files, d->watches[i].file))
				return bad(c, "file %u: watched file %u is missing", f->id,
					   d->watches[i].file);
	}
	return 0;
}

static int check_files(struct checker *c)
{
	const struct tree *t = c->t;
	uint64_t twice;
	int rc = set_init(&c->files, t->n_files, c->err);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < t->n_files; i++) {
		if (!t->files[i].id)
			return bad(c, "file number %u has no id", i);
		c->files.v[c->files.n++] = t->files[i].id;
	}
	if (set_sort(&c->files, &twice))
		return bad(c, "file %u occurs twice", (unsigned)twice);
	for (unsigned i = 0; i < t->n_files && rc == 0; i++)
		rc = check_file(c, &t->files[i]);
	return rc;
}

/* --- one process ---------------------------------------------------------------------------------
 */

static bool page_aligned(uint64_t v)
{
	return !(v & (CKPT_PAGE_SIZE - 1));
}

static int check_vma(struct checker *c, const struct process *p, const struct vma *v)
{
	uint64_t at = v->start;

	if (v->kind < VMA_ANON || v->kind > VMA_VSYSCALL)
		return bad(c, "pid %d: mapping %#llx is of the unknown kind %u", p->pid,
			   (unsigned long long)v->start, v->kind);
	if (v->start >= v->end || !page_aligned(v->start | v->end | v->offset) ||
	    (v->end > MAX_ADDRESS && (v->kind != VMA_VSYSCALL || v->start != VSYSCALL_ADDRESS)))
		return bad(c, "pid %d: mapping %#llx-%#llx is not a page range", p->pid,
			   (unsigned long long)v->start, (unsigned long long)v->end);
	if (v->kind == VMA_FILE && !v->path)
		return bad(c, "pid %d: mapping %#llx has no path", p->pid,
			   (unsigned long long)v->start);
	if (v->kind == VMA_SHM && !has_content_space(c, v->shm_space))
		return bad(c, "pid %d: mapping %#llx: its space %u is missing", p->pid,
			   (unsigned long long)v->start, v->shm_space);
	if (v->file && !set_has(&c->files, v->file))
		return bad(c, "pid %d: mapping %#llx: its file %u is missing", p->pid,
			   (unsigned long long)v->start, v->file);
	for (unsigned i = 0; i < v->n_guards; i++) {
		const struct range *g = &v->guards[i];

		if (g->start < at || g->start >= g->end || g->end > v->end ||
		    !page_aligned(g->start | g->end))
			return bad(c,
				   "pid %d: mapping %#llx: guard range %#llx-%#llx is out of place",
				   p->pid, (unsigned long long)v->start,
				   (unsigned long long)g->start, (unsigned long long)g->end);
		at = g->end;
	}
	return 0;
}

static int check_vmas(struct checker *c, const struct process *p)
{
	uint64_t end = 0;

	for (unsigned i = 0; i < p->n_vmas; i++) {
		int rc = check_vma(c, p, &p->vmas[i]);

		if (rc < 0)
			return rc;
		if (p->vmas[i].start < end)
			return bad(c, "pid %d: mapping %#llx is out of order", p->pid,
				   (unsigned long long)p->vmas[i].start);
		end = p->vmas[i].end;
	}
	return 0;
}

/* A hint: it may name what is not there. */
static int check_huge(struct checker *c, const struct process *p)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < p->n_huge; i++) {
		const struct range *h = &p->huge[i];

		if (h->start < at || h->start >= h->end || h->end > MAX_ADDRESS ||
		    !page_aligned(h->start | h->end))
			return bad(c, "pid %d: huge pages %#llx-%#llx are out of place", p->pid,
				   (unsigned long long)h->start, (unsigned long long)h->end);
		at = h->end;
	}
	return 0;
}

static int check_pending(struct checker *c, int32_t pid, const struct pending_signal *list,
			 unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (list[i].siginfo.len != SIGINFO_BYTES)
			return bad(c, "pid %d: a pending signal has %u bytes, not %u", pid,
				   list[i].siginfo.len, SIGINFO_BYTES);
	return 0;
}

static int check_threads(struct checker *c, const struct process *p)
{
	if (!p->n_threads || p->threads[0].tid != p->pid)
		return bad(c, "pid %d: its first thread is not the leader", p->pid);
	if (p->leader_ended && p->n_threads < 2)
		return bad(c, "pid %d: its only thread has ended", p->pid);
	for (unsigned i = 0; i < p->n_threads; i++) {
		const struct thread *t = &p->threads[i];
		int rc;

		if (t->tid <= 0)
			return bad(c, "pid %d: thread id %d", p->pid, t->tid);
		if (t->gregs.len != GREGS_BYTES || t->xstate.len < XSTATE_MIN_BYTES)
			return bad(c, "thread %d: registers have %u and %u bytes", t->tid,
				   t->gregs.len, t->xstate.len);
		if (!t->comm)
			return bad(c, "thread %d has no name", t->tid);
		rc = check_pending(c, t->tid, t->pending, t->n_pending);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int check_fds(struct checker *c, const struct process *p)
{
	CLEANUP(set_fini) struct set fds = { 0 };
	uint64_t twice;
	int rc = set_init(&fds, p->n_fds, c->err);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < p->n_fds; i++) {
		if (p->fds[i].fd < 0 || !set_has(&c->files, p->fds[i].file))
			return bad(c, "pid %d fd %d: its file %u is missing", p->pid, p->fds[i].fd,
				   p->fds[i].file);
		fds.v[fds.n++] = (uint64_t)p->fds[i].fd;
	}
	if (set_sort(&fds, &twice))
		return bad(c, "pid %d fd %d occurs twice", p->pid, (int)twice);
	for (unsigned i = 0; i < p->n_posix_locks; i++)
		if (!set_has(&c->files, p->posix_locks[i].file))
			return bad(c, "pid %d: locked file %u is missing", p->pid,
				   p->posix_locks[i].file);
	return 0;
}

static int check_process(struct checker *c, const struct process *p)
{
	int rc;

	if (p->pid <= 0)
		return bad(c, "process id %d", p->pid);
	if (!set_has(&c->spaces, space_key(SPACE_MM, p->space)))
		return bad(c, "pid %d: its space %u is missing", p->pid, p->space);
	if (!p->exe || !p->cwd || !p->root)
		return bad(c, "pid %d: its executable, working or root directory is missing",
			   p->pid);
	for (unsigned i = 0; i < p->n_sigactions; i++)
		if (p->sigactions[i].signo < 1 || p->sigactions[i].signo > MAX_SIGNAL)
			return bad(c, "pid %d: action of signal %u", p->pid,
				   p->sigactions[i].signo);
	if (p->stopped > 1 && p->stopped != SIGTSTP && p->stopped != SIGTTIN &&
	    p->stopped != SIGTTOU)
		return bad(c, "pid %d: stopped by signal %u", p->pid, p->stopped);
	rc = check_vmas(c, p);
	if (rc == 0)
		rc = check_huge(c, p);
	if (rc == 0)
		rc = check_threads(c, p);
	if (rc == 0)
		rc = check_pending(c, p->pid, p->pending, p->n_pending);
	return rc < 0 ? rc : check_fds(c, p);
}

static int check_tids(struct checker *c)
{
	const struct tree *t = c->t;
	CLEANUP(set_fini) struct set tids = { 0 };
	uint64_t twice;
	size_t n = 0;
	int rc;

	for (unsigned i = 0; i < t->n_processes; i++)
		n += t->processes[i].n_threads;
	rc = set_init(&tids, n, c->err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < t->n_processes; i++)
		for (unsigned j = 0; j < t->processes[i].n_threads; j++)
			tids.v[tids.n++] = (uint64_t)t->processes[i].threads[j].tid;
	return set_sort(&tids, &twice) ? bad(c, "thread %d occurs twice", (int)twice) : 0;
}

/* Of those that share memory the first has it all. */
static int check_sharing(struct checker *c)
{
	const struct tree *t = c->t;
	CLEANUP(set_fini) struct set spaces = { 0 };
	uint64_t twice;
	int rc = set_init(&spaces, t->n_processes, c->err);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < t->n_processes; i++)
		spaces.v[spaces.n++] = (uint64_t)t->processes[i].space << 32 | i;
	(void)set_sort(&spaces, &twice);
	for (size_t i = 1; i < spaces.n; i++) {
		const struct process *p = &t->processes[(uint32_t)spaces.v[i]];

		if (spaces.v[i] >> 32 == spaces.v[i - 1] >> 32 && p->n_vmas)
			return bad(c,
				   "pid %d: it shares its memory with an earlier process and has "
				   "mappings of its own",
				   p->pid);
	}
	return 0;
}

static void checker_fini(struct checker *c)
{
	set_fini(&c->files);
	set_fini(&c->spaces);
}

int tree_check(const struct tree *t, struct err *err)
{
	CLEANUP(checker_fini) struct checker c = { .t = t, .err = err };
	int rc;

	if (!t->n_processes)
		return bad(&c, "there is no process in it");
	rc = check_spaces(&c);
	if (rc == 0)
		rc = check_files(&c);
	for (unsigned i = 0; i < t->n_processes && rc == 0; i++)
		rc = check_process(&c, &t->processes[i]);
	if (rc == 0)
		rc = check_sharing(&c);
	return rc < 0 ? rc : check_tids(&c);
}
