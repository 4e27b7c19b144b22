/* SPDX-License-Identifier: BSD-2-Clause */
/* The vdso and its data pages: moved to where the job's pointers expect them. */
#include "restore/internal.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* The mappings [vvar], [vvar_vclock], [vdso] of a process, in address order. */
struct parts {
	struct part {
		const char *name;
		uint64_t start, len;
	} part[8];
	unsigned n;
};

static bool is_part(const char *name)
{
	return name && (!strcmp(name, "[vdso]") || !strncmp(name, "[vvar", 5));
}

static void add_part(struct parts *p, const char *name, uint64_t start, uint64_t end)
{
	if (p->n < ARRAY_SIZE(p->part))
		p->part[p->n++] = (struct part){ name, start, end - start };
}

static int find_ours(struct restoring *r, const struct build_process *bp, struct parts *ret,
		     struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_map *maps;
	unsigned n;
	int rc = proc_open_pid(bp->pid, &dirfd, err);

	if (rc == 0)
		rc = proc_maps_read(dirfd, false, r->arena, &maps, &n, err);
	for (unsigned i = 0; rc == 0 && i < n; i++)
		if (is_part(maps[i].path))
			add_part(ret, maps[i].path, maps[i].start, maps[i].end);
	return rc;
}

static bool same_shape(const struct parts *a, const struct parts *b)
{
	if (a->n != b->n)
		return false;
	for (unsigned i = 0; i < a->n; i++)
		if (strcmp(a->part[i].name, b->part[i].name) || a->part[i].len != b->part[i].len)
			return false;
	return true;
}

/* Is the recorded vdso the one that this kernel gives? */
static bool same_vdso(const struct host *host, const struct parts *ours)
{
	const void *image = (const void *)getauxval(AT_SYSINFO_EHDR);

	for (unsigned i = 0; image && i < ours->n; i++)
		if (!strcmp(ours->part[i].name, "[vdso]"))
			return host->vdso.len == ours->part[i].len &&
			       !memcmp(image, host->vdso.data, host->vdso.len);
	return false;
}

static void move(struct build_process *bp, uint64_t from, uint64_t len, uint64_t to)
{
	if (from != to)
		(void)batch_call(bp->batch, "move the vdso", SYS_mremap, from, len, len,
				 MREMAP_MAYMOVE | MREMAP_FIXED, to);
}

/* By way of the scratch area, since the old and the new place may overlap. */
static int move_all(struct build_process *bp, const struct parts *from, const struct parts *to,
		    struct err *err)
{
	uint64_t at = bp->ws.scratch;

	batch_start(bp->batch);
	(void)batch_call(bp->batch, "unmap memory", SYS_munmap, bp->ws.scratch,
			 bp->ws.end - bp->ws.scratch);
	for (unsigned i = 0; i < from->n; i++) {
		move(bp, from->part[i].start, from->part[i].len, at);
		at += from->part[i].len;
	}
	at = bp->ws.scratch;
	for (unsigned i = 0; i < from->n; i++) {
		move(bp, at, from->part[i].len, to->part[i].start);
		at += from->part[i].len;
	}
	return batch_run(bp->batch, bp->pid, err);
}

int vdso_move_ours(struct restoring *r, struct build_process *bp, uint64_t to, uint64_t *ret_vdso,
		   size_t *ret_len, struct err *err)
{
	struct parts ours = { 0 }, there;
	int rc = find_ours(r, bp, &ours, err);

	if (rc < 0)
		return rc;
	there = ours;
	for (unsigned i = 0; i < ours.n; i++) {
		there.part[i].start = to;
		to += ours.part[i].len;
		if (strcmp(ours.part[i].name, "[vdso]"))
			continue;
		*ret_vdso = there.part[i].start;
		*ret_len = ours.part[i].len;
	}
	return move_all(bp, &ours, &there, err);
}

/* CKPT_WITHOUT=same_vdso: as if another kernel had made the image (for tests). */
static bool pretend_other_kernel(void)
{
	const char *without = getenv("CKPT_WITHOUT");

	return without && strstr(without, "same_vdso");
}

int vdso_place(struct restoring *r, struct build_process *bp, struct err *err)
{
	struct parts ours = { 0 }, theirs = { 0 };
	int rc = find_ours(r, bp, &ours, err);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < bp->state->n_vmas; i++)
		if (bp->state->vmas[i].kind == VMA_VDSO && is_part(bp->state->vmas[i].path))
			add_part(&theirs, bp->state->vmas[i].path, bp->state->vmas[i].start,
				 bp->state->vmas[i].end);
	if (theirs.n == 0) {
		batch_start(bp->batch);
		for (unsigned i = 0; i < ours.n; i++)
			(void)batch_call(bp->batch, "unmap the vdso", SYS_munmap,
					 ours.part[i].start, ours.part[i].len);
		return batch_run(bp->batch, bp->pid, err);
	}
	if (!same_shape(&ours, &theirs) || !same_vdso(&r->tree->host, &ours) ||
	    pretend_other_kernel())
		return vdso_bridge(r, bp, err);
	return move_all(bp, &ours, &theirs, err);
}
