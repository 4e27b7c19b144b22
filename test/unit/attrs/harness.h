/* SPDX-License-Identifier: BSD-2-Clause */
/* Targets for the tests of attributes: a child that sets itself up, is stopped, looked at, and
 * given attributes. */
#pragma once

#include "../check.h"

#include "inject/build.h"
#include "inject/live.h"
#include "object/object.h"
#include "trace/freeze.h"

enum { SKIP = 77 };

/*
 * A child process: setup runs in it, then it waits for ever (its threads, made by setup, do so
 * too). The rooms for the stub and the arena are mapped before, so that it can be rebuilt in place.
 */
struct target {
	pid_t pid;
	struct frozen *frozen;
	struct subject subject;
	struct process process;
	struct capture capture;
	struct tree tree;
};

/* Forks, waits until the setup is done, stops it. */
void target_start(struct target *t, void (*setup)(void *arg), void *arg);
/* Captures everything; what dump/ does, for attributes. */
int target_capture(struct target *t, struct err *err);
/* Puts `from` into the target, whose threads stand for from's in the order of both. */
int target_put(struct target *t, const struct process *from, struct err *err);
/* Ends it. */
void target_end(struct target *t);

/* In a setup: a thread that runs with(arg), and has done so when this returns; it then waits for
 * ever. */
void target_thread(void (*with)(void *arg), void *arg);
