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

/* --- which cannot be made again --------------------------------------------------------------- */

enum { CLOCK_PER_THREAD = 4, CLOCK_KIND_MASK = 3, CLOCK_KIND_FD = 3 };

int32_t proc_inner_tid(pid_t pid, pid_t tid, struct arena *a)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_status st;

	if (proc_open_tid(pid, tid, &dirfd, NULL) < 0 || proc_status_read(dirfd, a, &st, NULL) < 0)
		return 0;
	return st.ns_pid;
}

/* Is it a thread of this process, by the id that the job sees? */
static bool is_own_thread(pid_t pid, int32_t inner, struct arena *a)
{
	CLEANUP_FD int dirfd = -1;
	unsigned n;
	pid_t *tids;

	if (proc_open_pid(proc_live_thread(pid), &dirfd, NULL) < 0 ||
	    proc_threads(dirfd, a, &tids, &n, NULL) < 0)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (proc_inner_tid(pid, tids[i], a) == inner)
			return true;
	return false;
}

const char *proc_timer_refusal(pid_t pid, int32_t inner, const struct posix_timer *t,
			       struct arena *a)
{
	int32_t owner = proc_clock_owner(t->clockid);

	if ((t->notify & SIGEV_THREAD_ID) && !proc_inner_tid(pid, t->notify_tid, a))
		return "that signals a thread which is gone";
	if (t->clockid >= 0)
		return NULL;
	if ((t->clockid & CLOCK_KIND_MASK) == CLOCK_KIND_FD)
		return "on a clock device";
	if (owner && owner != inner &&
	    !((t->clockid & CLOCK_PER_THREAD) && is_own_thread(pid, owner, a)))
		return "on the CPU time of another process";
	return NULL;
}
