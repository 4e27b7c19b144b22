/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the inject room: entering the stub and coming back; shared by live.c and build.c. */
#pragma once

#include "inject/remote.h"
#include "inject/stub.h"

#include <sys/user.h>

#define ARENA_CALLS_OFFSET 4096
#define ARENA_DATA_OFFSET (ARENA_CALLS_OFFSET + BATCH_CALLS * 64)
#define ARENA_BYTES (ARENA_DATA_OFFSET + BATCH_DATA)

/* A thread that may run batches. */
struct engine_thread {
	pid_t tid, ns_tid;
};

struct remote {
	pid_t pid, ns_pid;
	int mem_fd;      /* /proc/PID/mem */
	uint64_t stub;   /* address of the stub's first byte */
	uint64_t arena;  /* 0: none */
	int marker_sig;  /* 0: stop at system calls instead */
	bool stop_seen;  /* a SIGSTOP came in while we were at it: sent again at the end */
	struct engine_thread *threads;
	unsigned n_threads;
	struct user_regs_struct base; /* segments and rsp with which the stub runs */
	/* live only */
	const struct thread_regs *leader_regs;
};

/*
 * Lets the thread, stopped, run from gp (whose rip lies in the stub) to the marker; gp is what it has there. Fills in
 * the marker's registers (r12, r14, r15). block: the signals to be blocked meanwhile.
 */
int engine_run(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp, uint64_t marker,
	       uint64_t block, struct err *err);
/* Every signal but the marker. */
uint64_t engine_mask(const struct remote *r);
int engine_write(struct remote *r, uint64_t addr, const void *p, size_t len, struct err *err);
int engine_read(struct remote *r, uint64_t addr, void *p, size_t len, struct err *err);
