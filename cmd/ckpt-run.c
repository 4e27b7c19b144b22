/* SPDX-License-Identifier: BSD-2-Clause */
/* ckpt-run: runs a program, or takes on a running one, and checkpoints its process tree. */
#include "options.h"
#include "dump/dump.h"
#include "proc/orphans.h"
#include "run/attach.h"
#include "run/claim.h"
#include "run/launch.h"
#include "run/signals.h"
#include "run/stats.h"
#include "run/supervise.h"
#include "util/cleanup.h"
#include "util/fault.h"

#include <ctype.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PROGRAM "ckpt-run"

enum {
	OPT_OUTPUT = OPTION_FIRST,
	OPT_INTERVAL,
	OPT_MTBF,
	OPT_MAX_OVERHEAD,
	OPT_OVERWRITE,
	OPT_PID,
	OPT_ONCE,
	OPT_KILL,
	OPT_FULL_EVERY,
	OPT_NO_INCREMENTAL,
	OPT_NO_SNAPSHOT,
	OPT_MODE,
	OPT_TRACKER,
	OPT_COMPRESS,
	OPT_KEEP,
	OPT_STATS,
	OPT_ON_TERM,
	OPT_FD,
	OPT_UNSUPPORTED,
	OPT_DENY_IO_URING,
	OPT_TCP,
};

static const struct option_row rows[] = {
	{ OPT_OUTPUT, 'o', "output", "DIR",
	  "the chain: directory of the images (default: ./NAME.ckpt)" },
	{ OPT_INTERVAL, 'i', "interval", "TIME|auto",
	  "a checkpoint every TIME (60, 1.5, 30s, 5m, 2h), or as often as pays; without it only on "
	  "SIGUSR1" },
	{ OPT_MTBF, 0, "mtbf", "TIME",
	  "with --interval auto: how often failures are expected (default 24h)" },
	{ OPT_MAX_OVERHEAD, 0, "max-overhead", "PERCENT",
	  "with --interval auto: what checkpoints may cost the job at most" },
	{ OPT_OVERWRITE, 0, "overwrite", NULL,
	  "start over in a chain that holds an unfinished job" },
	{ OPT_PID, 'p', "pid", "PID",
	  "take on the running tree of process PID instead of starting a program" },
	{ OPT_ONCE, '1', "once", NULL, "with --pid: one checkpoint, then let go" },
	{ OPT_KILL, 'k', "kill", NULL, "with --once: end the tree once its checkpoint is on disk" },
	{ OPT_FULL_EVERY, 0, "full-every", "N",
	  "a full image every N (default 50), increments between" },
	{ OPT_NO_INCREMENTAL, 0, "no-incremental", NULL, "every image full" },
	{ OPT_NO_SNAPSHOT, 0, "no-snapshot", NULL, "copy while stopped instead of copy-on-write" },
	{ OPT_MODE, 0, "mode", "auto|stop|snapshot|precopy",
	  "how memory is copied: while stopped, from a copy-on-write snapshot, ahead while the job "
	  "runs, or as is best (default auto)" },
	{ OPT_TRACKER, 0, "tracker", "auto|uffd|softdirty|hash",
	  "how changed pages are found (default auto)" },
	{ OPT_COMPRESS, 0, "compress", "lz4|none|auto", "compression of pages (default auto)" },
	{ OPT_KEEP, 0, "keep", "N", "keep the last N restartable states (default 2)" },
	{ OPT_STATS, 0, "stats", "FILE", "append a JSON line to FILE for each checkpoint" },
	{ OPT_TCP, 0, "tcp", "reset|repair",
	  "TCP connections to others are reset by a restart, or recorded so that they may stay "
	  "open" },
	{ OPT_ON_TERM, 0, "on-term", "forward|checkpoint",
	  "what SIGTERM does: go to the job (default), or checkpoint, end the job and exit 75" },
	{ OPT_FD, 0, "fd", "N=close|null|inherit",
	  "leave descriptor N out of images: closed, /dev/null, or ckpt-restart's at a restart" },
	{ OPT_UNSUPPORTED, 0, "unsupported", "refuse|close",
	  "descriptors that cannot be restored: no checkpoint (default), or closed at a restart" },
	{ OPT_DENY_IO_URING, 0, "deny-io-uring", NULL,
	  "make io_uring_setup fail with ENOSYS, so that the program does without" },
};

static const struct option_spec spec = {
	.program = PROGRAM,
	.usage = "[OPTIONS] [--] PROGRAM [ARG...]\n[OPTIONS] --pid PID",
	.about = "Runs PROGRAM and checkpoints it, so that ckpt-restart can go on with it after a "
		 "crash, a kill or a reboot.",
	.rows = rows,
	.n_rows = ARRAY_SIZE(rows),
	.after = "SIGUSR1 takes a checkpoint now; other signals go to the program.\n"
		 "Exit status: the program's, 128+N when signal N ended it; 2 wrong usage,\n"
		 "125 ckpt-run failed, 126 PROGRAM cannot be executed, 127 PROGRAM not found.\n",
	.stop_at_operand = true,
};

struct request {
	struct options o;
	const char *output;
	pid_t pid; /* 0: start a program */
	bool overwrite, once, kill, interval_given, interval_auto;
	struct settings settings;
};

/* --- the command line ----------------------------------------------------------------------------
 */

static char *tracker_words[] = { "auto", "uffd", "softdirty", "hash", NULL };

/* N=close|null|inherit */
static void take_fd_rule(struct request *q)
{
	static const char *const words[] = { "", "close", "null", "inherit" }; /* enum fd_action */
	struct settings *s = &q->settings;
	char *end;
	long fd = strtol(q->o.arg, &end, 10);

	for (uint32_t i = 1; *end == '=' && end != q->o.arg && i < ARRAY_SIZE(words); i++) {
		if (strcmp(end + 1, words[i]) != 0 || !isdigit((unsigned char)q->o.arg[0]) ||
		    fd > INT32_MAX)
			continue;
		s->fd_rules[s->n_fd_rules++] = (struct fd_rule){ (int32_t)fd, i };
		return;
	}
	options_misuse(&q->o, "invalid N=close|null|inherit '%s' for --fd", q->o.arg);
}

static void take_setting(struct request *q, int id)
{
	static const char *const compress_words[] = { "auto", "lz4", "none",
						      NULL }; /* order of enum compress_mode */
	static const char *const tcp_words[] = { "reset", "repair", NULL };
	static const char *const on_term_words[] = { "forward", "checkpoint", NULL };
	static const char *const unsupported_words[] = { "refuse", "close", NULL };
	struct settings *s = &q->settings;

	switch (id) {
	case OPT_INTERVAL:
		q->interval_auto = !options_interval_ns(&q->o, &s->interval_ns);
		q->interval_given = true;
		break;
	case OPT_MTBF:
		s->mtbf_ns = options_time_ns(&q->o);
		if (!s->mtbf_ns)
			options_misuse(&q->o, "--mtbf must be more than 0");
		break;
	case OPT_MAX_OVERHEAD:
		s->max_overhead = options_percent(&q->o);
		break;
	case OPT_FULL_EVERY:
		s->full_every = (uint32_t)options_int(&q->o, 1, 1000000);
		break;
	case OPT_NO_INCREMENTAL:
		s->incremental = 0;
		break;
	case OPT_NO_SNAPSHOT:
		s->snapshot = MODE_STOP;
		break;
	case OPT_MODE:
		s->snapshot = options_mode(&q->o);
		break;
	case OPT_TRACKER:
		s->tracker =
			tracker_words[options_choice(&q->o, (const char *const *)tracker_words)];
		break;
	case OPT_COMPRESS:
		s->compress = (uint32_t)options_choice(&q->o, compress_words);
		break;
	case OPT_KEEP:
		s->keep = (uint32_t)options_int(&q->o, 1, 1000000);
		break;
	case OPT_STATS:
		s->stats = q->o.arg;
		break;
	case OPT_FD:
		take_fd_rule(q);
		break;
	case OPT_UNSUPPORTED:
		s->close_unsupported = (uint32_t)options_choice(&q->o, unsupported_words);
		break;
	case OPT_DENY_IO_URING:
		s->deny_io_uring = 1;
		break;
	case OPT_TCP:
		s->tcp_repair = (uint32_t)options_choice(&q->o, tcp_words);
		break;
	case OPT_ON_TERM:
		s->on_term = (uint32_t)options_choice(&q->o, on_term_words);
		break;
	}
}

static void check_combination(const struct request *q)
{
	if (q->pid && q->o.n_operands)
		options_misuse(&q->o, "--pid takes no PROGRAM (got '%s')", q->o.operands[0]);
	if (!q->pid && !q->o.n_operands)
		options_misuse(&q->o, "no PROGRAM to run");
	if (q->once && !q->pid)
		options_misuse(&q->o, "--once needs --pid");
	if (q->kill && !q->once)
		options_misuse(&q->o, "--kill needs --once");
	if (q->pid && q->settings.deny_io_uring)
		options_misuse(&q->o, "--deny-io-uring needs a PROGRAM to start");
	if (!q->interval_auto && (q->settings.mtbf_ns || q->settings.max_overhead))
		options_misuse(&q->o, "--mtbf and --max-overhead need --interval auto");
	if (q->once && q->interval_given)
		options_misuse(&q->o, "--once and --interval exclude each other");
}

static void parse_options(struct request *q, int argc, char **argv)
{
	int id;

	*q = (struct request){
		.settings = { .full_every = 50,
			      .incremental = 1,
			      .keep = 2,
			      .snapshot = MODE_AUTO,
			      .tracker = tracker_words[0] },
	};
	/* room for as many as there are arguments; lives as long as we do */
	q->settings.fd_rules = calloc((size_t)argc, sizeof *q->settings.fd_rules);
	if (!q->settings.fd_rules)
		abort();
	options_init(&q->o, &spec, argc, argv);
	while ((id = options_next(&q->o)) != OPTION_END) {
		switch (id) {
		case OPT_OUTPUT:
			q->output = q->o.arg;
			break;
		case OPT_OVERWRITE:
			q->overwrite = true;
			break;
		case OPT_PID:
			q->pid = (pid_t)options_int(&q->o, 1, INT32_MAX);
			break;
		case OPT_ONCE:
			q->once = true;
			break;
		case OPT_KILL:
			q->kill = true;
			break;
		default:
			take_setting(q, id);
		}
	}
	check_combination(q);
	if (q->interval_auto && !q->settings.mtbf_ns)
		q->settings.mtbf_ns = SETTINGS_MTBF_NS;
}

/* --- running -------------------------------------------------------------------------------------
 */

/* What the session holds on to; everything is given back by session_fini. */
struct session {
	struct arena *arena;
	char *program_path; /* the file to execute; NULL with --pid */
	char *stats_path;
	struct claim claim;
	int stats_fd, signal_fd, pidfd;
	pid_t root;
};

static void session_fini(struct session *s)
{
	claim_release(&s->claim);
	cleanup_fd_(&s->stats_fd);
	cleanup_fd_(&s->signal_fd);
	cleanup_fd_(&s->pidfd);
	free(s->program_path);
	free(s->stats_path);
	arena_free(s->arena);
}

/* The job, by name: its program's base name and arguments. */
static int describe(struct request *q, struct session *s, struct err *err)
{
	struct settings *settings = &q->settings;
	char *slash;

	if (q->pid)
		return attach_describe(q->pid, s->arena, settings, err);
	slash = strrchr(q->o.operands[0], '/');
	settings->name = slash ? slash + 1 : q->o.operands[0];
	settings->n_argv = (unsigned)q->o.n_operands;
	settings->argv = arena_array(s->arena, settings->n_argv, sizeof *settings->argv);
	if (!settings->argv)
		return err_nomem(err);
	for (unsigned i = 0; i < settings->n_argv; i++)
		settings->argv[i].s = q->o.operands[i];
	return 0;
}

/* Everything that can fail for our own reasons comes before the job is started or touched. */
static int prepare(struct request *q, struct session *s, struct err *err)
{
	const char *dir = q->output;
	int rc;

	s->arena = arena_new();
	if (!s->arena)
		return err_nomem(err);
	rc = q->pid ? attach_check(q->pid, &s->pidfd, err)
		    : launch_find(q->o.operands[0], &s->program_path, err);
	if (rc == 0 && q->settings.incremental)
		rc = dump_tracker_check(q->settings.tracker, err);
	if (rc == 0)
		rc = describe(q, s, err);
	if (rc == 0 && q->settings.stats)
		rc = stats_path(q->settings.stats, &s->stats_path, err);
	if (rc < 0)
		return rc;
	q->settings.stats = s->stats_path;
	rc = stats_open(s->stats_path, &s->stats_fd, err);
	if (rc < 0)
		return rc;
	if (!dir) {
		dir = arena_printf(s->arena, "%s.ckpt", q->settings.name);
		if (!dir)
			return err_nomem(err);
	}
	rc = claim_chain(&s->claim, dir, q->overwrite, q->pid != 0, err);
	return rc < 0 ? rc : fault_point("run-claimed", err);
}

/* Who may have come from the tree that is taken on, but nobody can tell. */
static int name_left(pid_t root, bool quiet, struct arena *a, struct err *err)
{
	const unsigned most = 8;
	struct orphans o;
	int rc = proc_orphans(root, a, &o, err);

	if (rc < 0 || quiet)
		return rc;
	for (unsigned i = 0; i < o.n_left && i < most; i++)
		fprintf(stderr,
			PROGRAM
			": process %d (%s) of the same session is not in the tree, and left "
			"alone: its parent has ended\n",
			o.left[i].pid, o.left[i].comm);
	if (o.n_left > most)
		fprintf(stderr, PROGRAM ": nor are %u more processes of that session\n",
			o.n_left - most);
	return 0;
}

/* Starts the program: 0 once it runs. */
static int start(const struct request *q, struct session *s, struct err *err)
{
	struct launch l = { .deny_io_uring = q->settings.deny_io_uring };
	int rc;

	/* orphans of the job stay in its tree: they become our children */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return err_set(err, -errno, "cannot become a child subreaper: %m");
	rc = launch_start(&l, err);
	if (rc < 0)
		return rc;
	if (l.pid == 0)
		launch_exec(&l, s->program_path, q->o.operands);
	if (launch_interrupted()) {
		(void)kill(l.pid, SIGKILL); /* nothing of the program has run */
		(void)waitpid(l.pid, NULL, 0);
		claim_release(&s->claim);
		launch_let_signals_in();
		return err_set(err, -EINTR, "interrupted");
	}
	rc = signals_open(&s->signal_fd, err);
	if (rc == 0) {
		s->pidfd = (int)syscall(SYS_pidfd_open, l.pid, 0);
		if (s->pidfd < 0)
			rc = err_set(err, -errno, "cannot open a pidfd: %m");
	}
	if (rc < 0) {
		(void)kill(l.pid, SIGKILL);
		(void)waitpid(l.pid, NULL, 0);
		return rc;
	}
	s->root = l.pid;
	return launch_go(&l, q->o.operands[0], err);
}

static int supervise_job(const struct request *q, struct session *s, struct supervise_end *end,
			 struct err *err)
{
	const struct supervise_opts opts = {
		.program = PROGRAM,
		.chain = s->claim.chain,
		.settings = &q->settings,
		.stats_fd = s->stats_fd,
		.replace = s->claim.replace,
		.attached = q->pid != 0,
		.once = q->once,
		.kill = q->kill,
		.verbose = q->o.verbose,
		.root = s->root,
		.child = q->pid ? -1 : s->root,
		.pidfd = s->pidfd,
		.status_fd = -1,
	};
	int rc = supervise(&opts, s->signal_fd, end, err);

	if (rc < 0 && !q->pid) {
		/* it could not even begin: a job without the checkpoints that were asked for is not
		 * started */
		(void)kill(s->root, SIGKILL);
		(void)waitpid(s->root, NULL, 0);
	}
	return rc;
}

static int run(struct request *q, struct session *s, int *ret_status, struct err *err)
{
	struct supervise_end end;
	int rc = launch_guard_streams(err);

	launch_hold_signals();
	if (rc == 0)
		rc = prepare(q, s, err);
	if (rc < 0)
		return rc;
	s->root = q->pid;
	if (q->pid)
		rc = name_left(q->pid, q->o.quiet, s->arena, err);
	if (rc == 0)
		rc = q->pid ? signals_open(&s->signal_fd, err) : start(q, s, err);
	if (rc == 0)
		rc = supervise_job(q, s, &end, err);
	if (rc < 0)
		return rc;
	*ret_status = supervise_exit_status(&end, q->once);
	if (end.how == JOB_KILLED && end.checkpoints && q->o.verbose)
		fprintf(stderr,
			PROGRAM ": signal %d ended the job; 'ckpt-restart %s' goes on from its "
				"last checkpoint\n",
			end.value, chain_path(s->claim.chain));
	return supervise_mark_chain(s->claim.chain, &end, err);
}

int main(int argc, char **argv)
{
	CLEANUP(session_fini) struct session s = { .stats_fd = -1, .signal_fd = -1, .pidfd = -1 };
	struct err err = { 0 };
	int status = EXIT_CKPT;
	struct request q;

	parse_options(&q, argc, argv);
	if (run(&q, &s, &status, &err) == 0)
		return status;
	err_print(PROGRAM, &err);
	/* a job that has ended keeps its status, even if its chain could not be marked */
	return err.exit_status ? err.exit_status : status;
}
