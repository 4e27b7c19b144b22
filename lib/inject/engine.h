/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the inject room: entering the stub and coming back; shared by live.c and build.c. */
#pragma once

#include "inject/live.h"
#include "inject/remote.h"
#include "inject/stub.h"
#include "trace/regs.h"

#include <sys/user.h>

#define ARENA_CALLS_OFFSET 4096
#define ARENA_DATA_OFFSET  (ARENA_CALLS_OFFSET + BATCH_CALLS * 64)
#define ARENA_SPARE_OFFSET (ARENA_DATA_OFFSET + BATCH_DATA)
#define ARENA_BYTES        (ARENA_SPARE_OFFSET + 4096)

/* A thread that may run batches. */
struct engine_thread {
	pid_t tid, ns_tid;
};

struct remote {
	pid_t pid, ns_pid;
	int mem_fd;     /* /proc/PID/mem */
	uint64_t stub;  /* address of the stub's first byte */
	uint64_t arena; /* 0: none */
	unsigned n_slots, first_slot;
	int marker_sig;   /* 0: stop at system calls instead */
	unsigned n_undo;  /* calls in the arena that undo what has been done */
	bool left_inside; /* a thread could not be taken back: it needs the stub to heal itself */
	bool stop_seen;   /* a SIGSTOP came in while we were at it: sent again at the end */
	struct engine_thread *threads;
	unsigned n_threads;
	struct user_regs_struct base; /* segments and rsp with which the stub runs */
	/* live only */
	struct remote *host; /* of another process with this memory; NULL: there is none */
	unsigned guests;     /* how many have one of our slots */
	bool no_stub;        /* the stub is the host's */
	uint64_t annex;      /* more stubs for guests, a page each; 0: none */
	unsigned annex_used; /* slots of theirs */
	pid_t stopped;       /* a thread that is stopped, while others may run; 0: the first */
	bool borrowed;       /* trace/outlive.h has been told */
	const struct thread_regs *leader_regs;
	struct live_thread leader; /* the first */
	bool mapping, leaving;     /* it is on its way to the marker with that */
	bool lent;                 /* its slot and the arena are the others', one after the other */
	bool in_arena;             /* one of them could not be taken back, and may be in it */
	struct live_thread *others; /* all threads but the first */
	unsigned n_others, asked, answered;
	uint64_t hold; /* their slots while they are held (hold.c); 0: they are not */
	unsigned n_held;
	bool waits; /* and so would the first */
};

/* The slot as a thread needs it that runs calls here: with regs, what it goes on with by itself;
 * NULL: it never has to. */
void engine_slot(const struct remote *r, const struct engine_thread *t,
		 const struct thread_regs *regs, struct stub_slot *ret);
/*
 * The thread, stopped, will run from gp, whose rip lies in the stub; its slot (number n) has been
 * written. Signals are blocked but for the marker. engine_start: and it runs.
 */
int engine_prepare(struct remote *r, const struct engine_thread *t, unsigned slot,
		   struct user_regs_struct *gp, struct err *err);
int engine_start(struct remote *r, const struct engine_thread *t, unsigned slot,
		 struct user_regs_struct *gp, struct err *err);
/* Waits until it is at the marker (a STUB_OFFSET); gp is what it has there. */
int engine_finish(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp,
		  uint64_t marker, struct err *err);
/*
 * Like engine_finish, but ends (with 1) when the thread has created another, which the kernel has
 * attached to us: *ret_newborn. The thread stands in the stop of that event then, and goes on by
 * engine_continue and engine_finish. 0: it is at the marker.
 */
int engine_birth(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp,
		 uint64_t marker, pid_t *ret_newborn, struct err *err);
int engine_continue(struct remote *r, const struct engine_thread *t, struct err *err);
/* Both, in slot 0. */
int engine_run(struct remote *r, const struct engine_thread *t, struct user_regs_struct *gp,
	       uint64_t marker, struct err *err);
uint64_t engine_slot_address(const struct remote *r, unsigned slot);
int engine_write(struct remote *r, uint64_t addr, const void *p, size_t len, struct err *err);
/* One more call, the last, that undoes; the last is not needed any more. */
int engine_undo_push(struct remote *r, const struct stub_call *call, struct err *err);
int engine_undo_pop(struct remote *r, struct err *err);
/* Room for code and slots; all of it. */
int64_t live_map(struct remote *r, size_t len, struct err *err);
int live_unmap(struct remote *r, uint64_t at, size_t len, struct err *err);
/* Its own registers and mask for a thread that had ours. */
int live_give_back(struct remote *r, const struct live_thread *t, struct err *err);
/* What these threads go on with should they have to do so by themselves, in neighbouring slots. */
int live_write_slots(struct remote *r, unsigned slot, const struct live_thread *threads, unsigned n,
		     struct err *err);
/*
 * ask.c: with the arena mapped, and none of the other threads out, the next of them are sent out.
 * All that are out are taken back, whatever happens to one of them; then what they have said is
 * read, from others[first] on. At last the first has its slot back, and is in the arena.
 */
int ask_some(struct remote *r, struct err *err);
int ask_take_back(struct remote *r, struct err *err);
int ask_read(struct remote *r, unsigned first, struct thread_facts *facts, struct err *err);
int ask_done(struct remote *r, struct err *err);
/* hold.c: room that could not be given back before goes with what the process undoes. */
int hold_forget(struct remote *r, struct err *err);
int engine_read(struct remote *r, uint64_t addr, void *p, size_t len, struct err *err);
