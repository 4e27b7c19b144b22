/* SPDX-License-Identifier: BSD-2-Clause */
/* Can a running tree be checkpointed? Looked at from outside, without touching it. */
#pragma once

#include "proc/orphans.h"
#include "util/arena.h"
#include "util/err.h"

#include <sys/types.h>

struct obstacle {
	pid_t pid;
	int fd;           /* -1: not about a descriptor */
	char *what;       /* "io_uring", "a process of another user (uid 7)" */
	const char *hint; /* or NULL */
};

struct able {
	unsigned n_processes, n_threads;
	struct obstacle *obstacles;
	unsigned n_obstacles;
	struct orphan *left; /* see proc/orphans.h */
	unsigned n_left;
};

/*
 * Reads only /proc: no process is stopped or traced. What only the process itself can be asked is
 * not found (a local descriptor table, say; ckpt-inspect(1) has the list), nor what happens between
 * now and then.
 */
int able_look(pid_t root, struct arena *a, struct able *ret, struct err *err);
