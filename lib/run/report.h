/* SPDX-License-Identifier: BSD-2-Clause */
/* What the supervisor tells its user about checkpoints: standard error, and the --stats file. */
#pragma once

#include "run/attempt.h"
#include "run/trouble.h"

struct report {
	const char *program;
	bool verbose;
	int stats_fd; /* -1 = none */
	struct trouble told;
};

/*
 * An attempt has ended. persistent: a failure to stop the job has lasted so long that it is worth a
 * message. job_goes_on: false when the command ends with this attempt and prints the error itself.
 */
void report_attempt(struct report *r, const struct attempt *a, bool persistent, bool job_goes_on);
/* "PROGRAM: ..." on standard error, once for each distinct message. */
void report_trouble(struct report *r, const struct err *err);
void report_verbose(const struct report *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
