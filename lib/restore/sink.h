/* SPDX-License-Identifier: BSD-2-Clause */
/* Where restored pages go: a process's memory, or the file behind a shared space. */
#pragma once

#include "restore/internal.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* Shared memory that may be missing, as a process sees it (views.h). */
struct view {
	struct range at;
	const struct sink *of;
	uint64_t offset; /* what lies at its start */
};

struct sink {
	int fd;                         /* /proc/PID/mem (borrowed), or the space's file (ours) */
	pid_t pid;                      /* 0: a file */
	const struct build_process *bp; /* whose memory it is; NULL: a file */
	int uffd;                       /* -1: none */
	bool kernel_faults;             /* it hears of faults in system calls too */
	bool runs;           /* the process does: a page that is there may have been written to */
	struct range *fresh; /* memory that it fills: each within one mapping, ascending */
	unsigned n_fresh;
	/* of a process: */
	struct view *views; /* ascending */
	unsigned n_views;
	/* of a file: */
	uint32_t space;
	uint64_t base; /* our own mapping of it, through which it is filled; 0: none */
	bool now;      /* all of it must be there when the job begins to run */
};

/*
 * A process whose mappings have been made and are empty but for a page here and there. for_later:
 * its fresh memory is what may come while it runs. runs: what it is filled with, ascending.
 */
int sink_open_process(struct sink *s, struct build_process *bp, const struct resolved_run *runs,
		      unsigned n_runs, bool for_later, struct err *err);
/* The first fresh range that ends after the address; n_fresh: none. */
unsigned sink_find_fresh(const struct sink *s, uint64_t at);
/* Fresh pages that are still missing are zero; threads that wait for any of them go on. */
int sink_zero(const struct sink *s, uint64_t at, size_t len);
void sink_wake(const struct sink *s, uint64_t at, size_t len);
/* Whole pages to an address, or to an offset in the file. Thread-safe. */
int sink_put(const struct sink *s, uint64_t at, const uint8_t *p, size_t len, struct err *err);
/* Accepts one that sink_open_process failed on. */
void sink_close(struct sink *s);
/* Our own copy of a descriptor of a process's, or a negative errno. */
int sink_fetch_fd(pid_t pid, int fd);
