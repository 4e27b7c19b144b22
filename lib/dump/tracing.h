/* SPDX-License-Identifier: BSD-2-Clause */
/* Running what traces the job where it survives a SIGKILL of ckpt-run. */
#pragma once

#include "util/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

struct tracing;

/*
 * Runs fn(arg, err) in a process of its own, which shares our memory, descriptors and working
 * directory, and waits for it. Where only ancestors of the job may trace it (Yama), which such a
 * process is not, or no process can be had, it runs in a thread. *tracing (NULL at first) remembers
 * that, and is the same for all that happens to one job.
 *
 * What fn may not do: make threads or processes; believe that getpid() is ckpt-run's (it is where
 * descriptors of ours are found in /proc all the same); leave a file position, a lock or a tracee
 * for ckpt-run to go on with. Everything it has seized is let go of when it returns. It may be cut
 * short at any instant (trace/outlive.h): so what it borrows from the job is either undone by a
 * remote's stub or announced with outlive_borrowed().
 */
int tracing_run(struct tracing **tracing, pid_t root, int (*fn)(void *arg, struct err *err),
		void *arg, struct err *err);
void tracing_free(struct tracing *t);

/* Starts a thread of ckpt-run with all signals blocked; 0 or a negative errno. */
int thread_start_blocked(pthread_t *ret, size_t stack_bytes, void *(*main)(void *), void *arg);
