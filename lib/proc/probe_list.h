/* SPDX-License-Identifier: BSD-2-Clause */
/* The probes themselves, for the table in probe.c. */
#pragma once

#include "proc/probe.h"

#include <stdint.h>

/*
 * A probe fills *r. It runs in a child of its own, with all signals blocked, which is a copy of the
 * caller's (maybe threaded) process: so it makes system calls and snprintf at most, allocates
 * nothing and takes no lock. It may leave mappings, descriptors and namespaces behind: they end
 * with the child.
 */
void probe_run_pagemap_scan(struct probe_result *r);
void probe_run_guard_regions(struct probe_result *r);
void probe_run_uffd_wp_async(struct probe_result *r);
void probe_run_proc_mem(struct probe_result *r);
void probe_run_soft_dirty(struct probe_result *r);
void probe_run_userns(struct probe_result *r);
void probe_run_set_tid(struct probe_result *r);
void probe_run_timens(struct probe_result *r);

/* "WHAT: strerror(errno)" as the reason. */
void probe_no(struct probe_result *r, const char *what);
/*
 * A copy of this process, as by fork, but with clone flags and without any exit signal (no SIGCHLD
 * to anyone, and not reaped by an ordinary wait); dies with its parent. 0 in the child, its pid in
 * the parent, -1 with errno.
 */
int probe_clone(uint64_t flags);
/* Waits for a child made by probe_clone (or clone3 without an exit signal) and for no other; its
 * exit status or -1. */
int probe_reap(int pid);
