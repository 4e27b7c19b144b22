/* SPDX-License-Identifier: BSD-2-Clause */
/* A remote made of a running job: borrowed while stopped, and self-healing (design.md section 4).
 */
#pragma once

#include "inject/remote.h"
#include "proc/proc.h"
#include "trace/regs.h"

#include <stdbool.h>

struct live_thread {
	pid_t tid;                      /* as seen from here */
	pid_t ns_tid;                   /* as the job sees it */
	const struct thread_regs *regs; /* what it goes on with; borrowed until live_end */
};

/* What only a thread itself can say; the leader says it in a batch. */
struct thread_facts {
	uint64_t altstack_sp, altstack_size;
	uint32_t altstack_flags;
	uint64_t clear_child_tid;
	uint64_t timer_slack_ns;
	int32_t parent_death_signal;
	uint32_t personality;
};

/* A process as it was found: stopped, with nothing of ours in it. */
struct live_process {
	pid_t pid, ns_pid;
	const struct live_thread *threads;
	unsigned n_threads;
	const struct proc_map *maps;
	unsigned n_maps;
	uint64_t not_ignored; /* signals that it has handlers for, or that are pending */
	/* The remote, begun and not ended, of the first process that it shares its memory with
	 * (CLONE_VM); NULL: none. It must be ended after this one. */
	struct remote *host;
};

/*
 * All threads of the process are stopped by us (trace/freeze.h) and stay so. live_begin puts the
 * stub in place and has threads[0] map the arena, in which it runs batches from then on; live_ask
 * has each of the others say what only it knows; live_ready has the answers (facts[i] of
 * threads[i]).
 *
 * The first two only send threads out: they run on other CPUs while we see to another process.
 * Until live_ready all that can be done besides is to end the remote.
 *
 * At any instant every thread has either its own registers or heals itself if we vanish.
 */
int live_begin(const struct live_process *p, struct remote **ret, struct err *err);
int live_ask(struct remote *r, struct err *err);
int live_ready(struct remote *r, struct thread_facts *facts, struct err *err);
/* Where the arena is. */
uint64_t live_arena(const struct remote *r);
/* Is the memory behind mem_fd (/proc/PID/mem of a stopped process) this remote's? Where nobody else
 * says so (kcmp(2)). */
bool live_is_memory(struct remote *r, int mem_fd);
/*
 * hold.c: should all that traces the process be killed from here on, its threads do not run before
 * the System V semaphores of this set are removed (or ten seconds have gone by). runs: the first,
 * which runs batches, does. To be released after a failure too.
 */
int live_hold(struct remote *r, int semaphores, bool runs, struct err *err);
int live_release(struct remote *r, struct err *err);
/* live_end is near: what of it takes time begins. NULL is fine. */
void live_leave(struct remote *r);
/* Unmaps the arena, gives the thread its registers and mask back, takes the stub away. Always frees
 * r (NULL is fine); safe when the process has died. After it nothing of ours is in the process. */
int live_end(struct remote *r, struct err *err);
