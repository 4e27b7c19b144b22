/* SPDX-License-Identifier: BSD-2-Clause */
/* /proc/PID/timers (proc_pid_timers(5)): POSIX timers, their ids and how they notify. */
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"

#include <signal.h>

#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif

static bool read_id(const char *p, int32_t *ret)
{
	int64_t v;

	if (!(p = text_i64(p, &v)) || *p || v < INT32_MIN || v > INT32_MAX)
		return false;
	*ret = (int32_t)v;
	return true;
}

/* "60/00007fff86e452a8"; kernels before 4.15 write "(null)" for 0. */
static bool read_signal(const char *p, struct posix_timer *t)
{
	int64_t signo;

	p = text_i64(p, &signo);
	if (!p || *p != '/')
		return false;
	t->signo = (int32_t)signo;
	return !strcmp(p + 1, "(null)") || text_u64(p + 1, 16, &t->sigval);
}

/* "signal/pid.2634", "none/pid.1", "thread/pid.7", "signal/tid.2635" */
static bool read_notify(const char *p, struct posix_timer *t)
{
	static const struct {
		const char *name;
		int32_t notify;
	} kinds[] = { { "signal/", SIGEV_SIGNAL },
		      { "none/", SIGEV_NONE },
		      { "thread/", SIGEV_THREAD } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i].name);

		if (strncmp(p, kinds[i].name, n))
			continue;
		t->notify = kinds[i].notify;
		if (strncmp(p + n, "tid.", 4))
			return !strncmp(p + n, "pid.", 4);
		t->notify |= SIGEV_THREAD_ID;
		return read_id(p + n + 4, &t->notify_tid);
	}
	return false;
}

/* The line belongs to t, or is not known. */
static bool read_line(char *line, struct posix_timer *t)
{
	char *p;

	if ((p = text_after(line, "signal:")))
		return read_signal(p, t);
	if ((p = text_after(line, "notify:")))
		return read_notify(p, t);
	if ((p = text_after(line, "ClockID:")))
		return read_id(p, &t->clockid);
	return true;
}

int proc_timers_parse(char *text, struct arena *a, struct posix_timer **ret, unsigned *ret_n,
		      struct err *err)
{
	struct posix_timer *timers = NULL, *t = NULL;
	unsigned n = 0;
	char *line, *p;

	while ((line = text_line(&text))) {
		bool ok = true;

		if ((p = text_after(line, "ID:"))) {
			t = arena_push(a, &timers, &n, sizeof *t);
			if (!t)
				return err_nomem(err);
			ok = read_id(p, &t->id);
		} else if (t) {
			ok = read_line(line, t);
		}
		if (!ok)
			return err_set(err, -EBADMSG,
				       "cannot read '/proc/PID/timers': bad line '%.60s'", line);
	}
	*ret = timers;
	*ret_n = n;
	return 0;
}

int proc_timers_read(int dirfd, struct arena *a, struct posix_timer **ret, unsigned *ret_n,
		     struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	int rc = text_read(dirfd, "timers", &text, NULL, err);

	return rc < 0 ? rc : proc_timers_parse(text, a, ret, ret_n, err);
}
