/* SPDX-License-Identifier: BSD-2-Clause */
/* Trackers: how pages that were written since the parent image are found without reading them. */
#pragma once

#include "inject/remote.h"
#include "proc/probe.h"
#include "proc/proc.h"
#include "util/err.h"
#include "util/ranges.h"

#include <stdbool.h>
#include <sys/types.h>

/* Pages of private memory that are there, ascending. */
struct page_runs {
	struct page_class_run *v;
	size_t n, room;
};

/* A page_run_fn: arg is a struct page_runs, whose v is the caller's to free. */
int page_runs_keep(void *arg, const struct page_class_run *run, struct err *err);

/*
 * What is known of one process's memory between checkpoints.
 *
 * What a tracker finds it forgets: the bits are reset by the looking. So it is kept here, as
 * `pending`, until an image that holds these pages is durable; an attempt that fails loses nothing.
 */
struct watched {
	pid_t pid; /* as seen from here, and when it was started: together they are unique */
	unsigned long long start_time;
	uint64_t layout;        /* of the program that it runs: another one after exec */
	int uffd;               /* uffd: ours, of this address space; -1: none */
	bool rests;             /* uffd: nothing has been protected since all was let go */
	bool cleared;           /* softdirty: the bits stand for "since the last find" */
	struct ranges ours;     /* uffd: registered mappings, as far as is remembered */
	struct ranges unproven; /* uffd: registered since, not looked at for marks (uffd_marks.c) */
	bool seen;              /* met in this attempt; else it has ended */
	bool all_pending;       /* nothing is known any more: any page may have been written */
	struct ranges pending;  /* addresses written since the last durable image; a superset */
	struct ranges huge;     /* huge pages as the program had them (mend.c); a subset */
	uint64_t huge_stack;    /* ... while this was its stack: another program after exec */
	/* of this attempt (dump/flags.c): its mappings with their flags, just before the stop */
	struct proc_map *flags; /* in the job's flags_arena */
	unsigned n_flags;
	/* of this attempt (dump/precopy.c): */
	uint32_t space;
	struct ranges given; /* addresses that the image holds a copy of, maybe an old one */
	struct ranges ahead; /* of these, those that have not been written since; a subset */
	struct ranges due;   /* pending but for what is in ahead; a superset */
	/* of its stop (dump/scan.c): what is there */
	struct page_runs there; /* PAGE_WATCHED, or nothing, is known of them */
	bool listed;            /* there is complete */
};

/* What a tracker works on. The maps are those of now; private memory in them is what it is about.
 */
struct track_target {
	struct watched *w;
	pid_t pid;
	int proc_dirfd, pagemap_fd;
	const struct proc_map *maps;
	unsigned n_maps;
	/* while it stands still only; else NULL: */
	struct batch *batch;
	int pidfd;
	/*
	 * And, once it has been looked at, what was seen, so that find need not look again; find
	 * marks as watched what it puts under watch. NULL: it looks itself.
	 */
	struct page_runs *runs;
	/* Nobody will ask what is written from now on: what has been is found, and not watched
	 * again. */
	bool last;
};

struct tracker {
	const char *name;
	enum probe_id probe; /* PROBE_COUNT: works everywhere */
	bool live;           /* find works on a running process: no write escapes it */
	bool soft;           /* marks are read the way of proc_pagemap_scan_marked(soft) */
	/*
	 * Adds what was written since the last find, and all that was not under watch, to
	 * w->pending and (where not NULL) to found, and watches it from now on. Memory that cannot
	 * be watched is no error: is_clean never says so of it.
	 */
	/* With the process stopped, what find needs to work on it running. */
	int (*attach)(const struct track_target *t, struct err *err);
	int (*find)(const struct track_target *t, struct ranges *found, struct err *err);
	/* After find: is a page with these marks under watch, so that w->pending tells of it? */
	bool (*is_watched)(const struct watched *w, uint32_t marks);
	/* Of the running process: all counts as written, and is no longer slowed down. NULL: it
	 * never is. */
	void (*rest)(struct watched *w);
	void (*forget)(struct watched *w);
};

/* By its name; "auto": the best one that works here. A name of one that does not work: as "auto".
 */
const struct tracker *tracker_choose(const char *name);
/* -EOPNOTSUPP, and why, when the tracker with this name does not work here. */
int tracker_check(const char *name, struct err *err);

/* find, and what it means for copies that were taken ahead. */
int track_find(const struct tracker *tracker, const struct track_target *t, struct ranges *found,
	       struct err *err);

/* Private memory whose pages are found in page tables: neither special nor a nameless file's nor
 * under the program's own userfaultfd (dump/foreign.c). */
bool track_private(const struct proc_map *m);
/*
 * Calls each for stretches of such mappings (maps[first] to maps[last]), as long as can be: what
 * lies between them is unmapped. files: some may be of files; large anonymous ones are not among
 * them.
 */
typedef int (*track_stretch_fn)(void *arg, unsigned first, unsigned last, bool files,
				struct err *err);
int track_stretches(const struct track_target *t, track_stretch_fn each, void *arg,
		    struct err *err);

/* Is all of the mapping under our own watch (rather than the program's)? */
bool uffd_is_ours(struct watched *w, uint64_t start, uint64_t end);
/* Takes the marks of our protection from these pages, if there are any: they count as written then.
 */
void uffd_unprotect(const struct watched *w, uint64_t start, uint64_t end);

extern const struct tracker tracker_uffd, tracker_softdirty, tracker_hash;
