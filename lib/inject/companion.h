/* SPDX-License-Identifier: BSD-2-Clause */
/* A process of ours that shares the memory of one of the job's and makes calls on it while that
 * runs. */
#pragma once

#include "inject/snapshot.h"
#include "proc/proc.h"

/*
 * Of the live remote, from the thread that traces it, which alone may use it then. Nobody in the
 * job can see it or wait for it; it has no descriptors, is in a session of its own, and dies with
 * whoever traces it. It is ended by snapshot_kill and snapshot_free. maps: the process's; there
 * must be a vdso among them. Whatever is returned, the remote is as before.
 */
int companion_make(struct remote *r, const struct proc_map *maps, unsigned n_maps,
		   struct snapshot **ret, struct err *err);
/*
 * Makes it issue a system call whose arguments are no addresses of ours; *ret: what it returned,
 * -errno if it failed. An error: it is gone or does not answer, and is to be ended.
 */
int companion_call(struct snapshot *s, long nr, uint64_t a0, uint64_t a1, uint64_t a2, int64_t *ret,
		   struct err *err);
