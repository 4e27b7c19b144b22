/* SPDX-License-Identifier: BSD-2-Clause */
/* A remote made of a process that is being rebuilt: no healing, it dies with its tracer. */
#pragma once

#include "inject/remote.h"

/* Bytes that build_remote needs mapped read-write at `arena` in the process, and executable at
 * `stub`. */
size_t build_arena_bytes(void);
size_t build_stub_bytes(void);
/* Copies the stub's code to p (build_stub_bytes). */
void build_stub_copy(void *p);

/*
 * The process (stopped by us, any registers) has the stub's code at `stub` and an arena at `arena`.
 * marker_sig: a signal that is not pending in it nor will be made so. stack: an address that
 * batches run with as rsp (below it: scratch).
 */
int build_remote_new(pid_t pid, pid_t ns_pid, uint64_t stub, uint64_t arena, uint64_t stack,
		     int marker_sig, struct remote **ret, struct err *err);
/* A thread in which batches can be run. */
int build_remote_add_thread(struct remote *r, pid_t tid, pid_t ns_tid, struct err *err);
void build_remote_free(struct remote *r);
/* /proc/PID/mem of it, read-write; borrowed. */
int build_remote_mem(const struct remote *r);
