/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs batches of system calls inside a stopped process, which is whole again afterwards whatever
 * happens to us. */
#pragma once

#include "util/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A remote is a stopped process in which calls can be run: a live job that must heal itself if we
 * vanish (made by inject/live.h), or a process being rebuilt (made by restore/). It has an arena:
 * memory of ours mapped in the process, which holds the calls and their arguments.
 */
struct remote;

/* The process id as seen from here (for messages and /proc). */
pid_t remote_pid(const struct remote *r);

#define BATCH_CALLS 1024
#define BATCH_DATA  (192 * 1024)

/*
 * A batch: system calls that run one after the other in one thread of the remote; each runs
 * whatever the ones before it returned. Start it, add calls and data, run it, read the results. A
 * batch can be started again after it ran. Overflow of either limit is remembered and reported by
 * batch_run.
 */
struct batch;

/*
 * What calls and data are kept in, a quarter of a MiB. Batches of several remotes may share one,
 * since only one of them is in use at a time: batch_start takes it over from whichever had it.
 */
struct batch_store;
/* NULL when out of memory. */
struct batch_store *batch_store_new(void);
/* When no batch uses it any more. NULL is fine. */
void batch_store_free(struct batch_store *store);

/* NULL when out of memory. A batch belongs to one remote. store: borrowed; NULL: one of its own. */
struct batch *batch_new(struct remote *r, struct batch_store *store);
void batch_free(struct batch *b);
/* Forgets all calls and data; to be called before any is added. */
void batch_start(struct batch *b);
/* True while at least n more calls and len more bytes of data fit. */
bool batch_room(const struct batch *b, unsigned n, size_t len);
/*
 * Adds a call; returns its index. what: what the call does, for the message "cannot WHAT: REASON"
 * should it return an error ("set the umask"); NULL when a failure is an answer, to be looked at
 * with batch_ret. The string must live until the run.
 */
unsigned batch_add(struct batch *b, const char *what, long nr, uint64_t a0, uint64_t a1,
		   uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5);
#define BATCH_PICK_(_0, _1, _2, _3, _4, _5, _6, name, ...) name
/* clang-format off */
#define BATCH_U_(x) ((uint64_t)(x))
#define BATCH_0_(b, w, n) \
	batch_add(b, w, n, 0, 0, 0, 0, 0, 0)
#define BATCH_1_(b, w, n, a) \
	batch_add(b, w, n, BATCH_U_(a), 0, 0, 0, 0, 0)
#define BATCH_2_(b, w, n, a, c) \
	batch_add(b, w, n, BATCH_U_(a), BATCH_U_(c), 0, 0, 0, 0)
#define BATCH_3_(b, w, n, a, c, d) \
	batch_add(b, w, n, BATCH_U_(a), BATCH_U_(c), BATCH_U_(d), 0, 0, 0)
#define BATCH_4_(b, w, n, a, c, d, e) \
	batch_add(b, w, n, BATCH_U_(a), BATCH_U_(c), BATCH_U_(d), BATCH_U_(e), 0, 0)
#define BATCH_5_(b, w, n, a, c, d, e, f) \
	batch_add(b, w, n, BATCH_U_(a), BATCH_U_(c), BATCH_U_(d), BATCH_U_(e), BATCH_U_(f), 0)
#define BATCH_6_(b, w, n, a, c, d, e, f, g) \
	batch_add(b, w, n, BATCH_U_(a), BATCH_U_(c), BATCH_U_(d), BATCH_U_(e), BATCH_U_(f), \
		  BATCH_U_(g))
/* clang-format on */
/* batch_call(b, what, SYS_x, args...): batch_add with missing arguments zero and casts done. */
#define batch_call(b, what, nr, ...)                                                               \
	BATCH_PICK_(0, ##__VA_ARGS__, BATCH_6_, BATCH_5_, BATCH_4_, BATCH_3_, BATCH_2_, BATCH_1_,  \
		    BATCH_0_)                                                                      \
	(b, what, nr, ##__VA_ARGS__)
/* Remote address of a page of the arena's that nobody has touched since it was mapped. */
uint64_t batch_untouched(const struct batch *b);
/* Remote address of a copy of len bytes (16-byte aligned), for use as an argument. */
uint64_t batch_in(struct batch *b, const void *p, size_t len);
/* Remote address of len zero bytes for a call to fill in. */
uint64_t batch_out(struct batch *b, size_t len);
/*
 * Remote addresses of argument arg (0..5) of a call, and of what it returns, 8 bytes each: an
 * earlier call of the same batch may write the one, a later one read the other.
 */
uint64_t batch_arg_address(const struct batch *b, unsigned call, unsigned arg);
uint64_t batch_ret_address(const struct batch *b, unsigned call);
/*
 * Runs the batch in the given thread. 0, or the error of the first call with a `what` that failed,
 * or a failure to run at all (-ESRCH: the process is gone).
 */
int batch_run(struct batch *b, pid_t tid, struct err *err);
/*
 * For what a batch makes and a later one takes away: should that not come to pass (we vanish, or
 * live_end is all that can still be done), the process makes this call before it goes on with its
 * own business. There may be several.
 */
int batch_undo(struct batch *b, long nr, uint64_t a0, uint64_t a1, uint64_t a2, struct err *err);
/* The same of an option of a socket, which has this value now; one at a time. */
int batch_undo_option(struct batch *b, int fd, int level, int name, int value, struct err *err);
/* That which was said last need not be undone any more. */
int batch_undone(struct batch *b, struct err *err);
/* Remote address of the first argument of what was said last: what a batch makes may be known only
 * when it runs. */
uint64_t batch_undo_address(const struct batch *b);
/* What call i returned (-errno on failure). */
int64_t batch_ret(const struct batch *b, unsigned i);
/* The bytes at a remote address from batch_out/batch_in, after the run: valid until batch_start, of
 * any batch with this store. */
const void *batch_result(const struct batch *b, uint64_t addr);
