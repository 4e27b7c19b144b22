/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How the pages of the next checkpoint get out of the job with the least pause, from what the ones
 * so far have cost. Arithmetic only: dump/measure.c feeds it.
 */
#pragma once

#include "state/tree.h"

#include <stdbool.h>
#include <stdint.h>

/* What was measured of a job; what was not yet is 0, and a guess takes its place. The newest value
 * counts for half. Times are in microseconds. */
struct policy {
	double stop_us;    /* a stop without what is copied in it */
	double short_us;   /* a stop in which nothing is looked at (dump/stops.c) */
	double gather_us;  /* for each page copied while the job stands still, into memory; */
	double write_us;   /* when that is full, at the speed of compression and the disk */
	double ahead_us;   /* for each page copied ahead: read, compressed, written */
	double fork_us;    /* for each page of a forked process */
	double dirty_rate; /* pages that the job writes to for the first time in a microsecond, */
	double dirty_us;   /* seen in a time as short as this (0: not seen yet), */
	double dirty_most; /* and how many they become, when it writes to the same again; 0: all */
	/* while nearly all of its pages change between two checkpoints: */
	unsigned unwatched; /* full images still to be made before it is watched again */
	unsigned rest;      /* how many there were the last time */
};

/* What the next checkpoint has to deal with. */
struct policy_task {
	uint64_t present; /* pages of the job's own */
	uint64_t copy;    /* of these, to be copied */
	uint64_t shared;  /* pages besides that are read while it stands still in any case */
	unsigned processes;
	bool attached; /* watched already: no stop of its own is needed before copying ahead */
};

/*
 * Predicted pauses in microseconds: all stops of a checkpoint together; and what the job loses
 * besides, by faults at its first writes to pages that are being copied.
 */
struct policy_forecast {
	double stop, snapshot, precopy;
	double snapshot_faults, precopy_faults;
	uint64_t copy, left; /* pages to be copied; those that copying ahead leaves to the stop */
};

/* So many pages gather in memory while the job stands still (image/writer.h). */
#define POLICY_GATHER_PAGES 6144u
/* So few are copied at the stop in less than a millisecond. */
#define POLICY_FEW_PAGES  1024u
#define POLICY_MAX_ROUNDS 12u
/* So few are copied once more just before the stop: they find room in the writer's buffers. */
#define POLICY_LAST_PAGES 2048u
/* Each page of a job that was not watched is found and protected at the stop. */
#define POLICY_FIND_US 0.12
/* What watching costs a job of fewer pages is not worth a thought. */
#define POLICY_WATCH_ALWAYS 4096u

void policy_note(double *value, double measured);
/* pages were found written, us after they had been looked for before. */
void policy_note_dirty(struct policy *p, uint64_t pages, double us);

double policy_copy_us(const struct policy *p, uint64_t pages);
double policy_fork_us(const struct policy *p, uint64_t present, unsigned processes);
/* Does another round pay that has `pages` to copy, when the last had `before`? */
bool policy_another_round(unsigned round, uint64_t pages, uint64_t before);

void policy_forecast(const struct policy *p, const struct policy_task *t,
		     struct policy_forecast *ret);
/*
 * To watch a page costs the job a fault at its first write, which is lost where most pages are
 * written to before the next checkpoint anyway. policy_note_increment: an increment wrote so many
 * of the pages present. policy_watch: is the next image one that an increment may follow?
 * policy_note_unwatched: it has been made, and was none.
 */
void policy_note_increment(struct policy *p, uint64_t written, uint64_t present);
bool policy_watch(const struct policy *p);
void policy_note_unwatched(struct policy *p);

/*
 * Faults count for a part of what a pause does: nobody waits for them. And a mode that costs the
 * job more beside the pause (precopy: what is written meanwhile is copied
 * again, three pages for four at most in each round; snapshot: a copy at the first write to each
 * page) must be clearly better than one that costs less. can: which may be chosen, bits
 * 1 << MODE_SNAPSHOT and 1 << MODE_PRECOPY.
 */
enum copy_mode policy_choose(const struct policy_forecast *f, unsigned can);
/* Of a process while the job stands still: fork it, rather than copy its `pages` after `before`
 * others? */
bool policy_fork_pays(const struct policy *p, uint64_t present, uint64_t pages, uint64_t before);
