/* SPDX-License-Identifier: BSD-2-Clause */
/* One thread on to the stop that it has been asked for. */
#pragma once

#include "trace/freeze.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* It can run: it computes, or waits for a processor, and is not in a stop. */
bool settle_can_run(pid_t tid);
/*
 * Runs the thread on to a quiet stop: t->stopped, t->group_stop and t->regs are what it is like
 * there. -ESRCH: it has gone. -ETIMEDOUT: not by the deadline, or it sleeps where no stop wakes it.
 */
int settle_thread(struct frozen_thread *t, int64_t deadline_ns, struct err *err);
