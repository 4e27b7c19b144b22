/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who belongs to the tree: the root, the children of everybody who does, and orphans. A process
 * whose parent ends becomes a child of the nearest ancestor that is a subreaper (prctl(2)), at last
 * of the one that looks after the job.
 */
#include "trace/kin.h"

#include "proc/proc.h"
#include "util/cleanup.h"

#include <stdlib.h>

static int add(struct kin *k, pid_t pid, int parent, struct err *err)
{
	struct frozen *f = k->f;
	struct frozen_process *more = f->procs;

	if (!f->n_procs || !(f->n_procs & (f->n_procs - 1)))
		more = realloc(more, (f->n_procs ? f->n_procs * 2 : 1) * sizeof *more);
	if (!more)
		return err_nomem(err);
	f->procs = more;
	if (idmap_put(&k->known, pid, f->n_procs) < 0)
		return err_nomem(err);
	f->procs[f->n_procs++] = (struct frozen_process){ .pid = pid, .parent = parent };
	return 0;
}

/* Is it the init of a pid namespace below ours? Then whatever it has below it is of the job. */
static bool is_inner_init(pid_t pid, struct arena *scratch)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_status st;

	return proc_open_pid(pid, &dirfd, NULL) == 0 &&
	       proc_status_read(dirfd, scratch, &st, NULL) == 0 && st.ns_depth > 1 &&
	       st.ns_pid == 1;
}

static void find_reaper(struct kin *k)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;

	if (proc_open_pid(k->o->root, &dirfd, NULL) < 0 || proc_stat_read(dirfd, &st, NULL) < 0 ||
	    st.ppid <= 0)
		return;
	if (k->o->adopted || is_inner_init(st.ppid, k->scratch))
		k->reaper = st.ppid;
}

int kin_begin(struct kin *k, const struct freeze_opts *o, struct frozen *f, struct arena *scratch,
	      struct err *err)
{
	int rc;

	*k = (struct kin){ .o = o, .f = f, .scratch = scratch };
	find_reaper(k);
	rc = add(k, o->root, -1, err);
	for (unsigned i = 0; rc == 0 && i < o->n_also; i++)
		if (!idmap_get(&k->known, o->also[i], NULL))
			rc = add(k, o->also[i], -1, err);
	return rc;
}

void kin_end(struct kin *k)
{
	idmap_fini(&k->known);
}

static bool ignored(const struct kin *k, pid_t pid)
{
	for (unsigned i = 0; i < k->o->n_ignore; i++)
		if (k->o->ignore[i] == pid)
			return true;
	return pid == getpid();
}

static int add_new(struct kin *k, const struct pid_list *children, int parent, struct err *err)
{
	int found = 0;

	for (unsigned i = 0; i < children->n; i++) {
		pid_t pid = children->pids[i];
		int rc;

		if (idmap_get(&k->known, pid, NULL) || ignored(k, pid))
			continue;
		rc = add(k, pid, parent, err);
		if (rc < 0)
			return rc;
		found++;
	}
	return found;
}

/* ret_any: it has some, new or not. */
static int add_children(struct kin *k, pid_t pid, int parent, bool *ret_any, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	struct pid_list l;
	int rc;

	rc = proc_open_pid(pid, &dirfd, err);
	if (rc == 0)
		rc = proc_children(dirfd, k->scratch, &l.pids, &l.n, err);
	if (rc < 0)
		return rc;
	*ret_any = l.n > 0;
	return add_new(k, &l, parent, err);
}

int kin_seen(struct kin *k, unsigned parent, const struct pid_list *children, struct err *err)
{
	k->f->procs[parent].has_children |= children->n > 0;
	return add_new(k, children, (int)parent, err);
}

int kin_children(struct kin *k, unsigned parent, struct err *err)
{
	bool any = false;
	int rc = add_children(k, k->f->procs[parent].pid, (int)parent, &any, err);

	k->f->procs[parent].has_children |= any;
	return rc;
}

int kin_again(struct kin *k, struct err *err)
{
	unsigned n = k->f->n_procs;
	int found = 0, rc;
	bool any;

	/*
	 * Whoever adopts an orphan is an ancestor of it: the child through which it is one was
	 * there, or had been adopted before, and what is stopped makes no children. So who had none
	 * has none.
	 */
	for (unsigned i = 0; n > 1 && i < n; i++) {
		if (!k->f->procs[i].n_threads || !k->f->procs[i].has_children)
			continue;
		rc = kin_children(k, i, err);
		if (rc < 0)
			return rc;
		found += rc;
	}
	rc = k->reaper ? add_children(k, k->reaper, -1, &any, err) : 0;
	return rc < 0 ? rc : found + rc;
}

static int add_zombie(struct frozen *f, const struct frozen_process *p, struct err *err)
{
	struct frozen_zombie *more = f->zombies;

	if (!f->n_zombies || !(f->n_zombies & (f->n_zombies - 1)))
		more = realloc(more, (f->n_zombies ? f->n_zombies * 2 : 1) * sizeof *more);
	if (!more)
		return err_nomem(err);
	f->zombies = more;
	more[f->n_zombies++] = (struct frozen_zombie){ .pid = p->pid, .parent = p->parent };
	return 0;
}

static bool is_zombie(pid_t pid)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;

	return proc_open_pid(pid, &dirfd, NULL) == 0 && proc_stat_read(dirfd, &st, NULL) == 0 &&
	       st.state == 'Z';
}

int kin_sort_out(struct kin *k, struct err *err)
{
	struct frozen *f = k->f;
	unsigned *now_at, n = 0;

	if (!f->n_procs || !f->procs[0].n_threads)
		return 0; /* the root has gone: there is nothing to sort */
	now_at = arena_array(k->scratch, f->n_procs, sizeof *now_at);
	if (!now_at)
		return err_nomem(err);
	for (unsigned i = 0; i < f->n_procs; i++) {
		struct frozen_process *p = &f->procs[i];

		if (p->parent >= 0)
			p->parent = (int)now_at[p->parent];
		if (p->n_threads) {
			struct frozen_process keep = *p;

			*p = (struct frozen_process){ 0 };
			now_at[i] = n;
			f->procs[n++] = keep;
			continue;
		}
		free(p->threads);
		p->threads = NULL;
		/* an orphan's is for whoever looks after the job, who takes it without a look */
		if (p->parent >= 0 && is_zombie(p->pid) && add_zombie(f, p, err) < 0)
			return -ENOMEM;
	}
	f->n_procs = n;
	return 0;
}

int freeze_check(const struct freeze_opts *o, const struct frozen *f, struct err *err)
{
	struct frozen copy = { 0 };
	struct kin k = { .o = o, .f = &copy };
	bool any;
	int rc = 0;

	k.scratch = arena_new();
	if (!k.scratch)
		return err_nomem(err);
	find_reaper(&k);
	for (unsigned i = 0; rc == 0 && i < f->n_procs; i++)
		rc = idmap_put(&k.known, f->procs[i].pid, i);
	for (unsigned i = 0; rc == 0 && i < f->n_zombies; i++)
		rc = idmap_put(&k.known, f->zombies[i].pid, i);
	if (rc < 0)
		err_nomem(err);
	for (unsigned i = 0; rc == 0 && i < f->n_procs; i++)
		rc = add_children(&k, f->procs[i].pid, (int)i, &any, err);
	if (rc > 0)
		rc = err_set(err, -EAGAIN, "process %d came to the job while it was being stopped",
			     copy.procs[0].pid);
	free(copy.procs);
	kin_end(&k);
	arena_free(k.scratch);
	return rc;
}
