/* SPDX-License-Identifier: BSD-2-Clause */
/* Everything that can be said before anything is created: what is missing here is named at once. */
#include "restore/internal.h"

#include "proc/elf.h"
#include "proc/probe.h"
#include "util/cleanup.h"
#include "util/ending.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ENDING_TRIES 500 /* 10 ms apart */

static int check_host(const struct restoring *r, struct err *err)
{
	const struct host *was = &r->tree->host;
	struct host now = { 0 };
	int rc = proc_host_read(r->arena, &now, err);

	if (rc < 0)
		return rc;
	if (was->machine && now.machine && strcmp(was->machine, now.machine))
		return err_image(err, -EOPNOTSUPP, "the image was made on %s, this machine is %s",
				 was->machine, now.machine);
	if (was->xfeatures & ~now.xfeatures) {
		err_image(err, -EOPNOTSUPP,
			  "this CPU lacks features that the job may use (state components %#llx, "
			  "here %#llx)",
			  (unsigned long long)was->xfeatures, (unsigned long long)now.xfeatures);
		return err_hint(err, "the image was made on: %s",
				was->cpu_model ? was->cpu_model : "unknown");
	}
	return 0;
}

static int check_mapped_file(const struct restoring *r, const struct process *p,
			     const struct vma *v, struct err *err)
{
	const char *path = rebuild_path(&r->rb, v->path);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct blob id = { 0 };
	int64_t mtime;
	struct stat st;

	if ((fd >= 0 ? fstat(fd, &st) : stat(path, &st)) < 0) {
		err_set(err, -errno, "pid %d: cannot find the mapped file '%s': %m", p->pid, path);
		return err_hint(err, "--map OLD=NEW looks for it elsewhere");
	}
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL,
			       "pid %d: the mapped file '%s' is not a regular file any more",
			       p->pid, path);
	mtime = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	if ((v->flags & MAP_SHARED) && (uint64_t)st.st_size >= v->file_size)
		return 0;
	if ((uint64_t)st.st_size != v->file_size)
		return err_set(err, -EINVAL,
			       "pid %d: the mapped file '%s' has changed: %llu bytes, at the "
			       "checkpoint %llu",
			       p->pid, path, (unsigned long long)st.st_size,
			       (unsigned long long)v->file_size);
	if (v->build_id.len) {
		if (fd >= 0)
			proc_build_id(fd, r->arena, &id);
		if (id.len != v->build_id.len || memcmp(id.data, v->build_id.data, id.len))
			return err_set(err, -EINVAL,
				       "pid %d: the mapped file '%s' is another build than at the "
				       "checkpoint",
				       p->pid, path);
	} else if (mtime != v->file_mtime_ns) {
		return err_set(err, -EINVAL,
			       "pid %d: the mapped file '%s' was modified since the checkpoint",
			       p->pid, path);
	}
	return 0;
}

/* Files that have been found to be as they were: a tree's processes have the same ones mapped. The
 * newest are kept. */
struct checked {
	const struct vma *v[32];
	unsigned n;
};

static bool was_checked(const struct checked *c, const struct vma *v)
{
	for (unsigned i = 0; i < MIN(c->n, (unsigned)ARRAY_SIZE(c->v)); i++) {
		const struct vma *o = c->v[i];

		if (o->flags == v->flags && o->file_size == v->file_size &&
		    o->file_mtime_ns == v->file_mtime_ns && o->build_id.len == v->build_id.len &&
		    (!v->build_id.len ||
		     !memcmp(o->build_id.data, v->build_id.data, v->build_id.len)) &&
		    !strcmp(o->path, v->path))
			return true;
	}
	return false;
}

static int check_memory(const struct restoring *r, const struct process *p, struct checked *done,
			struct err *err)
{
	for (unsigned i = 0; i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];
		int rc;

		if (v->kind != VMA_FILE)
			continue;
		if (!v->path)
			return err_image(err, -EINVAL, "pid %d: a file mapping without a path",
					 p->pid);
		if (was_checked(done, v))
			continue;
		rc = check_mapped_file(r, p, v, err);
		if (rc < 0)
			return rc;
		done->v[done->n++ % ARRAY_SIZE(done->v)] = v;
	}
	return 0;
}

/* The first of the recorded ids that is in use here; 0: none. */
static pid_t taken_id(const struct restoring *r)
{
	const struct tree *t = r->tree;

	for (unsigned i = 0; i < t->n_processes; i++)
		for (unsigned j = 0; j < t->processes[i].n_threads; j++)
			if (kill(t->processes[i].threads[j].tid, 0) == 0 || errno == EPERM)
				return t->processes[i].threads[j].tid;
	for (unsigned i = 0; i < r->births.n; i++)
		if (r->births.v[i].pid && (kill(r->births.v[i].pid, 0) == 0 || errno == EPERM))
			return r->births.v[i].pid;
	return 0;
}

/* For how many looks more is it to be hoped that whoever has that id gives it back? Not a thread:
 * it has no say of its own. */
static unsigned patience(pid_t id)
{
	switch (ending_of(id, NULL)) {
	case ENDING_NOT:
		return 0;
	case ENDING_LEADER:
		return ENDING_LOOKS;
	default:
		return ENDING_TRIES;
	}
}

/* Of a job that was killed a moment ago there still are zombies, until somebody reaps them. */
static pid_t taken_for_good(const struct restoring *r)
{
	const struct timespec moment = { .tv_nsec = 10000000 };
	pid_t id = taken_id(r);

	for (unsigned i = 0; id && i < patience(id); i++) {
		(void)nanosleep(&moment, NULL);
		id = taken_id(r);
	}
	return id;
}

/* A namespace's init is process 1, so a job that was process 1 itself cannot have its id there. */
static bool is_init(const struct tree *t)
{
	return t->processes[0].pid == 1;
}

bool plan_namespace(struct restoring *r)
{
	if (!probe_get(PROBE_USERNS)->ok || is_init(r->tree))
		return false;
	r->pids = PIDS_NAMESPACE;
	r->own_userns = geteuid() != 0;
	return true;
}

static int take_new_pids(struct restoring *r)
{
	r->pids = PIDS_AUTO;
	r->rb.new_pids = true;
	return 0;
}

/* The job comes from a machine that gives out higher ids, and no namespace has them either. */
static int without_high_pids(struct restoring *r, int32_t highest, struct err *err)
{
	if (r->opts->pids == PIDS_AUTO) {
		restore_warn(r,
			     "the job gets new process ids (%d is above what this machine has, "
			     "sysctl kernel.pid_max); a program that remembers its own pid or "
			     "thread ids may notice",
			     highest);
		return take_new_pids(r);
	}
	err_set(err, -EINVAL, "process id %d is above what this machine has", highest);
	return err_hint(err, "raise it (sysctl kernel.pid_max); --pids new goes on without");
}

static int decide_pids(struct restoring *r, struct err *err)
{
	const struct probe_result *set_tid = probe_get(PROBE_SET_TID),
				  *userns = probe_get(PROBE_USERNS);
	int32_t highest = maker_highest_id(r->tree);
	enum pids_mode wish = r->opts->pids;
	pid_t taken = 0;

	if (wish == PIDS_NEW)
		return take_new_pids(r);
	if (highest >= proc_pid_limit())
		return without_high_pids(r, highest, err);
	if (wish != PIDS_NAMESPACE && set_tid->ok) {
		taken = taken_for_good(r);
		if (!taken) {
			r->pids = PIDS_KEEP;
			return 0;
		}
	}
	if (wish == PIDS_KEEP) {
		if (taken) {
			err_set(err, -EEXIST, "process id %d is in use", taken);
			return err_hint(err, "--pids namespace restarts the job with its ids in a "
					     "new pid namespace");
		}
		err_set(err, -EPERM, "process ids cannot be chosen here: %s", set_tid->why);
		return err_hint(err, "run as root, give ckpt-restart cap_checkpoint_restore, or "
				     "use --pids namespace");
	}
	if (plan_namespace(r))
		return 0;
	if (wish == PIDS_NAMESPACE) {
		err_set(err, -EPERM, "no new pid namespace can be had here: %s",
			is_init(r->tree) ? "the job was process 1 of its own" : userns->why);
		return err_hint(err, "--pids auto goes on without");
	}
	(void)take_new_pids(r);
	restore_warn(r,
		     "the job gets new process ids (%s%s); a program that remembers its own pid or "
		     "thread ids may notice",
		     taken ? "the old ones are in use; " : "", userns->why);
	return 0;
}

/* What comes back in another way than it was. */
static void say_what_is_lost(const struct restoring *r)
{
	for (unsigned i = 0; i < r->tree->n_files; i++) {
		const struct file *f = &r->tree->files[i];
		const struct file_inotify *d = f->detail;

		if (file_has_grown(&r->rb, f))
			restore_warn(r, "%s: '%s' has grown since the checkpoint",
				     rebuild_file_owner(&r->rb, f), f->path);
		if (f->kind == FILE_INOTIFY && d && d->unread)
			restore_warn(r,
				     "%s: inotify events that were unread are lost; the program is "
				     "told so (IN_Q_OVERFLOW)",
				     rebuild_file_owner(&r->rb, f));
	}
}

int plan_check(struct restoring *r, struct err *err)
{
	struct checked done = { .n = 0 };
	int rc;

	rc = births_plan(r->tree, r->arena, &r->births, err);
	if (rc == 0)
		rc = check_host(r, err);
	if (rc == 0) /* first: who lacks its rights cannot have its files either */
		rc = attrs_check(&r->rb, err);
	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++)
		rc = check_memory(r, &r->tree->processes[i], &done, err);
	if (rc == 0)
		rc = files_check(&r->rb, err);
	if (rc == 0)
		rc = decide_pids(r, err);
	if (rc == 0)
		say_what_is_lost(r);
	return rc;
}

static int by_start(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int own_ranges(struct arena *a, struct range **ret, unsigned *ret_n, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_map *maps;
	int rc;

	rc = proc_open_pid(getpid(), &dirfd, err);
	if (rc == 0)
		rc = proc_maps_read(dirfd, false, a, &maps, ret_n, err);
	if (rc < 0)
		return rc;
	*ret = arena_array(a, *ret_n, sizeof **ret);
	for (unsigned i = 0; *ret && i < *ret_n; i++)
		(*ret)[i] = (struct range){ maps[i].start, maps[i].end };
	return *ret ? 0 : err_nomem(err);
}

/* The first hole of WORKSPACE_BYTES, well away from both ends, that nobody uses: not the image, nor
 * we ourselves, nor others that share this memory. */
static int find_workspace(const struct restoring *r, unsigned index, const struct range *own,
			  unsigned n, struct workspace *ret, struct err *err)
{
	const struct build_process *memory = r->procs[index].memory;
	const struct process *p = memory->state;
	CLEANUP_FREE struct range *used = malloc((n + p->n_vmas + index + 1) * sizeof *used);
	uint64_t at = 0x10000000;
	unsigned k = n;

	if (!used)
		return err_nomem(err);
	memcpy(used, own, n * sizeof *used);
	for (unsigned i = 0; i < p->n_vmas; i++)
		used[k++] = (struct range){ p->vmas[i].start, p->vmas[i].end };
	for (unsigned i = 0; i < index; i++)
		if (r->procs[i].memory == memory)
			used[k++] = (struct range){ r->procs[i].ws.start, r->procs[i].ws.end };
	qsort(used, k, sizeof *used, by_start);
	for (unsigned i = 0; i < k; i++) {
		/* a growing stack keeps its distance from what lies below it */
		if (used[i].start > at && used[i].start - at >= WORKSPACE_BYTES + (2u << 20))
			break;
		if (used[i].end > at)
			at = (used[i].end + (1u << 20)) & ~(uint64_t)0xfff;
	}
	if (at >= 0x7fffffffe000 - WORKSPACE_BYTES)
		return err_set(err, -ENOMEM, "pid %d: no room in its address space for %u KiB",
			       p->pid, WORKSPACE_BYTES / 1024);
	*ret = (struct workspace){ .start = at,
				   .end = at + WORKSPACE_BYTES,
				   .stub = at,
				   .arena = at + 0x10000,
				   .stack = at + 0x10000 +
					    ((build_arena_bytes() + 0xfff) & ~(uint64_t)0xfff) +
					    0x20000,
				   .scratch = at + 0x100000 };
	return 0;
}

int plan_workspaces(struct restoring *r, struct err *err)
{
	struct range *own;
	unsigned n;
	int rc = own_ranges(r->arena, &own, &n, err);

	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++)
		rc = find_workspace(r, i, own, n, &r->procs[i].ws, err);
	return rc;
}

static uint64_t signals_in(const struct pending_signal *list, unsigned n)
{
	uint64_t set = 0;

	for (unsigned i = 0; i < n; i++)
		set |= 1ULL << ((list[i].siginfo.data[0] - 1) & 63);
	return set;
}

/* Signals that are pending, or that a timer or descriptor may send while the tree is being rebuilt.
 */
static uint64_t signals_expected(const struct tree *t)
{
	uint64_t set = 1ULL << (SIGALRM - 1) | 1ULL << (SIGVTALRM - 1) | 1ULL << (SIGPROF - 1);

	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *p = &t->processes[i];

		set |= signals_in(p->pending, p->n_pending);
		for (unsigned j = 0; j < p->n_threads; j++)
			set |= signals_in(p->threads[j].pending, p->threads[j].n_pending);
		for (unsigned j = 0; j < p->n_timers; j++)
			set |= 1ULL << ((p->timers[j].signo - 1) & 63);
	}
	for (unsigned i = 0; i < t->n_files; i++)
		if (t->files[i].owner_pid)
			set |= 1ULL << (SIGIO - 1) | 1ULL << ((t->files[i].owner_sig - 1) & 63);
	return set;
}

/* A signal with which threads can tell us that they have run their calls: nothing else sends it
 * meanwhile. */
int plan_marker_signal(const struct tree *t)
{
	static const int candidates[] = { SIGURG, SIGWINCH, SIGIO, SIGPWR, SIGUSR1, SIGUSR2 };
	uint64_t taken = signals_expected(t);

	/* real-time signals last: they can hit the limit on queued signals */
	for (size_t i = 0; i < ARRAY_SIZE(candidates); i++)
		if (!(taken & 1ULL << (candidates[i] - 1)))
			return candidates[i];
	for (int sig = 64; sig > 33; sig--)
		if (!(taken & 1ULL << (sig - 1)))
			return sig;
	return SIGURG;
}
