/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What only a thread itself can say: each but the first is sent through the stub once, which puts
 * its answers into the arena. As many as there are slots run at a time, on other CPUs, while we
 * see to something else.
 */
#include "inject/engine.h"
#include "trace/outlive.h"
#include "util/cleanup.h"
#include "util/fault.h"

int live_write_slots(struct remote *r, unsigned slot, const struct live_thread *threads, unsigned n,
		     struct err *err)
{
	struct stub_slot s[STUB_MAX_SLOTS];

	for (unsigned i = 0; i < n; i++)
		engine_slot(r, &(struct engine_thread){ threads[i].tid, threads[i].ns_tid },
			    threads[i].regs, &s[i]);
	r->stopped = threads[0].tid;
	return engine_write(r, engine_slot_address(r, slot), s, n * sizeof s[0], err);
}

/* Of a thread that is out as the i-th of several. */
static uint64_t answers_of(const struct remote *r, unsigned i)
{
	return r->arena + ARENA_DATA_OFFSET + i * sizeof(struct stub_answers);
}

static int prepare(struct remote *r, unsigned slot, unsigned i, struct err *err)
{
	const struct live_thread *t = &r->others[r->asked + i];
	struct engine_thread et = { .tid = t->tid, .ns_tid = t->ns_tid };
	struct user_regs_struct gp = t->regs->gp;

	gp.r12 = r->arena;
	gp.r13 = answers_of(r, i);
	gp.r14 = r->lent;
	gp.rip = r->stub + STUB_OFFSET(stub_thread);
	return engine_prepare(r, &et, slot, &gp, err);
}

static int set_open(struct remote *r, uint64_t value, struct err *err)
{
	return engine_write(r, r->stub + STUB_OFFSET(stub_open), &value, sizeof value, err);
}

/* The count first: see stub.S. */
static int open_to(struct remote *r, int64_t n, struct err *err)
{
	int rc = engine_write(r, r->arena + offsetof(struct arena_head, others), &n, sizeof n, err);

	return rc == 0 ? set_open(r, 1, err) : rc;
}

/* Where there is but one slot the first thread lends it to the others, with the arena. */
static int lend(struct remote *r, struct err *err)
{
	r->lent = true;
	return live_give_back(r, &r->leader, err);
}

/* Threads that have not run on. */
static void call_off(struct remote *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		(void)live_give_back(r, &r->others[r->asked + i], NULL);
}

static int send_out(struct remote *r, unsigned n, struct err *err)
{
	int rc = 0;

	for (; rc == 0 && n > 0; n--) {
		const struct live_thread *t = &r->others[r->asked];
		struct engine_thread et = { .tid = t->tid, .ns_tid = t->ns_tid };

		rc = engine_continue(r, &et, err);
		if (rc < 0)
			break;
		r->asked++;
	}
	call_off(r, n);
	return rc;
}

int ask_some(struct remote *r, struct err *err)
{
	unsigned first = r->n_slots > 1, n = MIN(r->n_others - r->asked, r->n_slots - first);
	unsigned prepared = 0;
	int rc = 0;

	if (outlive_orphaned())
		return err_set(err, -ECANCELED, "ckpt-run has been killed");
	if (!first && !r->lent)
		rc = lend(r, err);
	else if (first && r->asked)
		rc = set_open(r, 0, err);
	if (rc == 0)
		rc = live_write_slots(r, first, &r->others[r->asked], n, err);
	while (rc == 0 && prepared < n) {
		rc = prepare(r, first + prepared, prepared, err);
		prepared++;
	}
	if (rc == 0)
		rc = fault_point("inject-asking", err);
	if (rc == 0 && first)
		rc = open_to(r, n, err);
	if (rc < 0)
		call_off(r, prepared);
	else
		rc = send_out(r, n, err);
	return rc < 0 ? rc : fault_point("inject-asked", err);
}

/* Its slot is its own again, and it stands where it does after a batch. */
int ask_done(struct remote *r, struct err *err)
{
	struct user_regs_struct gp = r->base;
	int rc;

	if (!r->lent)
		return 0;
	rc = live_write_slots(r, 0, &r->leader, 1, err);
	if (rc < 0)
		return rc;
	r->lent = false;
	gp.rip = r->stub + STUB_OFFSET(stub_marker_batch);
	gp.r13 = r->arena;
	return engine_prepare(r, &r->threads[0], 0, &gp, err);
}

int ask_take_back(struct remote *r, struct err *err)
{
	int rc = 0;

	for (; r->answered < r->asked; r->answered++) {
		const struct live_thread *t = &r->others[r->answered];
		struct engine_thread et = { .tid = t->tid, .ns_tid = t->ns_tid };
		struct user_regs_struct gp;
		int one, back;

		one = engine_finish(r, &et, &gp, STUB_OFFSET(stub_marker_thread),
				    rc < 0 ? NULL : err);
		rc = rc < 0 ? rc : one;
		back = live_give_back(r, t, rc < 0 ? NULL : err);
		r->in_arena |= back < 0;
		rc = rc < 0 ? rc : back;
		if (rc == 0)
			rc = fault_point("inject-thread", err);
	}
	return rc;
}

int ask_read(struct remote *r, unsigned first, struct thread_facts *facts, struct err *err)
{
	struct stub_answers a[STUB_MAX_SLOTS];
	unsigned n = r->answered - first;
	int rc = engine_read(r, answers_of(r, 0), a, n * sizeof a[0], err);

	for (unsigned i = 0; rc == 0 && i < n; i++)
		facts[first + i] = (struct thread_facts){
			.altstack_sp = a[i].altstack_sp,
			.altstack_flags = a[i].altstack_flags,
			.altstack_size = a[i].altstack_size,
			.clear_child_tid = a[i].clear_child_tid,
			.timer_slack_ns = a[i].timer_slack_ns,
			.parent_death_signal = a[i].parent_death_signal,
			.personality = (uint32_t)a[i].personality,
		};
	return rc;
}
