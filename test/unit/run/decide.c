/* SPDX-License-Identifier: BSD-2-Clause */
/* What is decided without a job: meanings of signals, due times, --stats lines, repeated troubles,
 * PATH. */
#include "../check.h"

#include "run/cadence.h"
#include "run/launch.h"
#include "run/schedule.h"
#include "run/signals.h"
#include "run/stats.h"
#include "run/trouble.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SELF = 100, ROOT = 200, STRANGER = 300 };

#define FROM_KERNEL 0x80 /* SI_KERNEL */

static void test_signals(void)
{
	const struct signal_facts job = { .self = SELF, .with_us = true };
	const struct signal_facts apart = { .self = SELF, .with_us = false };
	const struct signal_facts inside = { .self = SELF, .with_us = true, .from_job = true };
	const struct signal_facts on_term = { .self = SELF, .with_us = true, .on_term = true };
	const struct signal_facts attached = { .self = SELF, .attached = true };
	const struct signal_facts attached_term = { .self = SELF,
						    .attached = true,
						    .on_term = true };
	const struct {
		int signo, code, from;
		const struct signal_facts *facts;
		enum signal_action want;
	} table[] = {
		/* sent to us by somebody: means the job */
		{ SIGINT, SI_USER, STRANGER, &job, SIGNAL_FORWARD },
		{ SIGTERM, SI_USER, STRANGER, &job, SIGNAL_FORWARD },
		{ SIGHUP, SI_USER, STRANGER, &job, SIGNAL_FORWARD },
		{ SIGUSR2, SI_QUEUE, STRANGER, &job, SIGNAL_FORWARD },
		{ SIGTSTP, SI_USER, STRANGER, &job, SIGNAL_FORWARD },
		{ SIGCONT, SI_USER, STRANGER, &job, SIGNAL_CONTINUE },
		{ SIGRTMIN + 3, SI_QUEUE, STRANGER, &job, SIGNAL_FORWARD },
		/* the terminal's: the job has its own, unless it is in another group */
		{ SIGINT, FROM_KERNEL, 0, &job, SIGNAL_NOTHING },
		{ SIGQUIT, FROM_KERNEL, 0, &job, SIGNAL_NOTHING },
		{ SIGWINCH, FROM_KERNEL, 0, &job, SIGNAL_NOTHING },
		{ SIGINT, FROM_KERNEL, 0, &apart, SIGNAL_FORWARD },
		{ SIGHUP, FROM_KERNEL, 0, &apart, SIGNAL_FORWARD },
		{ SIGTSTP, FROM_KERNEL, 0, &job, SIGNAL_TERMINAL_STOP },
		{ SIGCONT, FROM_KERNEL, 0, &job, SIGNAL_CONTINUE },
		/* `alarm 5; exec ckpt-run job`; but a limit of ours is ours */
		{ SIGALRM, FROM_KERNEL, 0, &job, SIGNAL_FORWARD },
		{ SIGXCPU, FROM_KERNEL, 0, &job, SIGNAL_NOTHING },
		/* kill(0, ...) by the job reached all of the group */
		{ SIGTERM, SI_USER, ROOT, &inside, SIGNAL_NOTHING },
		/* a message of ours went to a closed pipe */
		{ SIGPIPE, SI_USER, SELF, &job, SIGNAL_NOTHING },
		{ SIGPIPE, SI_USER, STRANGER, &job, SIGNAL_FORWARD },
		{ SIGCHLD, CLD_EXITED, ROOT, &job, SIGNAL_CHILD },
		{ SIGUSR1, SI_USER, STRANGER, &job, SIGNAL_CHECKPOINT },
		{ SIGUSR1, SI_USER, ROOT, &inside, SIGNAL_CHECKPOINT },
		{ SIGTERM, SI_USER, STRANGER, &on_term, SIGNAL_CHECKPOINT_END },
		{ SIGINT, SI_USER, STRANGER, &on_term, SIGNAL_FORWARD },
		/* --pid: not our job to end */
		{ SIGTERM, SI_USER, STRANGER, &attached, SIGNAL_LET_GO },
		{ SIGINT, FROM_KERNEL, 0, &attached, SIGNAL_LET_GO },
		{ SIGHUP, FROM_KERNEL, 0, &attached, SIGNAL_LET_GO },
		{ SIGTSTP, FROM_KERNEL, 0, &attached, SIGNAL_TERMINAL_STOP },
		{ SIGUSR2, SI_USER, STRANGER, &attached, SIGNAL_NOTHING },
		{ SIGUSR1, SI_USER, STRANGER, &attached, SIGNAL_CHECKPOINT },
		{ SIGTERM, SI_USER, STRANGER, &attached_term, SIGNAL_CHECKPOINT_END },
	};

	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct signalfd_siginfo si = {
			.ssi_signo = (uint32_t)table[i].signo,
			.ssi_code = table[i].code,
			.ssi_pid = (uint32_t)table[i].from,
		};
		enum signal_action got = signal_decide(&si, table[i].facts);

		if (got != table[i].want) {
			fprintf(stderr, "row %zu (signal %d): %d, not %d\n", i, table[i].signo, got,
				table[i].want);
			exit(1);
		}
	}
}

static void test_from_tree(void)
{
	CHECK(signal_from_tree(getpid(), getppid()));
	CHECK(signal_from_tree(getpid(), getpid()));
	CHECK(!signal_from_tree(getppid(), getpid()));
	CHECK(!signal_from_tree(0, getpid()));
}

#define S UINT64_C(1000000000)

static void test_schedule(void)
{
	struct schedule s;
	uint64_t now = 1000 * S, last = 0;

	schedule_init(&s, 0, now);
	CHECK(s.due_ns == SCHEDULE_NEVER && !schedule_is_due(&s, SCHEDULE_NEVER));
	schedule_request(&s, now);
	CHECK(schedule_is_due(&s, now));
	schedule_attempted(&s, ATTEMPT_OK, false, now + S);
	CHECK(s.due_ns == SCHEDULE_NEVER);

	/* from the end of an attempt, good or bad */
	schedule_init(&s, 10 * S, now);
	CHECK(!schedule_is_due(&s, now + 10 * S - 1) && schedule_is_due(&s, now + 10 * S));
	schedule_attempted(&s, ATTEMPT_OK, false, now + 17 * S);
	CHECK_INT(s.due_ns, now + 27 * S);
	schedule_attempted(&s, ATTEMPT_FAILED, false, now + 30 * S);
	CHECK_INT(s.due_ns, now + 40 * S);
	schedule_attempted(&s, ATTEMPT_OK, true, now + 41 * S);
	CHECK(schedule_is_due(&s, now + 41 * S));

	/* 0.1 s, doubling, up to the interval; a success ends it */
	for (int i = 0; i < 20; i++) {
		schedule_attempted(&s, ATTEMPT_AGAIN, false, now);
		CHECK(s.due_ns > now && s.due_ns <= now + 10 * S && s.due_ns >= last);
		CHECK(i != 0 || s.due_ns == now + S / 10);
		CHECK(i != 3 || s.due_ns == now + S * 8 / 10);
		last = s.due_ns;
	}
	CHECK_INT(last, now + 10 * S);
	schedule_attempted(&s, ATTEMPT_OK, false, now);
	schedule_attempted(&s, ATTEMPT_AGAIN, false, now);
	CHECK_INT(s.due_ns, now + S / 10);

	schedule_init(&s, SCHEDULE_NEVER - 5, now);
	CHECK(s.due_ns == SCHEDULE_NEVER);
}

/* Daly 2006, figure 2 and around: C 5 min, M 6 h gives somewhat less than Young's hour. */
static void test_cadence(void)
{
	struct settings settings = { .mtbf_ns = 86400 * S };
	struct cadence c = { 0 };
	struct dump_result r = { .pause_us = 3000, .incremental = true, .mode = "stop" };
	uint64_t young, daly;

	young = (uint64_t)(sqrt(2.0 * 300 * 21600) * 1e9);
	daly = cadence_interval(300 * S, 21600 * S, 0);
	CHECK(daly < young && daly > young - 300 * S);
	/* 5 ms a day's MTBF: 29.4 s, where the correction is nothing */
	daly = cadence_interval(S / 200, 86400 * S, 0);
	CHECK(daly > 293 * S / 10 && daly < 295 * S / 10);
	/* more cost, or rarer failures: longer */
	CHECK(cadence_interval(S, 86400 * S, 0) > daly);
	CHECK(cadence_interval(S / 200, 864000 * S, 0) > daly);
	/* a checkpoint that costs more than failures allow */
	CHECK_INT(cadence_interval(100 * S, 10 * S, 0), 10 * S);
	/* 1 % at most: 99 times the cost; a bound that is kept anyway changes nothing */
	CHECK_INT(cadence_interval(S, 10 * S, 10000), 99 * S);
	CHECK_INT(cadence_interval(S / 200, 86400 * S, 10000), daly);
	/* never so short that nothing else is done, and no overflow */
	CHECK_INT(cadence_interval(0, S, 0), S / 10);
	CHECK(cadence_interval(UINT64_MAX, UINT64_MAX, 1) < SCHEDULE_NEVER);

	r.totals.pages_written = 1000;
	CHECK_INT(cadence_cost(&r, 4000000, 2), 3000000 + 2000000 + 1000000);
	r.incremental = false;
	CHECK_INT(cadence_cost(&r, 0, 2), 3000000);

	CHECK_INT(cadence_next(&c, &settings), cadence_interval(S / 100, 86400 * S, 0));
	cadence_note(&c, false, false, 8 * S);
	CHECK_INT(cadence_next(&c, &settings), cadence_interval(8 * S, 86400 * S, 0));
	cadence_note(&c, false, false, 2 * S);
	CHECK_INT(c.full_ns, 5 * S);
	settings.max_overhead = 1000;
	CHECK_INT(cadence_next(&c, &settings), 999 * 5 * S);
}

/* A job's checkpoints change: full images among increments, a job that grows, attempts that fail.
 */
static void test_cadence_changes(void)
{
	struct settings settings = { .mtbf_ns = 86400 * S, .incremental = 1, .full_every = 50 };
	struct cadence c = { 0 };
	uint64_t calm, now;

	cadence_note(&c, false, true, 1);
	CHECK_INT(cadence_next(&c, &settings), cadence_interval(S / 100, 86400 * S, 0));
	/* after a dear full image it does not wait long for an increment's price */
	cadence_note(&c, false, false, 2 * S);
	CHECK(cadence_mean(&c, &settings) < S / 10);
	cadence_note(&c, true, false, S / 100);
	calm = cadence_next(&c, &settings);
	CHECK_INT(cadence_mean(&c, &settings), 2 * S / 50 + S / 100 / 50 * 49);
	/* the next full one, 49 later, costs the same, and changes nothing */
	cadence_note(&c, false, false, 2 * S);
	CHECK_INT(cadence_next(&c, &settings), calm);
	/* increments that cost a hundred times as much: within three of them it is 9 times slower
	 */
	for (int i = 0; i < 3; i++)
		cadence_note(&c, true, false, S);
	now = cadence_next(&c, &settings);
	CHECK(now > 4 * calm && now < 10 * calm);
	/* and as quick as before after some that are cheap again */
	for (int i = 0; i < 10; i++)
		cadence_note(&c, true, false, S / 100);
	CHECK(cadence_next(&c, &settings) < calm * 11 / 10);
	/* a refusal is cheap: no reason to try oftener; a full disk is found late */
	now = cadence_next(&c, &settings);
	cadence_note(&c, true, true, S / 1000);
	CHECK_INT(cadence_next(&c, &settings), now);
	cadence_note(&c, true, true, S);
	CHECK(cadence_next(&c, &settings) > 2 * now);
	/* never a full one again, or only such */
	settings.full_every = 0;
	CHECK_INT(cadence_mean(&c, &settings), c.increment_ns);
	settings.incremental = 0;
	CHECK_INT(cadence_mean(&c, &settings), c.full_ns);
}

static void test_trouble(void)
{
	struct trouble t = { 0 };
	char msg[32];

	CHECK(trouble_is_new(&t, "disk full") && !trouble_is_new(&t, "disk full") &&
	      trouble_is_new(&t, "no"));
	trouble_forget(&t);
	CHECK(trouble_is_new(&t, "disk full"));
	for (int i = 0; i < 5 * TROUBLE_MAX; i++) {
		(void)snprintf(msg, sizeof msg, "trouble %d", i);
		CHECK(trouble_is_new(&t, msg) && !trouble_is_new(&t, msg));
	}
	(void)snprintf(msg, sizeof msg, "trouble %d", 5 * TROUBLE_MAX - TROUBLE_MAX);
	CHECK(!trouble_is_new(&t, msg));
	CHECK(trouble_is_new(&t, "trouble 0"));
}

static void test_stats(void)
{
	const struct dump_result r = {
		.seq = 7,
		.incremental = true,
		.state = { { 0x01, 0xab, [15] = 0xff } },
		.tracker = "uffd",
		.mode = "copy",
		.why = "so",
		.pause_us = 1,
		.freeze_us = 2,
		.scan_us = 3,
		.snapshot_us = 4,
		.thaw_us = 14,
		.write_us = 5,
		.pages_present = 6,
		.totals = { .pages_written = 70,
			    .pages_zero = 8,
			    .pages_parent = 9,
			    .bytes_raw = 10,
			    .bytes_stored = 11 },
		.processes = 12,
		.threads = 13,
	};
	struct err err = { 0 };
	char *line = stats_line(0, &r, NULL);

	CHECK_STR(line,
		  "{\"seq\": 7, \"kind\": \"incremental\", \"state\": "
		  "\"01ab00000000000000000000000000ff\", "
		  "\"tracker\": \"uffd\", \"result\": \"ok\", \"pause_us\": 1, "
		  "\"freeze_us\": 2, \"scan_us\": 3, "
		  "\"snapshot_us\": 4, \"thaw_us\": 14, \"write_us\": 5, \"pages_present\": 6, "
		  "\"pages_written\": 70, \"pages_zero\": 8, "
		  "\"bytes_raw\": 10, \"bytes_stored\": 11, \"processes\": 12, \"threads\": "
		  "13, \"mode\": \"copy\", \"why\": \"so\", "
		  "\"error\": null}\n");
	free(line);
	err_set(&err, -ENOSPC, "cannot write '\"\\\n\x01\xff\xc3\xa4'");
	line = stats_line(-ENOSPC, &r, &err);
	CHECK_HAS(line, "\"result\": \"failed\"");
	CHECK_HAS(line, "\"error\": \"cannot write '\\\"\\\\\\u000a\\u0001\\ufffd\xc3\xa4'\"}\n");
	free(line);
	err_hint(&err, "free some \"space\"");
	line = stats_line(-ENOSPC, &r, &err);
	CHECK_HAS(line, "\xc3\xa4' (free some \\\"space\\\")\"}\n");
	free(line);
	line = stats_line(-EAGAIN, &r, &err);
	CHECK_HAS(line, "\"result\": \"skipped\"");
	free(line);
}

static void touch(const char *path, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && fchmod(fd, mode) == 0);
	(void)close(fd);
}

static void check_find(const char *name, int status, const char *want)
{
	struct err err = { 0 };
	char *path = NULL;
	int rc = launch_find(name, &path, &err);

	CHECK_INT(err.exit_status, status);
	if (rc == 0)
		CHECK_STR(path, want);
	else
		CHECK_HAS(err.msg, want);
	free(path);
}

static void test_find(void)
{
	char dir[] = "/tmp/decide.XXXXXX";

	CHECK(mkdtemp(dir) && chdir(dir) == 0);
	CHECK(mkdir("a", 0700) == 0 && mkdir("b", 0700) == 0 && mkdir("a/sub", 0700) == 0);
	touch("b/prog", 0700);
	touch("a/data", 0600);
	touch("here", 0700);
	CHECK(setenv("PATH", "a:b", 1) == 0);
	check_find("prog", 0, "b/prog");
	check_find("data", EXIT_NOEXEC, "cannot run 'data': Permission denied");
	check_find("nothing", EXIT_NOENT, "cannot run 'nothing': not found in PATH");
	check_find("sub", EXIT_NOENT, "not found");
	check_find("here", EXIT_NOENT, "not found");
	check_find("./here", 0, "./here");
	check_find("./nothing", EXIT_NOENT, "cannot run './nothing': No such file");
	check_find("./a", EXIT_NOEXEC, "Is a directory");
	check_find("./here/x", EXIT_NOENT, "No such file");
	check_find("", EXIT_NOENT, "not found");
	/* an empty entry is the working directory, in front, in the middle and at the end */
	CHECK(setenv("PATH", "a:", 1) == 0);
	check_find("here", 0, "./here");
	CHECK(setenv("PATH", ":a", 1) == 0);
	check_find("here", 0, "./here");
	CHECK(unlink("b/prog") == 0 && unlink("a/data") == 0 && unlink("here") == 0);
	CHECK(rmdir("a/sub") == 0 && rmdir("a") == 0 && rmdir("b") == 0 && rmdir(dir) == 0);
}

int main(void)
{
	test_signals();
	test_from_tree();
	test_schedule();
	test_cadence();
	test_cadence_changes();
	test_trouble();
	test_stats();
	test_find();
	return 0;
}
