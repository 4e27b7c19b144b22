/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the object room: what attrs.c drives, one set of functions for each subject. */
#pragma once

#include "object/object.h"

/*
 * Names: X_ask adds the calls of a capture to a batch and remembers where their answers will lie,
 * X_take reads them after the run; X_look needs no batch; X_put adds the calls of a restore;
 * X_check runs before anything is created.
 */

/* Runs the batch and starts it anew unless n more calls with len bytes of data fit. */
int attrs_make_room(struct batch *b, pid_t tid, unsigned n, size_t len, struct err *err);

/* admit.c: what is refused by name; pure looks from outside */
int admit_process(const struct settings *settings, const struct subject *s,
		  const struct proc_status *st, struct err *err);
int admit_thread(const struct settings *settings, const struct subject *s, pid_t tid,
		 const struct thread_regs *regs, const struct proc_status *st, struct err *err);
/* nspace.c */
int namespaces_check(struct capture *c, const struct subject *s, struct err *err);
struct admit_query {
	unsigned keyring_call[4];
	unsigned shstk_call, ldt_call;
	uint64_t shstk, tsc, ldt;
	unsigned tsc_call, mdwe_call;
};
void admit_ask(struct batch *b, struct admit_query *q);
int admit_take(const struct subject *s, const struct admit_query *q, struct err *err);

/* signals.c */
struct signals_query {
	uint64_t act[65], itimer[3];
};
void signals_ask(struct batch *b, struct signals_query *q);
int signals_take(const struct batch *b, const struct signals_query *q, struct arena *a,
		 struct process *p, struct err *err);
/* The queue of the thread, or (shared) of its process. bits: the pending set that /proc shows. */
int signals_look_pending(pid_t tid, bool shared, uint64_t bits, struct arena *a,
			 struct pending_signal **ret, unsigned *ret_n, struct err *err);
void signals_put(struct batch *b, const struct process *p);
void itimers_put(struct batch *b, const struct process *p);
/* tid 0: the process-wide queue. */
int signals_queue(const struct rebuild *rb, struct batch *b, pid_t run_tid,
		  const struct pending_signal *list, unsigned n, int32_t pid, int32_t tid,
		  struct err *err);

/* ptimers.c */
/* For tests: as on a kernel without PR_TIMER_CREATE_RESTORE_IDS. */
extern bool ptimers_force_counted;
int ptimers_capture(struct capture *c, struct subject *s, struct err *err);
int ptimers_put(const struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		struct err *err);
void ptimers_arm_put(struct batch *b, const struct posix_timer *t);

/* creds.c */
struct creds_query {
	unsigned securebits_call;
};
void creds_look(const struct proc_status *st, struct credentials *c);
void creds_ask(struct batch *b, struct creds_query *q);
void creds_take(const struct batch *b, const struct creds_query *q, struct credentials *c);
int creds_check(const struct process *p, struct err *err);
/* Adds calls after which nothing that needs privileges can be done. */
#define CREDS_CALLS    200
#define CREDS_BYTES(p) (1024 + (p)->creds.n_groups * sizeof *(p)->creds.groups)
struct creds_change {
	bool any;
	unsigned securebits_call;
};
int creds_put(const struct process *p, struct batch *b, pid_t tid, struct creds_change *ret,
	      struct err *err);
/* When the batch has run: believes what the kernel shows, not what the calls returned. */
int creds_verify(const struct process *p, const struct batch *b, pid_t tid,
		 const struct creds_change *change, struct err *err);
/* The effective capabilities of the calling thread. */
uint64_t creds_own_effective(void);

/* identity.c */
struct identity_query {
	unsigned dumpable_call, thp_call, xfeatures_call;
	uint64_t subreaper, xfeatures;
};
int identity_look(struct capture *c, struct subject *s, const struct proc_status *st,
		  struct err *err);
void identity_ask(struct batch *b, struct identity_query *q);
void identity_take(const struct subject *s, const struct identity_query *q);
int identity_check(const struct rebuild *rb, const struct process *p, struct err *err);
int identity_put(const struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		 struct err *err);

/* limits.c */
#define LIMITS_N 16
struct limits_query {
	uint64_t limit[LIMITS_N];
};
void limits_ask(struct batch *b, struct limits_query *q);
int limits_take(const struct batch *b, const struct limits_query *q, struct arena *a,
		struct process *p, struct err *err);
int limits_check(const struct process *p, struct err *err);
#define LIMITS_CALLS (2 * LIMITS_N)
#define LIMITS_BYTES (2 * LIMITS_N * sizeof(uint64_t[2]))
struct limits_change {
	unsigned call[LIMITS_N];
	uint64_t old[LIMITS_N];
};
void limits_put(struct batch *b, const struct process *p, struct limits_change *ret);
/* When that has run: those that are not allowed as recorded, in a batch of their own. */
int limits_put_rest(struct batch *b, const struct process *p, const struct limits_change *change,
		    pid_t tid, struct err *err);

/* memlock.c */
struct memlock_query {
	unsigned let_go_call;
	uint64_t present;
};
void memlock_ask(struct batch *b, struct memlock_query *q);
void memlock_take(const struct batch *b, const struct memlock_query *q, struct process *p);
int memlock_check(const struct process *p, struct err *err);

/* sched.c */
int sched_look(pid_t tid, struct arena *a, struct thread *t, struct err *err);
int sched_check(const struct process *p, const struct thread *t, struct err *err);
void sched_put(const struct thread *t, struct batch *b, pid_t tid);

/* threadattr.c: of the leader, what the other threads are asked for by inject/live.h */
struct leader_query {
	uint64_t altstack, clear_child_tid, parent_death_signal;
	unsigned slack_call, personality_call;
};
void leader_ask(struct batch *b, struct leader_query *q);
void leader_take(const struct batch *b, const struct leader_query *q, struct thread *t);
int threadattr_look(pid_t tid, struct thread *t, struct err *err);
int threadattr_put(const struct rebuild *rb, const struct process *p, const struct thread *t,
		   struct batch *b, pid_t tid, struct err *err);
