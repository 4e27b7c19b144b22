/* SPDX-License-Identifier: BSD-2-Clause */
/* When the next checkpoint is due: the interval, requests, and the back-off after a job that could
 * not be stopped. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum attempt_outcome {
	ATTEMPT_OK,
	ATTEMPT_AGAIN, /* could not be stopped just now */
	ATTEMPT_FAILED,
};

/* Times are CLOCK_MONOTONIC nanoseconds. */
struct schedule {
	uint64_t interval_ns; /* between the end of an attempt and the next; 0: only on demand */
	uint64_t backoff_ns;  /* last back-off, 0 = none */
	uint64_t due_ns;      /* of the next attempt; SCHEDULE_NEVER */
};

#define SCHEDULE_NEVER         UINT64_MAX
#define SCHEDULE_BACKOFF_FIRST UINT64_C(100000000)
#define SCHEDULE_BACKOFF_MOST  UINT64_C(10000000000) /* where there is no interval to bound it */

void schedule_init(struct schedule *s, uint64_t interval_ns, uint64_t now_ns);
/* Somebody wants one now. */
void schedule_request(struct schedule *s, uint64_t now_ns);
bool schedule_is_due(const struct schedule *s, uint64_t now_ns);
/* An attempt ended at now_ns. again: another one was requested while it was under way. */
void schedule_attempted(struct schedule *s, enum attempt_outcome outcome, bool again,
			uint64_t now_ns);
uint64_t schedule_now(void);
