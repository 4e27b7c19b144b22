/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A word that threads wait on until it changes (futex(2)); also processes that share memory.
 *
 * Waking waits for nobody. A condition variable's does: glibc's pthread_cond_broadcast waits until
 * those that it woke before have left (nptl/pthread_cond_common.c), and a thread that has been
 * stopped (SIGSTOP) leaves no sooner than it is continued. So what a job is stopped for rings this
 * way.
 */
#pragma once

#include <stdatomic.h>

/* Wakes all that wait on the word, which has been changed. */
void word_wake(atomic_uint *word);
/* Returns once the word is not, or no longer, value; after timeout_ms (negative: never); or for no
 * reason. */
void word_wait(atomic_uint *word, unsigned value, int timeout_ms);
