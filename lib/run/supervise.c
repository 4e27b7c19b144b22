/* SPDX-License-Identifier: BSD-2-Clause */
/* Supervising a job from its start to its end: signals, checkpoints, job control, its exit. */
#include "run/supervise.h"

#include "run/attempt.h"
#include "run/cadence.h"
#include "run/ended.h"
#include "run/report.h"
#include "run/schedule.h"
#include "run/signals.h"
#include "util/cleanup.h"

#include <poll.h>
#include <string.h>
#include <sys/wait.h>

#define LOG_ROOM "run"
#include "util/log.h"

/*
 * Two threads: this one listens, the checkpoint thread (attempt.c) does all that is ptrace. While
 * an attempt is under way nothing here may wait for a child: a wait in this thread would also take
 * the ptrace stops that the other one is waiting for, since both are one process. That the root has
 * ended is seen through its pidfd instead.
 */
struct supervisor {
	const struct supervise_opts *o;
	int signal_fd;
	struct checkpointer *cp; /* NULL: no checkpoints */
	struct schedule schedule;
	struct cadence cadence;
	struct terminal own_term, *term;
	struct report report;
	bool busy;                         /* an attempt is under way */
	bool kills;                        /* which ends the job if it succeeds */
	bool again;                        /* and another one was asked for meanwhile */
	bool ending;                       /* checkpoint, then end the job (--on-term, --kill) */
	struct signalfd_siginfo ending_si; /* the signal that asked for it */
	bool noted;                        /* in the chain: whose it is */
	bool saved;                        /* that has happened: the job is about to be gone */
	bool root_ended;
	bool kept;         /* restarted with --lazy, and not all memory is there yet */
	bool let_go;       /* attached: end as soon as no attempt is under way */
	bool stop_pending; /* attached: stop ourselves as soon as that is so */
	bool was_stopped;  /* we stopped ourselves; the SIGCONT is yet to be read */
	bool done;
	uint64_t patience_until_ns; /* once, ending: how long to try to stop the job */
	struct supervise_end *end;
	struct err *err;
};

#define PATIENCE_NS UINT64_C(30000000000)
/* A job that cannot be stopped is news only when that lasts. */
#define PERSISTENT_NS UINT64_C(1000000000)

static void start_attempt(struct supervisor *s)
{
	s->busy = true;
	signals_watch_children(s->signal_fd, false);
	s->again = false;
	s->kills = s->ending;
	checkpointer_start(s->cp, (s->kills ? DUMP_KILL : 0u) | (s->o->once ? DUMP_LAST : 0u));
}

/* --- signals -------------------------------------------------------------------------------------
 */

static void forward(struct supervisor *s, const struct signalfd_siginfo *si)
{
	int rc = signal_forward(s->o->pidfd, si);
	struct err err = { 0 };

	log_debug("signal %u passed on: %d", si->ssi_signo, rc);
	if (rc < 0 && rc != -ESRCH) {
		err_set(&err, rc, "cannot pass signal %u on to the job: %m", si->ssi_signo);
		report_trouble(&s->report, &err);
	}
}

static void ask_for_checkpoint(struct supervisor *s)
{
	struct err err = { 0 };

	if (!s->cp) {
		err_set(&err, -EINVAL, "no checkpoint was taken: checkpoints are off for this job");
		report_trouble(&s->report, &err);
	} else if (s->busy) {
		s->again = true;
	} else {
		schedule_request(&s->schedule, schedule_now());
	}
}

static void ask_for_end(struct supervisor *s, const struct signalfd_siginfo *si)
{
	if (!s->cp) {
		forward(s, si);
		return;
	}
	if (s->ending)
		return;
	s->ending = true;
	s->ending_si = *si;
	s->patience_until_ns = schedule_now() + PATIENCE_NS;
	ask_for_checkpoint(s);
}

static void on_continue(struct supervisor *s, const struct signalfd_siginfo *si)
{
	bool was_stopped = s->was_stopped;

	s->was_stopped = false;
	s->term->stop_asked = false;
	/* The shell's SIGCONT goes to the whole group: the job has one of its own, unless it is in
	 * another group. */
	if (!was_stopped || terminal_is_stopped(s->o->root))
		forward(s, si);
}

static void on_signal(struct supervisor *s, const struct signalfd_siginfo *si)
{
	const struct signal_facts facts = {
		.self = getpid(),
		.with_us = getpgid(s->o->root) == getpgrp(),
		.attached = s->o->attached,
		.on_term = s->o->settings->on_term,
		.from_job = si->ssi_code <= 0 && signal_from_tree((pid_t)si->ssi_pid, s->o->root),
	};

	switch (signal_decide(si, &facts)) {
	case SIGNAL_NOTHING:
	case SIGNAL_CHILD: /* looked after in every turn of the loop */
		break;
	case SIGNAL_FORWARD:
		forward(s, si);
		break;
	case SIGNAL_CHECKPOINT:
		ask_for_checkpoint(s);
		break;
	case SIGNAL_CHECKPOINT_END:
		ask_for_end(s, si);
		break;
	case SIGNAL_TERMINAL_STOP:
		if (s->o->attached)
			s->stop_pending = true;
		else
			terminal_stop_asked(s->term, schedule_now());
		break;
	case SIGNAL_CONTINUE:
		on_continue(s, si);
		break;
	case SIGNAL_LET_GO:
		s->let_go = true;
		s->end->value = (int)si->ssi_signo;
		break;
	}
}

static void read_signals(struct supervisor *s)
{
	struct signalfd_siginfo si;

	while (read(s->signal_fd, &si, sizeof si) == (ssize_t)sizeof si)
		on_signal(s, &si);
}

/* --- attempts ------------------------------------------------------------------------------------
 */

static void once_ended(struct supervisor *s, const struct attempt *a)
{
	if (a->rc == -EAGAIN && schedule_now() < s->patience_until_ns && !s->let_go)
		return;
	if (a->rc == 0) {
		s->saved = s->ending;
		s->done = !s->ending;
		s->end->how = JOB_CHECKPOINTED;
		return;
	}
	*s->err = a->err;
	s->end->how = JOB_NOT_SAVED;
	s->done = true;
}

/* --on-term: the one who sent SIGTERM wants the job to end. When it cannot be saved, it ends as it
 * would have. */
static void ending_ended(struct supervisor *s, const struct attempt *a)
{
	if (a->rc == 0) {
		s->saved = true;
		return;
	}
	if (a->rc == -EAGAIN && schedule_now() < s->patience_until_ns)
		return;
	s->ending = false;
	forward(s, &s->ending_si);
}

/* --interval auto: what this one cost says when the next is due. */
static void learn(struct supervisor *s, const struct attempt *a)
{
	long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!s->o->settings->mtbf_ns || s->o->once || !a->result.pause_us)
		return;
	cadence_note(&s->cadence, a->result.incremental, a->rc < 0,
		     cadence_cost(&a->result, a->cpu_ns, n_cpus > 0 ? (unsigned)n_cpus : 1));
	s->schedule.interval_ns = cadence_next(&s->cadence, s->o->settings);
	report_verbose(&s->report, "a checkpoint costs %.1f ms: the next in %.1f s",
		       (double)cadence_mean(&s->cadence, s->o->settings) / 1e6,
		       (double)s->schedule.interval_ns / 1e9);
}

static uint64_t first_interval(const struct supervise_opts *o)
{
	const struct cadence none = { 0 };

	if (o->once)
		return 0;
	return o->settings->mtbf_ns ? cadence_next(&none, o->settings) : o->settings->interval_ns;
}

/* Once the chain is this job's: it may outlive us. */
static void note_job(struct supervisor *s)
{
	struct err err = { 0 };

	if (!s->o->chain || s->noted)
		return;
	s->noted = true;
	if (chain_note_job(s->o->chain, s->o->root, &err) < 0)
		report_trouble(&s->report, &err);
}

static void on_attempt(struct supervisor *s)
{
	enum attempt_outcome outcome;
	struct attempt a;

	checkpointer_take(s->cp, &a);
	s->busy = false;
	signals_watch_children(s->signal_fd, true);
	learn(s, &a);
	outcome = a.rc == 0 ? ATTEMPT_OK : a.rc == -EAGAIN ? ATTEMPT_AGAIN : ATTEMPT_FAILED;
	schedule_attempted(&s->schedule, outcome, s->again, schedule_now());
	report_attempt(&s->report, &a, s->schedule.backoff_ns >= PERSISTENT_NS, !s->o->once);
	if (a.rc == 0) {
		s->end->checkpoints++;
		note_job(s);
	}
	if (s->o->once)
		once_ended(s, &a);
	else if (s->kills) /* not one that was under way when the request came: that was noted in
			      again */
		ending_ended(s, &a);
}

/* --- the job's state -----------------------------------------------------------------------------
 */

static bool root_is_our_child(const struct supervisor *s)
{
	return !s->o->attached && s->o->status_fd < 0;
}

/* The signal by which the root was stopped since we last looked, 0 if it was not. */
static int take_stop(struct supervisor *s)
{
	siginfo_t si = { 0 };

	if (!root_is_our_child(s) || waitid(P_PID, (id_t)s->o->root, &si, WSTOPPED | WNOHANG) < 0)
		return 0;
	return si.si_pid ? si.si_status : 0;
}

static void look_for_stop(struct supervisor *s)
{
	int signo = take_stop(s);
	bool look = signo || terminal_poll_ms(s->term, schedule_now()) >= 0;

	if (!s->stop_pending &&
	    !(look && terminal_follows(s->term, signo) && terminal_is_stopped(s->o->root)))
		return;
	s->stop_pending = false;
	s->was_stopped = true;
	log_debug("stopping with the job");
	terminal_stop_self(s->term, s->o->root, signo);
}

/* Orphans of the job that became ours. The root stays a zombie until we are through with it. */
static void reap_orphans(struct supervisor *s)
{
	for (;;) {
		siginfo_t si = { 0 };

		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || !si.si_pid)
			return;
		if (si.si_pid == s->o->root || si.si_pid == s->o->child)
			return;
		(void)waitid(P_PID, (id_t)si.si_pid, &si, WEXITED | WNOHANG);
	}
}

static void finish(struct supervisor *s)
{
	s->done = true;
	if (s->saved) {
		struct supervise_end killed;

		if (!s->o->attached)
			ended_take(s->o, &killed);
		s->end->how = JOB_SAVED;
	} else if (s->o->once && s->root_ended) {
		s->end->how = JOB_NOT_SAVED;
		err_set(s->err, -ESRCH, "process %d ended before its checkpoint was taken",
			s->o->root);
	} else if (s->root_ended) {
		ended_take(s->o, s->end);
	} else {
		s->end->how = JOB_LET_GO;
	}
}

/* --- the loop ------------------------------------------------------------------------------------
 */

static struct timespec *time_left(struct supervisor *s, struct timespec *ts)
{
	uint64_t now = schedule_now(), ns = UINT64_MAX;
	int ms = terminal_poll_ms(s->term, now);

	if (s->cp && !s->busy && !s->kept && !s->saved && s->schedule.due_ns != SCHEDULE_NEVER)
		ns = s->schedule.due_ns > now ? s->schedule.due_ns - now : 0;
	if (ms >= 0)
		ns = MIN(ns, (uint64_t)ms * 1000000);
	/* a root below an init of ours stops without a SIGCHLD to us */
	if (s->o->status_fd >= 0 && s->term->fd >= 0)
		ns = MIN(ns, UINT64_C(1000000000));
	if (ns == UINT64_MAX)
		return NULL;
	ts->tv_sec = (time_t)(ns / 1000000000);
	ts->tv_nsec = (long)(ns % 1000000000);
	return ts;
}

static void wait_for_events(struct supervisor *s)
{
	struct pollfd fds[] = {
		{ .fd = s->signal_fd, .events = POLLIN },
		{ .fd = s->busy ? checkpointer_fd(s->cp) : -1, .events = POLLIN },
		{ .fd = s->root_ended ? -1 : s->o->pidfd, .events = POLLIN },
		{ .fd = s->kept ? s->o->keeper : -1, .events = POLLIN },
	};
	struct timespec ts;

	if (ppoll(fds, ARRAY_SIZE(fds), time_left(s, &ts), NULL) < 0)
		return;
	if (fds[0].revents)
		read_signals(s);
	if (fds[1].revents)
		on_attempt(s);
	if (fds[2].revents)
		s->root_ended = true;
	if (fds[3].revents)
		s->kept = false;
}

static void turn(struct supervisor *s)
{
	wait_for_events(s);
	if (s->done || s->busy || s->kept)
		return;
	if (s->root_ended || (s->let_go && !s->saved)) {
		finish(s);
		return;
	}
	reap_orphans(s);
	look_for_stop(s);
	if (s->cp && !s->saved && schedule_is_due(&s->schedule, schedule_now()))
		start_attempt(s);
}

int supervise(const struct supervise_opts *o, int signal_fd, struct supervise_end *end,
	      struct err *err)
{
	struct supervisor s = {
		.o = o,
		.signal_fd = signal_fd,
		.report = { .program = o->program, .verbose = o->verbose, .stats_fd = o->stats_fd },
		.ending = o->once && o->kill,
		.kept = o->keeper > 0,
		.end = end,
		.err = err,
	};
	int rc;

	*end = (struct supervise_end){ .how = JOB_LET_GO };
	if (o->chain) {
		rc = checkpointer_new(o->root, o->chain, o->settings, o->full, &s.cp, err);
		if (rc < 0)
			return rc;
	}
	if (s.cp && !o->attached)
		checkpointer_adopts(s.cp);
	schedule_init(&s.schedule, first_interval(o), schedule_now());
	if (o->once) {
		schedule_request(&s.schedule, schedule_now());
		s.patience_until_ns = schedule_now() + PATIENCE_NS;
	}
	if (o->replace)
		checkpointer_replace(s.cp);
	else
		note_job(&s);
	s.term = o->terminal ? o->terminal : &s.own_term;
	if (!o->terminal)
		terminal_init(s.term);
	if (!o->attached)
		terminal_lend(s.term, o->root, 0);
	while (!s.done)
		turn(&s);
	terminal_fini(s.term);
	checkpointer_free(s.cp);
	return end->how == JOB_NOT_SAVED ? err->code : 0;
}
