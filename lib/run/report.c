/* SPDX-License-Identifier: BSD-2-Clause */
/* What the supervisor tells its user about checkpoints: standard error, and the --stats file. */
#include "run/report.h"

#include "run/stats.h"
#include "util/cleanup.h"

#include <inttypes.h>
#include <stdarg.h>

void report_trouble(struct report *r, const struct err *err)
{
	if (trouble_is_new(&r->told, err->msg))
		err_print(r->program, err);
}

void report_verbose(const struct report *r, const char *fmt, ...)
{
	va_list ap;

	if (!r->verbose)
		return;
	va_start(ap, fmt);
	fprintf(stderr, "%s: ", r->program);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

static double ms(uint64_t us)
{
	return (double)us / 1000;
}

static void report_success(struct report *r, const struct attempt *a)
{
	const struct dump_result *d = &a->result;

	report_verbose(
		r, "checkpoint %" PRIu64 " (%s): %.1f MiB, paused %.1f ms, written in %.1f ms",
		d->seq, d->incremental ? "incremental" : "full",
		(double)d->totals.bytes_stored / (1 << 20), ms(d->pause_us), ms(d->write_us));
	trouble_forget(&r->told);
	if (a->retain.code < 0) {
		struct err err = a->retain;

		err_wrap(&err, err.code, "checkpoint %" PRIu64 " is good, but older ones stay",
			 d->seq);
		report_trouble(r, &err);
	}
}

static void report_failure(struct report *r, const struct attempt *a, bool persistent)
{
	struct err err = a->err;

	if (a->rc == -ESRCH) /* the job has ended: no failure of anything */
		return;
	if (a->rc == -EAGAIN && !persistent) {
		report_verbose(r, "not now: %s; trying again", err.msg);
		return;
	}
	err_wrap(&err, err.code, "checkpoint failed");
	if (trouble_is_new(&r->told, err.msg)) {
		if (err.hint[0])
			fprintf(stderr, "%s: %s (%s); the job goes on\n", r->program, err.msg,
				err.hint);
		else
			fprintf(stderr, "%s: %s; the job goes on\n", r->program, err.msg);
	}
}

void report_attempt(struct report *r, const struct attempt *a, bool persistent, bool job_goes_on)
{
	CLEANUP_FREE char *line = NULL;
	struct err err = { 0 };

	if (a->rc == 0)
		report_success(r, a);
	else if (job_goes_on)
		report_failure(r, a, persistent);
	if (r->stats_fd < 0)
		return;
	line = stats_line(a->rc, &a->result, &a->err);
	if (line ? stats_append(r->stats_fd, line, &err) < 0 : err_nomem(&err) < 0)
		report_trouble(r, &err);
}
