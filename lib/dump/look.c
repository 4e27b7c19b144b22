/* SPDX-License-Identifier: BSD-2-Clause */
/* What /proc says of a stopped process, read by the tracer or ahead of it (dump/scout.h). */
#include "dump/internal.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* Linux 6.9 */
#endif
/* In one task: so many that the tracer never waits for long. */
#define LOOK_THREADS 16

/* Killed while stopped: its memory has gone already, or it has. */
static bool is_ending(int proc_dirfd, struct arena *a)
{
	struct proc_status st;
	bool ending = proc_status_read(proc_dirfd, a, &st, NULL) < 0 || !st.has_vm;

	errno = EACCES;
	return ending;
}

static int open_all(const struct whom *w, struct arena *a, struct sight *l, struct err *err)
{
	/* a thread that is alive: see proc_live_thread */
	pid_t pid = w->tids[0];
	bool ended = pid != w->pid;
	char path[64];
	int rc = proc_open_pid(pid, &l->proc_dirfd, err);

	if (rc < 0)
		return rc;
	l->pidfd = (int)syscall(SYS_pidfd_open, pid, ended ? PIDFD_THREAD : 0);
	if (l->pidfd < 0 && errno == EINVAL && ended) {
		err_set(err, -EOPNOTSUPP,
			"pid %d: its first thread has ended and others go on, so that its "
			"descriptors cannot be reached",
			w->pid);
		return err_hint(err, "Linux 6.9 can do that (PIDFD_THREAD)");
	}
	if (l->pidfd < 0)
		return err_set(err, -errno, "cannot open a pidfd for process %d: %m", pid);
	(void)snprintf(path, sizeof path, "/proc/%d/mem", pid);
	l->mem_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (l->mem_fd < 0 && (errno == EACCES || errno == EPERM) && is_ending(l->proc_dirfd, a))
		return err_set(err, -ESRCH, "process %d has ended", pid);
	if (l->mem_fd < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	return 0;
}

int look_open(const struct whom *w, struct arena *a, struct sight *l, struct err *err)
{
	int rc;

	*l = (struct sight){ .proc_dirfd = -1, .pidfd = -1, .mem_fd = -1 };
	rc = open_all(w, a, l, err);
	if (rc < 0)
		look_close(l);
	return rc;
}

void look_close(struct sight *l)
{
	if (l->proc_dirfd >= 0)
		(void)close(l->proc_dirfd);
	if (l->pidfd >= 0)
		(void)close(l->pidfd);
	if (l->mem_fd >= 0)
		(void)close(l->mem_fd);
	l->proc_dirfd = l->pidfd = l->mem_fd = -1;
}

static unsigned n_chunks(const struct whom *w)
{
	return (w->n + LOOK_THREADS - 1) / LOOK_THREADS;
}

/* The status of LOOK_THREADS threads at most. */
static int read_threads(const struct whom *w, unsigned chunk, int proc_dirfd, struct arena *a,
			struct proc_status **ret, struct err *err)
{
	unsigned first = chunk * LOOK_THREADS, n = MIN(w->n - first, (unsigned)LOOK_THREADS);
	struct proc_status *st = arena_array(a, n, sizeof *st);
	int rc = st ? 0 : err_nomem(err);

	for (unsigned i = 0; rc == 0 && i < n; i++) {
		rc = first + i == 0 ? proc_status_read(proc_dirfd, a, &st[i], err)
				    : proc_thread_status_read(proc_dirfd, w->tids[first + i], a,
							      &st[i], err);
		(void)sched_yield(); /* see do_task in scout.c */
	}
	if (rc == 0)
		*ret = st;
	return rc;
}

static int read_all(const struct whom *w, struct arena *a, struct sight *l, struct err *err)
{
	int rc = read_threads(w, 0, l->proc_dirfd, a, &l->threads, err);

	if (rc == 0)
		rc = proc_stat_read(l->proc_dirfd, &l->stat, err);
	if (rc == 0)
		rc = proc_maps_read(l->proc_dirfd, false, a, &l->maps, &l->n_maps, err);
	return rc;
}

static int look_at(const struct whom *w, struct arena *a, struct sight **ret, struct err *err)
{
	struct sight *l = arena_alloc(a, sizeof *l);
	int rc = l ? look_open(w, a, l, err) : err_nomem(err);

	if (rc < 0)
		return rc;
	rc = read_all(w, a, l, err);
	if (rc < 0) {
		look_close(l);
		return rc;
	}
	*ret = l;
	return 0;
}

/* --- what the scout does ----------------------------------------------------------------------
 */

static int scout_threads(const struct whom *w, unsigned chunk, struct arena *a, void **ret,
			 struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_status *st;
	int rc = proc_open_pid(w->tids[0], &dirfd, err);

	if (rc == 0)
		rc = read_threads(w, chunk, dirfd, a, &st, err);
	if (rc == 0)
		*ret = st;
	return rc;
}

static int scout_fds(const struct whom *w, struct arena *a, void **ret, struct err *err)
{
	struct fd_looks *l = arena_alloc(a, sizeof *l);
	CLEANUP_FD int dirfd = -1;
	int rc = l ? proc_open_pid(w->tids[0], &dirfd, err) : err_nomem(err);

	if (rc == 0)
		rc = fds_look(dirfd, a, l, err);
	if (rc == 0)
		*ret = l;
	return rc;
}

/* First all processes with their threads, then the descriptors of all. */
static int run(void *arg, unsigned i, struct arena *a, void **ret, struct err *err)
{
	const struct everybody *all = arg;
	const struct whom *w;
	struct sight *l;
	int rc;

	if (i >= all->n_looks)
		return scout_fds(&all->v[i - all->n_looks], a, ret, err);
	w = &all->v[all->whose[i]];
	if (i > w->task)
		return scout_threads(w, i - w->task, a, ret, err);
	rc = look_at(w, a, &l, err);
	if (rc == 0)
		*ret = l;
	return rc;
}

static void drop(void *arg, unsigned i, void *result)
{
	const struct everybody *all = arg;

	if (i < all->n_looks && all->v[all->whose[i]].task == i)
		look_close(result);
}

/* --- what the tracer gets ---------------------------------------------------------------------
 */

int look_list(struct dumper *d, struct err *err)
{
	const struct frozen *f = d->frozen;
	struct everybody *all = &d->everybody;

	all->n = f->n_procs;
	all->v = arena_array(d->arena, f->n_procs, sizeof *all->v);
	if (!all->v)
		return err_nomem(err);
	for (unsigned i = 0; i < f->n_procs; i++) {
		const struct frozen_process *fp = &f->procs[i];
		struct whom *w = &all->v[i];

		/* when a tracker is attached only this one will run calls for us */
		w->n = d->attaching ? 1 : fp->n_threads;
		w->pid = fp->pid;
		w->tids = arena_array(d->arena, w->n, sizeof *w->tids);
		w->status = arena_array(d->arena, n_chunks(w), sizeof(*w->status));
		if (!w->tids || !w->status)
			return err_nomem(err);
		for (unsigned j = 0; j < w->n; j++)
			w->tids[j] = fp->threads[j].tid;
		w->task = all->n_looks;
		for (unsigned j = 0; j < n_chunks(w); j++) {
			unsigned *slot =
				arena_push(d->arena, &all->whose, &all->n_looks, sizeof *slot);

			if (!slot)
				return err_nomem(err);
			*slot = i;
		}
	}
	return 0;
}

void look_ahead(struct dumper *d)
{
	scout_begin(d->scout, &(struct scout_work){ .n = d->everybody.n_looks + d->everybody.n,
						    .run = run,
						    .drop = drop,
						    .arg = &d->everybody,
						    .own = d->arena,
						    .apart = true });
}

int look_take(struct dumper *d, unsigned index, struct sight *ret, struct err *err)
{
	struct whom *w = &d->everybody.v[index];
	struct sight *l = scout_take(d->scout, w->task);
	int rc = l ? 0 : look_at(w, d->arena, &l, err);

	if (rc < 0)
		return rc;
	w->status[0] = l->threads;
	*ret = *l;
	return 0;
}

int look_thread(struct dumper *d, unsigned index, unsigned i, const struct proc_status **ret,
		struct err *err)
{
	struct whom *w = &d->everybody.v[index];
	unsigned chunk = i / LOOK_THREADS;
	int rc = 0;

	if (!w->status[chunk])
		w->status[chunk] = scout_take(d->scout, w->task + chunk);
	if (!w->status[chunk])
		rc = read_threads(w, chunk, d->cap.subjects[index].proc_dirfd, d->arena,
				  &w->status[chunk], err);
	if (rc == 0)
		*ret = &w->status[chunk][i % LOOK_THREADS];
	return rc;
}

const struct fd_looks *look_take_fds(void *arg, unsigned index)
{
	struct dumper *d = arg;

	return scout_take(d->scout, d->everybody.n_looks + index);
}
