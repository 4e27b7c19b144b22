/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread of ckpt-run's that does what needs no tracing: it reads ahead of the tracer what /proc
 * says of the stopped processes; another asks sockets for their options. It holds nothing of the
 * job's.
 */
#pragma once

#include "util/arena.h"
#include "util/err.h"

#include <stdatomic.h>
#include <stdbool.h>

struct scout;

/* What it is to do: task number i, with results in arena a. drop: of a result that nobody wants; it
 * frees no memory. NULL: there is nothing but memory to it. */
struct scout_work {
	unsigned n;
	int (*run)(void *arg, unsigned i, struct arena *a, void **ret, struct err *err);
	void (*drop)(void *arg, unsigned i, void *result);
	void *arg;
	struct arena *own;    /* for what the tracer does of it meanwhile; NULL: nothing */
	atomic_uint *there;   /* how many of the n there are so far; NULL: all */
	bool apart;           /* on a CPU that the tracer keeps off meanwhile */
	struct scout *beside; /* on the CPU of this one, if it has one so; NULL: anywhere */
};

/* In ckpt-run, before anything is stopped, with memory for so many bytes; NULL: it goes without. */
struct scout *scout_new(size_t bytes);
/* In ckpt-run, when nothing that it has read is needed any more (the arenas are still there). How
 * many bytes it has needed. NULL is fine. */
size_t scout_free(struct scout *s);
/* In the tracer: from now on. What arg leads to stays as it is until scout_free. */
void scout_begin(struct scout *s, const struct scout_work *w);
/*
 * In the tracer: the result of task i (NULL: it has not got that far, or failed, and will not do it
 * any more; the caller does it). Each is asked for once. It never waits for long: ckpt-run may have
 * been killed or stopped.
 */
void *scout_take(struct scout *s, unsigned i);
/* In the tracer: it need not go on. */
void scout_stop(struct scout *s);
