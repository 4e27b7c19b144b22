/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For what a job must not be seen doing, even where all that traces it is killed: its threads are
 * given registers with which they would wait, each by itself, until the thread that does it is
 * done, and then load their own. While we live they do not run at all.
 *
 * They wait for a set of System V semaphores to be removed: that needs no memory or descriptor in
 * common, so it holds whole trees, and a removal wakes all. A thread that runs batches waits as the
 * last of what it undoes. The others have slots in a mapping of their own. Nobody who heals could
 * give that back, since others may still be in it: where ckpt-run and its tracer are killed at
 * once, it stays.
 */
#include "inject/engine.h"
#include "inject/live.h"
#include "util/fault.h"

#include <sys/syscall.h>

static size_t hold_bytes(const struct remote *r)
{
	return r->n_others * sizeof(struct stub_slot);
}

static uint64_t slot_of(const struct remote *r, unsigned i)
{
	return r->hold + i * sizeof(struct stub_slot);
}

static int hold_one(struct remote *r, unsigned i, int semaphores, struct err *err)
{
	const struct live_thread *t = &r->others[i];
	const struct engine_thread et = { .tid = t->tid, .ns_tid = t->ns_tid };
	struct user_regs_struct gp = t->regs->gp;
	struct stub_slot slot;
	int rc;

	engine_slot(r, &et, t->regs, &slot);
	rc = engine_write(r, slot_of(r, i), &slot, sizeof slot, err);
	if (rc < 0)
		return rc;
	gp.rip = r->stub + STUB_OFFSET(stub_hold);
	gp.rbp = slot_of(r, i);
	gp.r12 = (uint64_t)semaphores;
	gp.orig_rax = (uint64_t)-1;
	/* Registers first: from here on the thread heals itself, its mask included. */
	rc = regs_set_gp(t->tid, &gp, err);
	if (rc == 0) {
		r->n_held = i + 1;
		rc = regs_set_mask(t->tid, ~0ULL, err);
	}
	return rc;
}

int live_hold(struct remote *r, int semaphores, bool runs, struct err *err)
{
	const struct stub_call wait = {
		.nr = SYS_semtimedop,
		.arg = { (uint64_t)semaphores, r->stub + STUB_OFFSET(stub_wait), 1,
			 r->stub + STUB_OFFSET(stub_patience) },
	};
	int rc = 0;

	if (r->n_others && !r->hold) {
		int64_t at = live_map(r, hold_bytes(r), err);

		if (at < 0)
			return (int)at;
		r->hold = (uint64_t)at;
	}
	for (unsigned i = 0; rc == 0 && i < r->n_others; i++)
		rc = hold_one(r, i, semaphores, err);
	if (rc == 0 && !runs) {
		rc = engine_undo_push(r, &wait, err);
		r->waits = rc == 0;
	}
	return rc < 0 ? rc : fault_point("inject-held", err);
}

int hold_forget(struct remote *r, struct err *err)
{
	const struct stub_call unmap = { .nr = SYS_munmap, .arg = { r->hold, hold_bytes(r) } };

	return r->hold && !r->left_inside ? engine_undo_push(r, &unmap, err) : 0;
}

int live_release(struct remote *r, struct err *err)
{
	int rc = 0;

	if (r->waits)
		rc = engine_undo_pop(r, err);
	r->waits = false;
	for (; r->n_held; r->n_held--) {
		int one = live_give_back(r, &r->others[r->n_held - 1], rc < 0 ? NULL : err);

		rc = rc < 0 ? rc : one;
	}
	if (rc == 0 && r->hold && live_unmap(r, r->hold, hold_bytes(r), NULL) == 0)
		r->hold = 0; /* else live_end has another way */
	return rc;
}
