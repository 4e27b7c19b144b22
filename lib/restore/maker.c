/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the maker does itself, as ordinary C in a fork of ckpt-restart, before its memory is
 * replaced: everything that needs paths and libraries. It opens the job's files and the files
 * behind mappings, high up out of the way, for all processes; then it makes its children (birth.c).
 */
#include "restore/internal.h"
#include "filter/deny.h"

#include "util/cleanup.h"
#include "util/fault.h"
#include "util/hash.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int *shared_ints(size_t n)
{
	int *p = mmap(NULL, (n + 1) * sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	memset(p, 0xff, n * sizeof *p);
	return p;
}

/* Above every descriptor of the job and every one of the caller's that it may get. */
static int choose_base(const struct restoring *r)
{
	int base = 3;

	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		const struct process *p = &r->tree->processes[i];

		for (unsigned j = 0; j < p->n_fds; j++)
			base = MAX(base, p->fds[j].fd + 1);
	}
	for (unsigned i = 0; i < r->opts->rebuild.n_inherit; i++)
		base = MAX(base, r->opts->rebuild.inherit[i] + 1);
	return base;
}

int32_t maker_highest_id(const struct tree *t)
{
	int32_t id = LOWEST_ID;

	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *p = &t->processes[i];

		id = MAX(id, MAX(p->pgid, p->sid));
		for (unsigned j = 0; j < p->n_threads; j++)
			id = MAX(id, p->threads[j].tid);
	}
	for (unsigned i = 0; i < t->n_zombies; i++)
		id = MAX(id, MAX(t->zombies[i].pid, t->zombies[i].pgid));
	return id;
}

/* All of it is mapped once; a second attempt (in a namespace) starts with the same tables. */
int maker_share(struct restoring *r, struct err *err)
{
	const struct tree *t = r->tree;
	size_t n_fds = 0, n_nursery;
	int *fds;

	for (unsigned i = 0; i < t->n_processes; i++)
		n_fds += t->processes[i].n_vmas + 1;
	n_nursery = sizeof *r->nursery / sizeof(int) + r->births.n;
	if (n_fds > SIZE_MAX / 2 / sizeof(int))
		return err_nomem(err);
	r->rb.fd_base = choose_base(r);
	r->rb.file_fds = shared_ints(t->n_files);
	r->rb.space_fds = shared_ints(t->n_spaces);
	r->nursery = (struct nursery *)shared_ints(n_nursery);
	r->newborns = arena_array(r->arena, r->births.n, sizeof *r->newborns);
	fds = shared_ints(n_fds);
	r->core_dirs =
		(struct core_dir *)shared_ints(t->n_zombies * sizeof *r->core_dirs / sizeof(int));
	if (!r->rb.file_fds || !r->rb.space_fds || !r->nursery || !r->newborns || !r->core_dirs ||
	    !fds)
		return err_nomem(err);
	for (unsigned i = 0; i < t->n_zombies; i++)
		r->core_dirs[i].path[0] = '\0';
	r->nursery->opened = 0;
	r->nursery->next_id = maker_highest_id(t) + 1;
	r->pid_limit = proc_pid_limit();
	for (unsigned i = 0; i < t->n_processes; i++) {
		r->procs[i].map_fds = fds;
		fds += t->processes[i].n_vmas + 1;
	}
	return 0;
}

void maker_say(int control, enum maker_kind kind, int32_t birth, const struct err *err)
{
	struct maker_message m = { .kind = kind, .birth = birth };

	if (err)
		m.err = *err;
	(void)send(control, &m, err ? sizeof m : offsetof(struct maker_message, err), MSG_NOSIGNAL);
}

static bool is_inherited(const struct restoring *r, int fd)
{
	if (fd <= 2)
		return true;
	for (unsigned i = 0; i < r->opts->rebuild.n_inherit; i++)
		if (r->opts->rebuild.inherit[i] == fd)
			return true;
	return false;
}

static int lift(struct restoring *r, int *fd, struct err *err)
{
	int high = fcntl(*fd, F_DUPFD_CLOEXEC, r->rb.fd_base);

	if (high < 0)
		return err_set(err, -errno, "cannot use descriptor %d (open-files limit): %m",
			       r->rb.fd_base);
	*fd = high;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Our own descriptors (images, the chain's lock, ...) are not the job's business. */
static int drop_descriptors(struct restoring *r, struct err *err)
{
	int keep[GATES + 1], from = r->rb.fd_base, rc = 0;
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
	for (unsigned i = 0; rc == 0 && i < GATES; i++) {
		rc = lift(r, &r->gates[i][0], err);
		keep[i] = r->gates[i][0];
	}
	if (rc == 0)
		rc = lift(r, &r->control, err);
	if (rc < 0)
		return rc;
	keep[GATES] = r->control;
	for (int fd = 0; fd < r->rb.fd_base; fd++)
		if (!is_inherited(r, fd))
			(void)close(fd);
	qsort(keep, GATES + 1, sizeof keep[0], by_value);
	for (unsigned i = 0; i <= GATES; i++) {
		if (keep[i] > from)
			(void)syscall(SYS_close_range, from, keep[i] - 1, 0);
		from = keep[i] + 1;
	}
	(void)syscall(SYS_close_range, from, ~0U, 0);
	return 0;
}

static int open_lifted(struct restoring *r, const char *path, int flags, struct err *err)
{
	int fd = open(path, flags | O_CLOEXEC | O_NOCTTY), high;

	if (fd < 0 || fd >= r->rb.fd_base)
		return fd < 0 ? err_set(err, -errno, "cannot open '%s': %m", path) : fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, r->rb.fd_base);
	if (high < 0)
		err_set(err, -errno, "cannot use more descriptors (open-files limit): %m");
	(void)close(fd);
	return high;
}

/* A read-only description of a shared space, so that a mapping made from it can never be written
 * to: a sealed memfd refuses its seal while a mapping could be. */
static int reopen_readonly(struct restoring *r, int fd, struct err *err)
{
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return open_lifted(r, path, O_RDONLY, err);
}

/* --- files behind mappings ----------------------------------------------------------------------
 */

/* What is open already, for all processes together: most map the same libraries. */
struct opened {
	const char *path; /* NULL: a space */
	uint32_t space;
	bool writable;
	int fd; /* -1: a free slot */
};

struct opener {
	struct restoring *r;
	struct opened *table;
	size_t size; /* a power of two, more than twice the mappings */
};

static struct opened *slot_for(const struct opener *o, const struct opened *key)
{
	uint64_t at = key->path ? hash64(key->path, strlen(key->path)) : key->space * 7919u;

	for (at += key->writable;; at++) {
		struct opened *s = &o->table[at & (o->size - 1)];

		if (s->fd < 0 ||
		    (s->writable == key->writable && s->space == key->space &&
		     !s->path == !key->path && (!s->path || !strcmp(s->path, key->path))))
			return s;
	}
}

static int open_space(struct restoring *r, const struct opened *key, struct err *err)
{
	int i = -1, fd;

	for (unsigned k = 0; i < 0 && k < r->tree->n_spaces; k++)
		if (r->tree->spaces[k].id == key->space)
			i = (int)k;
	fd = i < 0 ? -1 : r->rb.space_fds[i];
	if (fd < 0)
		return err_image(err, -EINVAL, "there is no content for it");
	return key->writable ? fd : reopen_readonly(r, fd, err);
}

static int open_for_vma(struct opener *o, const struct process *p, const struct vma *v,
			struct err *err)
{
	bool shared = v->flags & MAP_SHARED, may_write = v->advice & ADVICE_MAYWRITE;
	struct opened key = { .fd = -1 }, *slot;

	if (v->kind == VMA_SHM) {
		key.space = v->shm_space;
		key.writable = may_write || !shared;
	} else {
		key.path = rebuild_path(&o->r->rb, v->path);
		key.writable = may_write && shared;
	}
	slot = slot_for(o, &key);
	if (slot->fd >= 0)
		return slot->fd;
	key.fd = key.path ? open_lifted(o->r, key.path, key.writable ? O_RDWR : O_RDONLY, err)
			  : open_space(o->r, &key, err);
	if (key.fd < 0)
		return err_wrap(err, key.fd, "pid %d: mapping at %#llx", p->pid,
				(unsigned long long)v->start);
	*slot = key;
	return key.fd;
}

/* /proc/PID/exe is nice to have. */
static int open_exe(struct opener *o, const struct process *p)
{
	struct opened key = { .path = p->exe ? rebuild_path(&o->r->rb, p->exe) : NULL, .fd = -1 };
	struct opened *slot;

	if (!key.path)
		return -1;
	slot = slot_for(o, &key);
	if (slot->fd < 0) {
		key.fd = open_lifted(o->r, key.path, O_RDONLY, NULL);
		*slot = key;
	}
	return slot->fd;
}

static int open_process(struct opener *o, const struct build_process *bp, struct err *err)
{
	const struct process *p = bp->state;

	for (unsigned i = 0; i < p->n_vmas; i++) {
		if (p->vmas[i].kind != VMA_FILE && p->vmas[i].kind != VMA_SHM)
			continue;
		bp->map_fds[i] = open_for_vma(o, p, &p->vmas[i], err);
		if (bp->map_fds[i] < 0)
			return bp->map_fds[i];
	}
	bp->map_fds[p->n_vmas] = open_exe(o, p);
	return 0;
}

static int open_mapped(struct restoring *r, struct err *err)
{
	struct opener o = { .r = r, .size = 64 };
	size_t n = 0;
	int rc = 0;

	for (unsigned i = 0; i < r->tree->n_processes; i++)
		n += r->tree->processes[i].n_vmas + 1;
	while (o.size < 2 * n)
		o.size *= 2;
	o.table = calloc(o.size, sizeof *o.table);
	if (!o.table)
		return err_nomem(err);
	for (size_t i = 0; i < o.size; i++)
		o.table[i].fd = -1;
	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++)
		rc = open_process(&o, &r->procs[i], err);
	free(o.table);
	return rc;
}

static void find_top(struct restoring *r)
{
	int top = r->control;

	for (unsigned i = 0; i < GATES; i++)
		top = MAX(top, r->gates[i][0]);
	for (unsigned i = 0; i < r->tree->n_files; i++)
		top = MAX(top, r->rb.file_fds[i]);
	for (unsigned i = 0; i < r->tree->n_processes; i++)
		for (unsigned k = 0; k <= r->tree->processes[i].n_vmas; k++)
			top = MAX(top, r->procs[i].map_fds[k]);
	r->top_fd = top + 1;
}

int maker_map_workspace(const struct workspace *ws, struct err *err)
{
	void *want = (void *)(uintptr_t)ws->start; /* NOLINT: an address is what it is */
	void *got = mmap(want, WORKSPACE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (got != want)
		return err_set(err, -errno, "cannot map a workspace at %p: %m", want);
	build_stub_copy((void *)(uintptr_t)ws->stub);
	if (mprotect((void *)(uintptr_t)ws->stub, CKPT_PAGE_SIZE, PROT_READ | PROT_EXEC) < 0)
		return err_set(err, -errno, "cannot make a page executable: %m");
	return 0;
}

_Noreturn void maker_main(struct restoring *r, int control)
{
	const struct sigaction chld = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP };
	struct err err = { 0 };
	int rc;

	r->control = control;
	/* Nobody's end may go unnoticed, nor be waited for by the kernel itself; but that a child
	 * is stopped (threads_stop) or continued again is nothing that its parent has not heard. */
	(void)sigaction(SIGCHLD, &chld, NULL);
	rc = drop_descriptors(r, &err);
	if (rc == 0)
		rc = files_open(&r->rb, &err);
	if (rc == 0)
		rc = open_mapped(r, &err);
	if (rc == 0)
		rc = fault_point("restore-made", &err);
	if (rc < 0) {
		err.code = rc;
		maker_say(r->control, MAKER_ERROR, 0, &err);
		_exit(1);
	}
	/* what is meant for the job lies at fd_base and above */
	(void)syscall(SYS_close_range, 0, r->rb.fd_base - 1, 0);
	find_top(r);
	/* everybody that is born has it from here */
	if (r->tree->settings.deny_io_uring)
		rc = deny_io_uring(&err);
	if (rc < 0) {
		maker_say(r->control, MAKER_ERROR, 0, &err);
		_exit(1);
	}
	birth_main(r, 0);
}
