/* SPDX-License-Identifier: BSD-2-Clause */
/* What a tracing process that has outlived ckpt-run does: put everything back, and end. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/*
 * A process that shares its parent's memory calls outlive_begin before it traces anything. When the
 * parent dies, at whatever instant, a signal makes the process
 * - see to the threads that were asked to stop and not looked at yet: a call that our stop made
 *   return EINTR is made to go on;
 * - end, unless calls are being run in a process of the job. Then it goes on, outlive_orphaned()
 *   says so to whoever would begin something new, and the error path puts back what was borrowed;
 *   the last outlive_given_back() ends it. Should it not get there within two seconds (a thread of
 *   ckpt-run may have died with a lock held), it ends anyway and the stub heals itself.
 *
 * In a process that has not called outlive_begin the others only keep count.
 */
int outlive_begin(pid_t parent);
bool outlive_orphaned(void);

/* A thread is about to be asked to stop. False: too many have been asked and not been looked at. */
bool outlive_asked(pid_t tid);
/* Its registers are what it goes on with; or it has gone. */
void outlive_seen(pid_t tid);

/* Calls may be run in a process from now on; its threads and memory are as they were. */
void outlive_borrowed(void);
void outlive_given_back(void);
/* The point of no return has been passed: from here on the death of the parent changes nothing. */
void outlive_ignore(void);
