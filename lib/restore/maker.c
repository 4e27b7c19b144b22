/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the maker does itself, as ordinary C in a fork of ckpt-restart, before its memory is
 * replaced: everything that needs paths and libraries. It opens the job's files and the files
 * behind mappings, high up out of the way, and maps the workspace from which it is driven from then
 * on. Then it stops for good: its tracer takes over.
 */
#include "restore/internal.h"

#include "util/cleanup.h"
#include "util/fault.h"

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

int maker_share(struct restoring *r, struct err *err)
{
	const struct process *p = &r->tree->processes[0];

	r->rb.fd_base = choose_base(r);
	r->rb.file_fds = shared_ints(r->tree->n_files);
	r->rb.space_fds = shared_ints(r->tree->n_spaces);
	r->map_fds.by_vma = shared_ints(p->n_vmas + 1);
	if (!r->rb.file_fds || !r->rb.space_fds || !r->map_fds.by_vma)
		return err_nomem(err);
	return 0;
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

/* Our own descriptors (images, the chain's lock, ...) are not the job's business. */
static int drop_descriptors(struct restoring *r, int *control, struct err *err)
{
	struct rlimit lim;
	int base = r->rb.fd_base, high;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
	high = fcntl(*control, F_DUPFD_CLOEXEC, base);
	if (high < 0)
		return err_set(err, -errno, "cannot use descriptor %d (open-files limit): %m",
			       base);
	for (int fd = 0; fd < base; fd++)
		if (!is_inherited(r, fd))
			(void)close(fd);
	if (high > base)
		(void)syscall(SYS_close_range, base, high - 1, 0);
	(void)syscall(SYS_close_range, high + 1, ~0U, 0);
	*control = high;
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

static int fd_of_space(const struct restoring *r, uint32_t space)
{
	for (unsigned i = 0; i < r->tree->n_spaces; i++)
		if (r->tree->spaces[i].id == space)
			return r->rb.space_fds[i];
	return -1;
}

static int open_for_vma(struct restoring *r, const struct process *p, const struct vma *v,
			struct err *err)
{
	const char *path;
	int fd;

	if (v->kind == VMA_SHM) {
		fd = fd_of_space(r, v->shm_space);
		if (fd < 0)
			return err_image(err, -EINVAL,
					 "pid %d: no content for the mapping at %#llx", p->pid,
					 (unsigned long long)v->start);
		return (v->advice & ADVICE_MAYWRITE) || !(v->flags & MAP_SHARED)
			       ? fd
			       : reopen_readonly(r, fd, err);
	}
	path = rebuild_path(&r->rb, v->path);
	return open_lifted(
		r, path,
		(v->flags & MAP_SHARED) && (v->advice & ADVICE_MAYWRITE) ? O_RDWR : O_RDONLY, err);
}

/* Descriptors for mappings: one for each file as long as the same one is mapped in a row. */
static int open_mapped(struct restoring *r, struct err *err)
{
	const struct process *p = &r->tree->processes[0];
	int *by_vma = r->map_fds.by_vma;
	int last = -1;

	for (unsigned i = 0; i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i], *w = last >= 0 ? &p->vmas[last] : NULL;

		if (v->kind != VMA_FILE && v->kind != VMA_SHM)
			continue;
		if (w && w->kind == VMA_FILE && v->kind == VMA_FILE && w->flags == v->flags &&
		    !strcmp(w->path, v->path) &&
		    (w->advice & ADVICE_MAYWRITE) == (v->advice & ADVICE_MAYWRITE))
			by_vma[i] = by_vma[last];
		else
			by_vma[i] = open_for_vma(r, p, v, err);
		if (by_vma[i] < 0)
			return err_wrap(err, by_vma[i], "pid %d: mapping at %#llx", p->pid,
					(unsigned long long)v->start);
		last = (int)i;
	}
	/* the slot after the last: /proc/PID/exe */
	if (p->exe)
		by_vma[p->n_vmas] = open_lifted(r, rebuild_path(&r->rb, p->exe), O_RDONLY, NULL);
	return 0;
}

static int map_workspace(const struct workspace *ws, struct err *err)
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
	struct maker_message m = { .kind = MAKER_READY };
	char go;
	int rc;

	rc = drop_descriptors(r, &control, &m.err);
	if (rc == 0 && recv(control, &go, 1, 0) != 1)
		_exit(1);
	if (rc == 0)
		rc = files_open(&r->rb, &m.err);
	if (rc == 0)
		rc = open_mapped(r, &m.err);
	if (rc == 0)
		rc = map_workspace(&r->proc.ws, &m.err);
	if (rc == 0)
		rc = fault_point("restore-made", &m.err);
	if (rc < 0) {
		m.kind = MAKER_ERROR;
		m.err.code = rc;
	}
	(void)send(control, &m, sizeof m, MSG_NOSIGNAL);
	if (rc < 0)
		_exit(1);
	/* what is meant for the job lies at fd_base and above */
	(void)syscall(SYS_close_range, 0, r->rb.fd_base - 1, 0);
	(void)close(control);
	for (;;)
		(void)raise(SIGSTOP);
}
