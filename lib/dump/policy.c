/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Three prices. Copying while the job stands still: each page, at the speed of memory until the
 * buffers are full, then at the disk's. A snapshot: the copying of page tables. Copying ahead: what
 * the job writes to while the last round is read, and the short stops of the rounds.
 *
 * How much a job writes in a time t: its rate times t, but no more than its working set; both come
 * from looking at it twice within a short time (dump/precopy.c).
 */
#include "dump/policy.h"

#include "util/cleanup.h"

/* Guesses, until there is something measured (Linux 6.18, a small virtual machine). */
#define STOP_US         2500
#define EACH_PROCESS_US 800
#define SHORT_US        400
#define GATHER_US       1.0
#define WRITE_US        2.5
#define AHEAD_US        3.0
#define FORK_US         0.08
#define FORK_EACH_US    300
#define DIRTY_RATE      0.025 /* 100 MB/s */
/* A first write to a page under watch; to one that a snapshot has as well, or had: it is copied
 * (2.2) while it still has it, which is half of the time. */
#define FAULT_US 0.9
#define COW_US   1.6
/* Of what a pause of that length does. */
#define FAULTS_COUNT 0.5
/* Images without a watch, at first and at most: then it is tried again. */
#define FIRST_REST 3
#define LAST_REST  15
/* From the last look at the running job to the stop. */
#define LAST_LOOK_US 500

void policy_note(double *value, double measured)
{
	*value = *value > 0 ? *value / 2 + measured / 2 : measured;
}

/* Over a long time the same pages are written to again, and the rate would look too low. */
void policy_note_dirty(struct policy *p, uint64_t pages, double us)
{
	double n = (double)pages, t = MAX(us, 1.0);

	if (p->dirty_us > 0 && t > 4 * p->dirty_us && n < p->dirty_rate * t / 2) {
		p->dirty_most = MAX(n, 1.0);
		return;
	}
	p->dirty_rate = p->dirty_us > 0 ? p->dirty_rate / 2 + n / t / 2 : n / t;
	p->dirty_us = t;
	if (n > p->dirty_most)
		p->dirty_most = 0;
}

void policy_note_increment(struct policy *p, uint64_t written, uint64_t present)
{
	if (present < POLICY_WATCH_ALWAYS || written < present / 4 * 3) {
		p->rest = 0;
		return;
	}
	p->rest = MIN(p->rest * 2 + FIRST_REST, LAST_REST);
	p->unwatched = p->rest;
}

bool policy_watch(const struct policy *p)
{
	return !p->unwatched;
}

void policy_note_unwatched(struct policy *p)
{
	if (p->unwatched)
		p->unwatched--;
}

static double known(double value, double guess)
{
	return value > 0 ? value : guess;
}

double policy_copy_us(const struct policy *p, uint64_t pages)
{
	uint64_t gather = MIN(pages, (uint64_t)POLICY_GATHER_PAGES);

	return (double)gather * known(p->gather_us, GATHER_US) +
	       (double)(pages - gather) * known(p->write_us, WRITE_US);
}

double policy_fork_us(const struct policy *p, uint64_t present, unsigned processes)
{
	return processes * (double)FORK_EACH_US + (double)present * known(p->fork_us, FORK_US);
}

bool policy_another_round(unsigned round, uint64_t pages, uint64_t before)
{
	return round < POLICY_MAX_ROUNDS && pages > POLICY_FEW_PAGES && pages <= before / 4 * 3;
}

/* Pages that the job writes to in us microseconds; it has no more than `present`. */
static uint64_t dirty_after(const struct policy *p, double us, uint64_t present)
{
	double n = us * (p->dirty_us > 0 ? p->dirty_rate : DIRTY_RATE);

	if (p->dirty_most > 0)
		n = MIN(n, p->dirty_most);
	return (uint64_t)MIN(n, (double)present);
}

/* All rounds, as dump/precopy.c goes through them, with the last one: the pages left, the short
 * stops, and the pages written to meanwhile. */
static uint64_t rounds(const struct policy *p, const struct policy_task *t, unsigned *ret_n,
		       double *ret_written)
{
	uint64_t pages = t->copy, before;
	unsigned n = 0;

	*ret_written = 0;

	do {
		before = pages;
		pages = dirty_after(p, (double)pages * known(p->ahead_us, AHEAD_US) + LAST_LOOK_US,
				    t->present);
		*ret_written += (double)pages;
		n++;
	} while (policy_another_round(n, pages, before));
	if (pages <= POLICY_LAST_PAGES) {
		pages = dirty_after(p, (double)pages * GATHER_US + LAST_LOOK_US, t->present);
		*ret_written += (double)pages;
		n++;
	}
	*ret_n = n;
	return MIN(pages, t->present);
}

/* What the job loses while `pages` are read from a snapshot. */
static double copied_on_write(const struct policy *p, uint64_t pages)
{
	return (double)dirty_after(p, (double)pages * known(p->ahead_us, AHEAD_US), pages) * COW_US;
}

void policy_forecast(const struct policy *p, const struct policy_task *t,
		     struct policy_forecast *ret)
{
	double stop =
		known(p->stop_us, STOP_US + (MAX(t->processes, 1u) - 1) * (double)EACH_PROCESS_US);
	double always = stop + policy_copy_us(p, t->shared);
	double find = t->attached ? 0 : (double)t->present * POLICY_FIND_US;
	double fork = policy_fork_us(p, t->present, t->processes), left, written;
	unsigned n;

	ret->copy = t->copy;
	ret->left = rounds(p, t, &n, &written);
	left = policy_copy_us(p, ret->left);
	ret->stop = always + find + policy_copy_us(p, t->copy);
	ret->snapshot = always + find + fork;
	ret->snapshot_faults = copied_on_write(p, t->copy);
	ret->precopy = always + (t->attached ? 0 : stop / 2) + n * known(p->short_us, SHORT_US) +
		       MIN(left, fork);
	ret->precopy_faults =
		written * FAULT_US + (left > fork ? copied_on_write(p, ret->left) : 0);
}

/* Less by a millisecond and a tenth. */
static bool clearly_less(double a, double b)
{
	return a + 1000 < b && a * 1.1 < b;
}

enum copy_mode policy_choose(const struct policy_forecast *f, unsigned can)
{
	double snapshot = f->snapshot + f->snapshot_faults * FAULTS_COUNT;
	double precopy = f->precopy + f->precopy_faults * FAULTS_COUNT;
	enum copy_mode best = MODE_STOP;
	double least = f->stop;

	/* copied for the most part once more, a page costs the job more than it saves */
	if ((can & 1u << MODE_PRECOPY) && f->left <= f->copy / 2 && clearly_less(precopy, least)) {
		best = MODE_PRECOPY;
		least = precopy;
	}
	if ((can & 1u << MODE_SNAPSHOT) && clearly_less(snapshot, least))
		best = MODE_SNAPSHOT;
	return best;
}

bool policy_fork_pays(const struct policy *p, uint64_t present, uint64_t pages, uint64_t before)
{
	double copy = policy_copy_us(p, before + pages) - policy_copy_us(p, before);

	return clearly_less(policy_fork_us(p, present, 1), copy);
}
