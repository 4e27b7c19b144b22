/* SPDX-License-Identifier: BSD-2-Clause */
/* When the next checkpoint is due: the interval, requests, and the back-off after a job that could
 * not be stopped. */
#include "run/schedule.h"

#include "util/cleanup.h"

#include <time.h>

/* A due time in the far future must not wrap around to one in the past. */
static uint64_t later(uint64_t now_ns, uint64_t ns)
{
	return ns < SCHEDULE_NEVER - now_ns ? now_ns + ns : SCHEDULE_NEVER;
}

static void plan_interval(struct schedule *s, uint64_t now_ns)
{
	s->backoff_ns = 0;
	s->due_ns = s->interval_ns ? later(now_ns, s->interval_ns) : SCHEDULE_NEVER;
}

void schedule_init(struct schedule *s, uint64_t interval_ns, uint64_t now_ns)
{
	*s = (struct schedule){ .interval_ns = interval_ns };
	plan_interval(s, now_ns);
}

void schedule_request(struct schedule *s, uint64_t now_ns)
{
	s->backoff_ns = 0;
	s->due_ns = now_ns;
}

bool schedule_is_due(const struct schedule *s, uint64_t now_ns)
{
	return s->due_ns != SCHEDULE_NEVER && s->due_ns <= now_ns;
}

void schedule_attempted(struct schedule *s, enum attempt_outcome outcome, bool again,
			uint64_t now_ns)
{
	uint64_t most = s->interval_ns ? s->interval_ns : SCHEDULE_BACKOFF_MOST;

	if (outcome == ATTEMPT_AGAIN) {
		s->backoff_ns =
			MIN(s->backoff_ns ? 2 * s->backoff_ns : SCHEDULE_BACKOFF_FIRST, most);
		s->due_ns = later(now_ns, s->backoff_ns);
		return;
	}
	if (again)
		schedule_request(s, now_ns);
	else
		plan_interval(s, now_ns);
}

uint64_t schedule_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}
