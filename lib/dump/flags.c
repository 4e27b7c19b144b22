/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VmFlags (madvise, mlock, ...) without a walk through all page tables while the job stands still.
 * /proc/PID/smaps, the only place where they are, takes about 9 ms for a GiB; /proc/PID/maps takes
 * next to nothing. So smaps is read just before the stop, and again after it: where both say the
 * same of a mapping, so would have been the answer in between. Where they do not, the attempt ends,
 * and for the next ones smaps is read at the stop.
 */
#include "dump/internal.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <string.h>

#define LOG_ROOM "dump"

#define CAREFUL_CHECKPOINTS 20

/* Our own watch comes and goes. */
#define IGNORED ((uint32_t)ADVICE_UFFD_WP)

void flags_forget(struct dump_job *job)
{
	for (unsigned i = 0; i < job->n_watched; i++) {
		job->watched[i]->flags = NULL;
		job->watched[i]->n_flags = 0;
	}
	arena_free(job->flags_arena);
	job->flags_arena = NULL;
}

static int read_smaps(const struct watched *w, struct arena *a, struct proc_map **ret,
		      unsigned *ret_n, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;
	int rc = proc_open_pid(w->pid, &dirfd, err);

	if (rc == 0)
		rc = proc_stat_read(dirfd, &st, err);
	if (rc == 0 && st.start_time != w->start_time)
		rc = err_set(err, -ESRCH, "process %d has ended", w->pid);
	return rc < 0 ? rc : proc_maps_read(dirfd, true, a, ret, ret_n, err);
}

/* Who is there before the first stop; others are met at it. */
static void meet(struct dump_job *job, pid_t pid, struct arena *a)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;
	struct watched *w;
	unsigned n;
	pid_t *children;

	if (proc_open_pid(pid, &dirfd, NULL) < 0 || proc_stat_read(dirfd, &st, NULL) < 0 ||
	    watched_get(job, pid, &st, &w, NULL) < 0 ||
	    proc_children(dirfd, a, &children, &n, NULL) < 0)
		return;
	for (unsigned i = 0; i < n; i++)
		meet(job, children[i], a);
}

void flags_meet(struct dump_job *job)
{
	struct arena *a = arena_new();

	if (a)
		meet(job, job->root, a);
	arena_free(a);
}

void flags_look(struct dumper *d)
{
	struct dump_job *job = d->job;
	/* without PAGEMAP_SCAN, smaps also says which mappings hold anything */
	bool useful = probe_get(PROBE_PAGEMAP_SCAN)->ok && !(d->tracker && d->tracker->soft) &&
		      !(d->flags & DUMP_KILL);

	if (job->careful)
		job->careful--;
	flags_forget(job);
	if (!useful || job->careful)
		return;
	flags_meet(job);
	job->flags_arena = arena_new();
	for (unsigned i = 0; job->flags_arena && i < job->n_watched; i++) {
		struct watched *w = job->watched[i];

		(void)read_smaps(w, job->flags_arena, &w->flags, &w->n_flags, NULL);
	}
}

static bool same_thing(const struct proc_map *a, const struct proc_map *b)
{
	return a->prot == b->prot && a->shared == b->shared && a->dev == b->dev &&
	       a->ino == b->ino && a->deleted == b->deleted &&
	       (!a->ino || a->offset - a->start == b->offset - b->start) &&
	       !strcmp(a->path, b->path);
}

/* The mapping of the list that m was or has become: it may have grown or shrunk. *at moves along.
 */
static const struct proc_map *find_in(const struct proc_map *list, unsigned n, unsigned *at,
				      const struct proc_map *m)
{
	while (*at < n && list[*at].end <= m->start)
		++*at;
	for (unsigned i = *at; i < n && list[i].start < m->end; i++)
		if (same_thing(&list[i], m))
			return &list[i];
	return NULL;
}

bool flags_apply(const struct watched *w, struct proc_map *maps, unsigned n)
{
	unsigned at = 0;

	if (!w->n_flags)
		return false;
	for (unsigned i = 0; i < n; i++) {
		const struct proc_map *known = find_in(w->flags, w->n_flags, &at, &maps[i]);

		if (!known)
			return false;
		maps[i].advice = known->advice;
		maps[i].pkey = known->pkey;
		maps[i].has_flags = known->has_flags;
	}
	return true;
}

static int verify(struct dumper *d, const struct watched *w, const struct map_list *maps,
		  struct err *err)
{
	struct arena *a = arena_new();
	struct proc_map *now;
	unsigned n, at = 0;
	int rc = 0;

	if (!a)
		return err_nomem(err);
	if (read_smaps(w, a, &now, &n, NULL) < 0) /* ended meanwhile */
		n = 0;
	for (unsigned i = 0; rc == 0 && i < maps->n; i++) {
		const struct proc_map *m = &maps->maps[i], *later = find_in(now, n, &at, m);

		if (!later || (!((later->advice ^ m->advice) & ~IGNORED) && later->pkey == m->pkey))
			continue;
		d->job->careful = CAREFUL_CHECKPOINTS;
		rc = err_set(err, -EAGAIN,
			     "pid %d: the advice for its memory at %#llx changed during the "
			     "checkpoint",
			     w->pid, (unsigned long long)m->start);
	}
	arena_free(a);
	return rc;
}

int flags_verify(struct dumper *d, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < d->cap.n_subjects; i++)
		for (unsigned j = 0; rc == 0 && d->maps[i].flags_from && j < d->job->n_watched; j++)
			if (d->job->watched[j] == d->maps[i].flags_from)
				rc = verify(d, d->job->watched[j], &d->maps[i], err);
	return rc;
}
