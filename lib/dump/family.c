/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What processes are to each other: which have ended and are waited for, which sessions and groups
 * are the job's own, and what they share by clone(2). kcmp(2) orders what it compares, so that a
 * sort finds those that share. Where it is forbidden (a container's seccomp filter) shared memory
 * is refused (process.c), and all others count as forked, which hardly any program's are not.
 */
#include "dump/internal.h"

#include "proc/probe.h"
#include "state/births.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/idmap.h"
#include "util/log.h"

#include <linux/kcmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define LOG_ROOM "dump"

/* --- what they share ---------------------------------------------------------------------------
 */

struct comparison {
	struct dumper *d;
	int type; /* KCMP_* */
	int error;
};

static int compare(struct comparison *c, unsigned a, unsigned b)
{
	long rc = 0;

	if (a != b && !c->error)
		rc = syscall(SYS_kcmp, c->d->frozen->procs[a].threads[0].tid,
			     c->d->frozen->procs[b].threads[0].tid, c->type, 0, 0);
	if (rc < 0)
		c->error = -errno;
	return rc == 1 ? -1 : rc == 2 ? 1 : 0;
}

static int by_table(const void *pa, const void *pb, void *arg)
{
	unsigned a = *(const unsigned *)pa, b = *(const unsigned *)pb;
	int rc = compare(arg, a, b);

	return rc ? rc : (a > b) - (a < b);
}

/* ret[i]: the first in the list that i shares the thing with; itself if it is alone. */
static int find_sharers(struct dumper *d, int type, unsigned *order, unsigned *ret)
{
	struct comparison c = { .d = d, .type = type };
	unsigned n = d->frozen->n_procs;

	for (unsigned i = 0; i < n; i++)
		order[i] = ret[i] = i;
	if (n > 1)
		qsort_r(order, n, sizeof *order, by_table, &c);
	for (unsigned i = 1; i < n && !c.error; i++)
		if (compare(&c, order[i - 1], order[i]) == 0)
			ret[order[i]] = ret[order[i - 1]];
	for (unsigned i = 0; c.error && i < n; i++)
		ret[i] = i;
	return c.error;
}

static bool is_denied(int rc)
{
	return rc == -EPERM || rc == -ENOSYS || rc == -EACCES;
}

int family_find_memory(struct dumper *d, struct err *err)
{
	unsigned *order = arena_array(d->arena, d->frozen->n_procs, sizeof *order);
	int rc;

	if (!order)
		return err_nomem(err);
	rc = find_sharers(d, KCMP_VM, order, d->memory_of);
	if (probe_without("kcmp")) {
		for (unsigned i = 0; i < d->frozen->n_procs; i++)
			d->memory_of[i] = i;
		rc = -EPERM;
	}
	d->memory_unknown = is_denied(rc);
	if (d->memory_unknown)
		log_debug("kcmp is not allowed: all descriptor tables count as forked");
	else if (rc < 0)
		return err_set(err, rc, "cannot compare processes: %m");
	return 0;
}

static int32_t *sharer_of(struct process *p, int type)
{
	return type == KCMP_FILES ? &p->files_of : type == KCMP_FS ? &p->fs_of : &p->sighand_of;
}

static bool any_guests(const struct dumper *d)
{
	for (unsigned i = 0; i < d->cap.n_subjects; i++)
		if (process_is_guest(d, i))
			return true;
	return false;
}

static int find_shared(struct dumper *d, struct err *err)
{
	static const int types[] = { KCMP_FILES, KCMP_FS, KCMP_SIGHAND };
	unsigned n = d->cap.n_subjects;
	unsigned *order = arena_array(d->arena, n, sizeof *order);
	unsigned *with = arena_array(d->arena, n, sizeof *with);

	if (!order || !with)
		return err_nomem(err);
	for (size_t k = 0; k < ARRAY_SIZE(types); k++) {
		int rc;

		/* who shares handlers shares memory too */
		if (d->memory_unknown || (types[k] == KCMP_SIGHAND && !any_guests(d)))
			continue;
		rc = find_sharers(d, types[k], order, with);
		if (rc < 0)
			return err_set(err, rc, "cannot compare processes: %m");
		for (unsigned i = 0; i < n; i++)
			if (with[i] != i)
				*sharer_of(&d->tree->processes[i], types[k]) =
					d->tree->processes[with[i]].pid;
	}
	return 0;
}

/* --- the ended ---------------------------------------------------------------------------------
 */

static int capture_zombie(struct dumper *d, const struct frozen_zombie *fz, struct err *err)
{
	struct zombie *z = arena_push(d->arena, &d->tree->zombies, &d->tree->n_zombies, sizeof *z);
	CLEANUP_FD int dirfd = -1;
	struct proc_status status;
	struct proc_stat stat;
	int rc;

	if (!z)
		return err_nomem(err);
	rc = proc_open_pid(fz->pid, &dirfd, err);
	if (rc == 0)
		rc = proc_status_read(dirfd, d->arena, &status, err);
	if (rc == 0)
		rc = proc_stat_read(dirfd, &stat, err);
	if (rc == 0)
		*z = (struct zombie){ .pid = status.ns_tgid,
				      .ppid = d->tree->processes[fz->parent].pid,
				      .pgid = status.ns_pgid,
				      .sid = status.ns_sid,
				      .status = stat.exit_code,
				      .exit_signal = stat.exit_signal,
				      .comm = status.name };
	return rc;
}

/* A stop signal that a process need not obey. */
static bool is_terminals(int sig)
{
	return sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

/* Asks the parent, without taking it, whether there is something to be waited for. */
static int look_at_child(struct dumper *d, unsigned index, int what, siginfo_t *ret,
			 struct err *err)
{
	const struct subject *parent = &d->cap.subjects[d->frozen->procs[index].parent];
	struct batch *b = parent->batch;
	uint64_t info;
	int rc;

	batch_start(b);
	info = batch_out(b, sizeof *ret);
	(void)batch_call(b, "look at a child", SYS_waitid, P_PID, d->tree->processes[index].pid,
			 info, what | WNOHANG | WNOWAIT | __WALL, 0);
	rc = batch_run(b, parent->pid, err);
	if (rc == 0)
		memcpy(ret, batch_result(b, info), sizeof *ret);
	return rc;
}

static int look_at_stop(struct dumper *d, unsigned index, struct err *err)
{
	struct process *p = &d->tree->processes[index];
	int parent = d->frozen->procs[index].parent, rc = 0;
	siginfo_t si;

	if (parent < 0)
		return 0;
	if (p->stopped) {
		rc = look_at_child(d, index, WSTOPPED, &si, err);
		p->stop_seen = rc == 0 && si.si_pid == 0;
		if (rc == 0 && !p->stop_seen && is_terminals(si.si_status))
			p->stopped = (uint32_t)si.si_status;
	} else if (d->cap.subjects[parent].has_continued) {
		rc = look_at_child(d, index, WCONTINUED, &si, err);
		p->continued = rc == 0 && si.si_pid != 0;
	}
	return rc;
}

/* --- sessions and groups -----------------------------------------------------------------------
 */

/* Is there a process of this id, which is not of the job? */
static bool is_outside(const struct idmap *job, pid_t id)
{
	return id > 0 && !idmap_get(job, id, NULL) && (kill(id, 0) == 0 || errno == EPERM);
}

/* Ids of groups and sessions that somebody outside leads mean nothing to a restart: 0. */
static void clear_outside(struct dumper *d, const struct idmap *job)
{
	for (unsigned i = 1; i < d->tree->n_processes; i++) {
		struct process *p = &d->tree->processes[i];
		const struct proc_stat *st = &d->cap.subjects[i].stat;

		if (p->sid != d->tree->processes[0].sid && is_outside(job, st->session))
			p->sid = 0;
		if (p->pgid != d->tree->processes[0].pgid && is_outside(job, st->pgrp))
			p->pgid = 0;
	}
}

static int find_sessions(struct dumper *d, struct err *err)
{
	struct idmap job = { 0 };
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < d->frozen->n_procs; i++)
		rc = idmap_put(&job, d->frozen->procs[i].pid, i);
	for (unsigned i = 0; rc == 0 && i < d->frozen->n_zombies; i++)
		rc = idmap_put(&job, d->frozen->zombies[i].pid, i);
	if (rc == 0)
		clear_outside(d, &job);
	idmap_fini(&job);
	return rc < 0 ? err_nomem(err) : 0;
}

int family_capture(struct dumper *d, struct err *err)
{
	struct births births;
	bool adopts = false;
	int rc = 0;

	for (unsigned i = 0; i < d->tree->n_processes; i++)
		adopts |= d->tree->processes[i].child_subreaper != 0;
	if (adopts)
		rc = freeze_check(&d->freeze, d->frozen, err);
	for (unsigned i = 0; rc == 0 && i < d->frozen->n_zombies; i++)
		rc = capture_zombie(d, &d->frozen->zombies[i], err);
	for (unsigned i = 0; rc == 0 && i < d->tree->n_processes; i++)
		rc = look_at_stop(d, i, err);
	if (rc == 0 && d->tree->n_processes > 1)
		rc = find_sessions(d, err);
	if (rc == 0)
		rc = find_shared(d, err);
	if (rc == 0)
		rc = births_plan(d->tree, d->arena, &births, err);
	return rc < 0 ? rc : fault_point("dump-family", err);
}
