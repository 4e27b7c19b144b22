/* SPDX-License-Identifier: BSD-2-Clause */
/* A remote made of a process that is being rebuilt. */
#include "inject/build.h"

#include "inject/engine.h"
#include "trace/regs.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The second is a companion's. */
#define BUILD_SLOTS 2

size_t build_arena_bytes(void)
{
	return ARENA_BYTES;
}

size_t build_stub_bytes(void)
{
	return STUB_BYTES(BUILD_SLOTS);
}

void build_stub_copy(void *p)
{
	memcpy(p, stub_begin, STUB_BYTES(1)); /* the other slot is written whole */
}

int build_remote_new(pid_t pid, pid_t ns_pid, uint64_t stub, uint64_t arena, uint64_t stack,
		     int marker_sig, struct remote **ret, struct err *err)
{
	struct remote *r = calloc(1, sizeof *r);
	struct thread_regs regs;
	char path[64];
	int rc;

	if (!r)
		return err_nomem(err);
	*r = (struct remote){ .pid = pid,
			      .ns_pid = ns_pid,
			      .mem_fd = -1,
			      .stub = stub,
			      .arena = arena,
			      .n_slots = BUILD_SLOTS,
			      .marker_sig = marker_sig };
	(void)snprintf(path, sizeof path, "/proc/%d/mem", pid);
	r->mem_fd = open(path, O_RDWR | O_CLOEXEC);
	if (r->mem_fd < 0)
		rc = err_set(err, -errno, "cannot open '%s': %m", path);
	else
		rc = regs_get(pid, &regs, err);
	if (rc == 0)
		rc = build_remote_add_thread(r, pid, ns_pid, err);
	if (rc < 0) {
		build_remote_free(r);
		return rc;
	}
	r->base = regs.gp;
	r->base.rsp = stack;
	r->base.eflags = 0x202;
	r->base.fs_base = r->base.gs_base = 0;
	*ret = r;
	return 0;
}

int build_remote_add_thread(struct remote *r, pid_t tid, pid_t ns_tid, struct err *err)
{
	struct engine_thread *more = realloc(r->threads, (r->n_threads + 1) * sizeof *more);

	if (!more)
		return err_nomem(err);
	r->threads = more;
	r->threads[r->n_threads++] = (struct engine_thread){ .tid = tid, .ns_tid = ns_tid };
	return 0;
}

void build_remote_free(struct remote *r)
{
	if (!r)
		return;
	if (r->mem_fd >= 0)
		(void)close(r->mem_fd);
	free(r->threads);
	free(r);
}

int build_remote_mem(const struct remote *r)
{
	return r->mem_fd;
}
