/* SPDX-License-Identifier: BSD-2-Clause */
/* Feature probes: what this kernel does for this user, found out by doing it. */
#pragma once

#include <stdbool.h>

enum probe_id {
	PROBE_PAGEMAP_SCAN, /* ioctl(PAGEMAP_SCAN) tells touched pages from others */
	PROBE_USERNS,       /* user, pid and mount namespaces, with /proc mounted and pids chosen */
	PROBE_SET_TID,      /* clone3 set_tid is allowed here, without a namespace */
	PROBE_TIMENS,       /* a time namespace (in a user namespace) shifts the clock */
	PROBE_GUARD_REGIONS, /* madvise(MADV_GUARD_INSTALL) makes pages unreadable */
	PROBE_UFFD_WP_ASYNC, /* asynchronous write-protection + PAGEMAP_SCAN find a written page */
	PROBE_SOFT_DIRTY,    /* clear_refs and pagemap bit 55 find a written page */
	PROBE_PROC_MEM,      /* /proc/PID/mem writes to memory that its process may only read */
	PROBE_COUNT
};

struct probe_result {
	bool ok;
	char why[160]; /* when not ok: what failed, as a clause for a message */
};

/*
 * The first call for an id probes, later ones are free. Thread-safe. Leaves no process, mapping or
 * descriptor behind, and signals that arrive meanwhile are delivered after it. Never fails: what
 * can not be probed is not there.
 *
 * CKPT_WITHOUT=userns,pagemap_scan,... takes features away, so that the ways round them can be
 * tested.
 */
const struct probe_result *probe_get(enum probe_id id);
/* Is name in that list? For what is no probe: "tracer" (trace by a thread, not by a process). */
bool probe_without(const char *name);
/* "pagemap_scan", "userns", ... */
const char *probe_name(enum probe_id id);

bool probe_pagemap_scan(void);
bool probe_userns(void);
bool probe_set_tid(void);
bool probe_timens(void);
bool probe_guard_regions(void);
bool probe_uffd_wp_async(void);
bool probe_soft_dirty(void);
