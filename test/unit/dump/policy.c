/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The choice of modes against simulated jobs: each has its own prices and writes to its memory in
 * its own way, of which the policy learns only what a checkpoint in the mode that it chose would
 * have shown. Soon what each costs, its pause and half of its faults, must be near the least that
 * any mode would have given.
 */
#include "dump/policy.h"

#include "../check.h"

#include "util/cleanup.h"

#define MIB      256.0 /* in pages */
#define PROBE_US 2000

struct job {
	double present, working_set, rate; /* pages, and how many in a microsecond */
	double stop, brief, gather, write, ahead, fork;
};

/* About what this was written on: a GiB is copied in 0.5 s, and forked in 20 ms. */
static const struct job usual = {
	.stop = 3000, .brief = 300, .gather = 1.0, .write = 2.0, .ahead = 2.5, .fork = 0.08
};

static double dirty(const struct job *j, double us)
{
	return MIN(MIN(j->rate * us, j->working_set), j->present);
}

static double copying(const struct job *j, double pages)
{
	double gather = MIN(pages, (double)POLICY_GATHER_PAGES);

	return gather * j->gather + (pages - gather) * j->write;
}

/* What is left after all rounds; *ret_brief: their short stops, and half of the faults at 0.9 us.
 * Learns what they show. */
static double ahead(const struct job *j, double pages, double *ret_brief, struct policy *learn)
{
	double before, time, faults = 0;
	unsigned n = 0;

	do {
		before = pages;
		time = pages * j->ahead;
		pages = dirty(j, time);
		faults += pages * 0.9;
		if (learn) {
			policy_note(&learn->ahead_us, time / before);
			policy_note(&learn->short_us, j->brief);
			policy_note_dirty(learn, (uint64_t)pages, time);
		}
		n++;
	} while (policy_another_round(n, (uint64_t)pages, (uint64_t)before));
	*ret_brief = n * j->brief + faults / 2;
	return pages;
}

static double cost_of(const struct job *j, enum copy_mode mode, double copy, struct policy *learn)
{
	double fork = 300 + j->present * j->fork, brief, left;

	switch (mode) {
	case MODE_SNAPSHOT:
		if (learn)
			policy_note(&learn->fork_us, j->fork);
		return j->stop + fork + dirty(j, copy * j->ahead) * 1.6 / 2;
	case MODE_PRECOPY:
		left = ahead(j, copy, &brief, learn);
		if (copying(j, left) < fork)
			return j->stop + brief + copying(j, left);
		return j->stop + brief + fork + dirty(j, left * j->ahead) * 1.6 / 2;
	default:
		if (learn)
			policy_note(&learn->gather_us, j->gather);
		if (learn && copy > POLICY_GATHER_PAGES)
			policy_note(&learn->write_us, j->write);
		return j->stop + copying(j, copy);
	}
}

/* One checkpoint; the mode that was chosen. *ret_over: how much dearer than the best it was. */
static enum copy_mode take(const struct job *j, double copy, struct policy *p, double *ret_over)
{
	struct policy_task t = { .present = (uint64_t)j->present,
				 .copy = (uint64_t)copy,
				 .processes = 1,
				 .attached = true };
	double best = cost_of(j, MODE_STOP, copy, NULL);
	struct policy_forecast f;
	enum copy_mode mode;

	policy_note_dirty(p, (uint64_t)dirty(j, PROBE_US), PROBE_US);
	policy_forecast(p, &t, &f);
	mode = policy_choose(&f, 1u << MODE_SNAPSHOT | 1u << MODE_PRECOPY);
	best = MIN(best, cost_of(j, MODE_SNAPSHOT, copy, NULL));
	best = MIN(best, cost_of(j, MODE_PRECOPY, copy, NULL));
	*ret_over = cost_of(j, mode, copy, p) - best;
	policy_note(&p->stop_us, j->stop);
	return mode;
}

/* n checkpoints, by the last of which the mode and its pause are right. */
static void settle(const char *what, const struct job *j, double copy, unsigned n,
		   enum copy_mode want, struct policy *p)
{
	enum copy_mode mode = MODE_AUTO;
	double over = 0;

	for (unsigned i = 0; i < n; i++)
		mode = take(j, copy, p, &over);
	if (mode == want && over <= 1500)
		return;
	fprintf(stderr, "%s: mode %d instead of %d, %.0f us dearer than the best\n", what, mode,
		want, over);
	exit(1);
}

static void test_small(void)
{
	struct policy p = { 0 };
	struct job j = usual;

	/* 5 MiB: copied in the time of a second stop, also when it is all new */
	j.present = j.working_set = 5 * MIB;
	settle("small, at first", &j, j.present, 1, MODE_STOP, &p);
	settle("small", &j, j.present, 3, MODE_STOP, &p);
	j.rate = 1;
	settle("small, busy", &j, j.present, 3, MODE_STOP, &p);
}

static void test_calm(void)
{
	struct policy p = { 0 };
	struct job j = usual;

	j.present = j.working_set = 1024 * MIB;
	j.rate = 0.025; /* 100 MB/s */
	settle("a GiB, at first", &j, j.present, 1, MODE_PRECOPY, &p);
	settle("a GiB", &j, j.present, 5, MODE_PRECOPY, &p);
	settle("an increment of 0.2 %", &j, j.present / 500, 2, MODE_STOP, &p);
	settle("an increment of 10 %", &j, j.present / 10, 2, MODE_PRECOPY, &p);
	/* a working set that it goes through all the time */
	j.rate = 2;
	j.working_set = 3 * MIB;
	settle("a small working set", &j, j.present, 4, MODE_PRECOPY, &p);
}

static void test_busy(void)
{
	struct policy p = { 0 };
	struct job j = usual;

	j.present = j.working_set = 1024 * MIB;
	j.rate = 2; /* all within 130 ms: no round leaves less than the last */
	settle("rewritten all the time", &j, j.present, 3, MODE_SNAPSHOT, &p);
	/* page tables so dear that copying is not dearer */
	j.fork = 4;
	settle("a dear fork", &j, j.present, 3, MODE_STOP, &p);
}

static void test_grows(void)
{
	struct policy p = { 0 };
	struct job j = usual;
	enum copy_mode last = MODE_STOP;
	double over;

	j.rate = 0.01;
	for (j.present = 1 * MIB; j.present < 16384 * MIB; j.present *= 1.5) {
		enum copy_mode mode;

		j.working_set = j.present;
		mode = take(&j, j.present, &p, &over);
		CHECK(over <= 1500);
		CHECK(mode >= last);
		last = mode;
	}
	CHECK(last == MODE_PRECOPY);
	j.present = j.working_set = 1 * MIB;
	settle("shrunk again", &j, j.present, 1, MODE_STOP, &p);
}

static void test_changes(void)
{
	struct policy p = { 0 };
	struct job calm = usual, busy = usual;

	calm.present = calm.working_set = busy.present = busy.working_set = 512 * MIB;
	calm.rate = 0.001;
	busy.rate = 3;
	for (int i = 0; i < 5; i++) {
		settle("calm", &calm, calm.present, 4, MODE_PRECOPY, &p);
		settle("busy", &busy, busy.present, 4, MODE_SNAPSHOT, &p);
	}
	/* the disk becomes slower, so that rounds take long */
	calm.rate = 0.1;
	settle("a fast disk", &calm, calm.present, 6, MODE_PRECOPY, &p);
	calm.ahead = calm.write = 30;
	settle("a slow disk", &calm, calm.present, 4, MODE_SNAPSHOT, &p);
}

/* A job that writes all of its memory between two checkpoints is left alone for a while, longer
 * each time; one that does not is watched. */
static void test_watch(void)
{
	struct policy p = { 0 };
	unsigned rests[4];

	policy_note_increment(&p, 1000, 1000); /* small */
	policy_note_increment(&p, 70000, 100000);
	CHECK(policy_watch(&p));
	for (size_t i = 0; i < 4; i++) {
		policy_note_increment(&p, 90000, 100000);
		for (rests[i] = 0; !policy_watch(&p); rests[i]++)
			policy_note_unwatched(&p);
	}
	CHECK(rests[0] == 3 && rests[1] > rests[0] && rests[2] > rests[1] && rests[3] == rests[2]);
	policy_note_increment(&p, 100, 100000);
	policy_note_increment(&p, 90000, 100000);
	for (rests[0] = 0; !policy_watch(&p); rests[0]++)
		policy_note_unwatched(&p);
	CHECK(rests[0] == 3);
}

/* The pause is not all: what a job loses by faults counts as well. */
static void test_faults(void)
{
	const struct policy_forecast f = { .stop = 100000,
					   .snapshot = 8000,
					   .snapshot_faults = 30000,
					   .precopy = 10000,
					   .precopy_faults = 5000,
					   .copy = 1000,
					   .left = 10 };

	CHECK(policy_choose(&f, 1u << MODE_SNAPSHOT | 1u << MODE_PRECOPY) == MODE_PRECOPY);
}

/* Where one is not possible, the best of the others. */
static void test_possible(void)
{
	const struct policy_forecast f = {
		.stop = 100000, .snapshot = 20000, .precopy = 5000, .copy = 1000, .left = 10
	};
	const struct policy_forecast close = {
		.stop = 10000, .snapshot = 9500, .precopy = 9200, .copy = 1000, .left = 10
	};

	CHECK(policy_choose(&f, 1u << MODE_SNAPSHOT | 1u << MODE_PRECOPY) == MODE_PRECOPY);
	CHECK(policy_choose(&f, 1u << MODE_SNAPSHOT) == MODE_SNAPSHOT);
	CHECK(policy_choose(&f, 0) == MODE_STOP);
	CHECK(policy_choose(&close, 1u << MODE_SNAPSHOT | 1u << MODE_PRECOPY) == MODE_STOP);
}

static void test_forks(void)
{
	struct policy p = { 0 };

	CHECK(!policy_fork_pays(&p, 500, 500, 0));
	CHECK(policy_fork_pays(&p, 100000, 100000, 0));
	CHECK(!policy_fork_pays(&p, 1000000, 5000, 0));
	/* what is copied already fills the buffers: the same pages take longer */
	CHECK(!policy_fork_pays(&p, 5000, 1000, 0) && policy_fork_pays(&p, 5000, 1000, 10000));
	p.gather_us = 100;
	CHECK(policy_fork_pays(&p, 5000, 1000, 0));
}

/* Copying all of a huge job, with any measure however wrong, ends in a number. */
static void test_extremes(void)
{
	const double odd[] = { 0, 1e-9, 1, 1e12 };

	for (size_t i = 0; i < 4 * 4 * 4; i++) {
		struct policy p = { .ahead_us = odd[i % 4], .stop_us = odd[i / 4 % 4] };
		struct policy_task t = { .present = UINT64_C(1) << 40, .copy = UINT64_C(1) << 40 };
		struct policy_forecast f;

		policy_note_dirty(&p, UINT64_C(1) << 40, odd[i / 16]);
		policy_forecast(&p, &t, &f);
		CHECK(f.stop >= 0 && f.precopy >= 0 && f.left <= t.present);
		policy_note_dirty(&p, 0, 1e9);
		policy_forecast(&p, &t, &f);
		CHECK(f.left <= t.present);
	}
}

int main(void)
{
	test_small();
	test_calm();
	test_busy();
	test_grows();
	test_changes();
	test_watch();
	test_faults();
	test_possible();
	test_forks();
	test_extremes();
	return 0;
}
