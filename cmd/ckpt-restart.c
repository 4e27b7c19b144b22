/* SPDX-License-Identifier: BSD-2-Clause */
/* ckpt-restart: rebuilds a process tree from its chain, and goes on checkpointing it. */
#include "inherit.h"
#include "options.h"
#include "pidfile.h"
#include "restore/restore.h"
#include "run/interrupt.h"
#include "run/launch.h"
#include "run/pick.h"
#include "run/signals.h"
#include "run/stats.h"
#include "run/supervise.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#define PROGRAM "ckpt-restart"

enum {
	OPT_DETACH = OPTION_FIRST,
	OPT_PIDFILE,
	OPT_AT,
	OPT_INTERVAL,
	OPT_MTBF,
	OPT_MAX_OVERHEAD,
	OPT_NO_CHECKPOINT,
	OPT_MODE,
	OPT_PIDS,
	OPT_MAP,
	OPT_INHERIT,
	OPT_LAZY,
	OPT_TCP,
	OPT_STATS,
	OPT_FORCE,
	OPT_TRUST,
};

static const struct option_row rows[] = {
	{ OPT_DETACH, 'd', "detach", NULL,
	  "leave the tree running, print the root process's pid, and exit 0" },
	{ OPT_PIDFILE, 0, "pidfile", "FILE", "write that pid to FILE" },
	{ OPT_AT, 0, "at", "N",
	  "restart the image with number N (default: the newest complete one)" },
	{ OPT_INTERVAL, 'i', "interval", "TIME|auto",
	  "a checkpoint every TIME from now on, or as often as pays (default: as recorded)" },
	{ OPT_MTBF, 0, "mtbf", "TIME",
	  "with --interval auto: how often failures are expected (default: as recorded, or 24h)" },
	{ OPT_MAX_OVERHEAD, 0, "max-overhead", "PERCENT",
	  "with --interval auto: what checkpoints may cost the job at most" },
	{ OPT_NO_CHECKPOINT, 0, "no-checkpoint", NULL, "take no further checkpoints" },
	{ OPT_MODE, 0, "mode", "auto|stop|snapshot|precopy",
	  "how checkpoints copy memory from now on (default: as recorded)" },
	{ OPT_PIDS, 0, "pids", "auto|keep|namespace|new",
	  "auto: the original pids in this pid namespace where that is allowed and free, else in a "
	  "new one; new: others" },
	{ OPT_MAP, 0, "map", "OLD=NEW", "look for files below OLD below NEW instead (repeatable)" },
	{ OPT_INHERIT, 0, "inherit", "FD",
	  "hand this descriptor to the tree (repeatable; 0, 1 and 2 are)" },
	{ OPT_LAZY, 0, "lazy", NULL,
	  "let the job run at once; its memory comes in as it is touched, and in the background" },
	{ OPT_TCP, 0, "tcp", "reset|repair",
	  "TCP connections to others are reset (default), or stay open where that is allowed" },
	{ OPT_STATS, 0, "stats", "FILE",
	  "append a JSON line to FILE for each checkpoint (default: as recorded)" },
	{ OPT_FORCE, 0, "force", NULL, "restart although the job has finished, or still runs" },
	{ OPT_TRUST, 0, "trust", NULL,
	  "use the image although another user could have written it" },
};

static const struct option_spec spec = {
	.program = PROGRAM,
	.usage = "[OPTIONS] CHAIN|IMAGE",
	.about = "Goes on with a job from its newest complete checkpoint, and goes on "
		 "checkpointing it.",
	.rows = rows,
	.n_rows = ARRAY_SIZE(rows),
	.after = "SIGUSR1 takes a checkpoint now; other signals go to the job.\n"
		 "Exit status: the job's, 128+N when signal N ended it; 2 wrong usage,\n"
		 "3 image damaged or not supported, 125 any other failure to restart.\n",
};

struct request {
	struct options o;
	const char *path, *pidfile, *stats;
	uint32_t mode; /* enum copy_mode */
	bool mode_given;
	bool detach, lazy, no_checkpoint, interval_given, interval_auto;
	uint64_t interval_ns, mtbf_ns;
	uint32_t max_overhead;
	struct pick_opts pick;
	enum pids_mode pids;
	/* room for as many as there are arguments */
	struct path_map *maps;
	unsigned n_maps;
	struct inherit inherit;
	bool tcp_repair;
};

/* --- the command line ----------------------------------------------------------------------------
 */

static void take_map(struct request *q)
{
	size_t len = strcspn(q->o.arg, "=");

	if (q->o.arg[0] != '/' || strncmp(q->o.arg + len, "=/", 2) != 0)
		options_misuse(&q->o,
			       "invalid OLD=NEW '%s' for --map: two absolute paths are needed",
			       q->o.arg);
	q->o.arg[len] = '\0';
	q->maps[q->n_maps++] = (struct path_map){ q->o.arg, q->o.arg + len + 1 };
}

static void take_inherit(struct request *q)
{
	int fd = (int)options_int(&q->o, 0, INT32_MAX);

	if (fcntl(fd, F_GETFD) < 0)
		options_misuse(&q->o, "--inherit %d: descriptor %d is not open", fd, fd);
	q->inherit.fds[q->inherit.n++] = fd;
}

static void take_option(struct request *q, int id)
{
	static const char *const tcp_words[] = { "reset", "repair", NULL };
	static const char *const pids_words[] = { "auto", "keep", "namespace", "new",
						  NULL }; /* order of enum pids_mode */

	switch (id) {
	case OPT_DETACH:
		q->detach = true;
		break;
	case OPT_PIDFILE:
		q->pidfile = q->o.arg;
		break;
	case OPT_AT:
		q->pick.at = options_int(&q->o, 0, INT64_MAX);
		break;
	case OPT_INTERVAL:
		q->interval_auto = !options_interval_ns(&q->o, &q->interval_ns);
		q->interval_given = true;
		break;
	case OPT_MTBF:
		q->mtbf_ns = options_time_ns(&q->o);
		if (!q->mtbf_ns)
			options_misuse(&q->o, "--mtbf must be more than 0");
		break;
	case OPT_MAX_OVERHEAD:
		q->max_overhead = options_percent(&q->o);
		break;
	case OPT_NO_CHECKPOINT:
		q->no_checkpoint = true;
		break;
	case OPT_MODE:
		q->mode = options_mode(&q->o);
		q->mode_given = true;
		break;
	case OPT_PIDS:
		q->pids = (enum pids_mode)options_choice(&q->o, pids_words);
		break;
	case OPT_MAP:
		take_map(q);
		break;
	case OPT_INHERIT:
		take_inherit(q);
		break;
	case OPT_LAZY:
		q->lazy = true;
		break;
	case OPT_TCP:
		q->tcp_repair = options_choice(&q->o, tcp_words) == 1;
		break;
	case OPT_STATS:
		q->stats = q->o.arg;
		break;
	case OPT_FORCE:
		q->pick.force = true;
		break;
	case OPT_TRUST:
		q->pick.trust = true;
		break;
	}
}

static void print_warning(void *arg, const char *msg)
{
	const struct request *q = arg;

	if (!q->o.quiet)
		fprintf(stderr, PROGRAM ": %s\n", msg);
}

/* Told even with --quiet: what is restarted is older than what was saved. */
static void print_passed_over(void *arg, const char *msg)
{
	(void)arg;
	fprintf(stderr, PROGRAM ": %s\n", msg);
}

static int parse_options(struct request *q, int argc, char **argv, struct err *err)
{
	int id;

	*q = (struct request){ .pick = { .at = -1, .warn = print_passed_over } };
	inherit_note_open(&q->inherit);
	q->maps = calloc((size_t)argc, sizeof *q->maps);
	q->inherit.fds = calloc((size_t)argc, sizeof *q->inherit.fds);
	if (!q->maps || !q->inherit.fds)
		return err_nomem(err);
	options_init(&q->o, &spec, argc, argv);
	while ((id = options_next(&q->o)) != OPTION_END)
		take_option(q, id);
	if (q->o.n_operands != 1)
		options_misuse(&q->o,
			       q->o.n_operands
				       ? "only one CHAIN or IMAGE can be restarted (got '%s' too)"
				       : "no CHAIN or IMAGE to restart",
			       q->o.n_operands ? q->o.operands[1] : "");
	if (q->interval_given && q->no_checkpoint)
		options_misuse(&q->o, "--interval and --no-checkpoint exclude each other");
	if (q->interval_given && q->detach)
		options_misuse(&q->o, "--interval and --detach exclude each other: nobody is left "
				      "to take checkpoints");
	q->path = q->o.operands[0];
	q->pick.no_lock = q->no_checkpoint || q->detach;
	q->pick.copy = q->no_checkpoint;
	return 0;
}

static void request_fini(struct request *q)
{
	free(q->maps);
	free(q->inherit.fds);
}

/* --- restarting ----------------------------------------------------------------------------------
 */

struct session {
	struct pick pick;
	struct restored tree;
	struct settings settings;
	char *stats_path;
	int stats_fd, signal_fd, pidfile_fd;
	struct terminal terminal;
};

static void session_fini(struct session *s)
{
	terminal_fini(&s->terminal);
	pick_fini(&s->pick);
	cleanup_fd_(&s->tree.pidfd);
	cleanup_fd_(&s->tree.status_fd);
	cleanup_fd_(&s->tree.keeper);
	cleanup_fd_(&s->stats_fd);
	cleanup_fd_(&s->signal_fd);
	cleanup_fd_(&s->pidfile_fd);
	free(s->stats_path);
}

static int settle_interval(const struct request *q, struct settings *settings, struct err *err)
{
	if (q->interval_given) {
		settings->interval_ns = q->interval_ns;
		if (!q->interval_auto)
			settings->mtbf_ns = settings->max_overhead = 0;
		else if (!settings->mtbf_ns)
			settings->mtbf_ns = SETTINGS_MTBF_NS;
	}
	if ((q->mtbf_ns || q->max_overhead) && !settings->mtbf_ns) {
		if (err)
			err->exit_status = EXIT_USAGE;
		return err_set(err, -EINVAL,
			       "--mtbf and --max-overhead need --interval auto, which this job "
			       "was not started with");
	}
	if (q->mtbf_ns)
		settings->mtbf_ns = q->mtbf_ns;
	if (q->max_overhead)
		settings->max_overhead = q->max_overhead;
	return 0;
}

/* The recorded settings, with what this command line says otherwise. */
static int settle(struct request *q, struct session *s, struct err *err)
{
	struct settings *settings = &s->settings;
	struct err trouble = { 0 };
	int rc;

	*settings = s->pick.tree->settings;
	rc = inherit_by_rule(&q->inherit, settings, err);
	if (rc < 0)
		return rc;
	rc = settle_interval(q, settings, err);
	if (rc < 0)
		return rc;
	if (q->mode_given)
		settings->snapshot = q->mode;
	settings->keep = MAX(settings->keep, 1u);
	settings->full_every = MAX(settings->full_every, 1u);
	if (!settings->tracker)
		settings->tracker = "auto";
	if (q->stats) {
		rc = stats_path(q->stats, &s->stats_path, err);
		if (rc < 0)
			return rc;
		settings->stats = s->stats_path;
		return stats_open(s->stats_path, &s->stats_fd, err);
	}
	/* the job matters more than a record of how it is saved, in a place that may be gone */
	if (!q->no_checkpoint && !q->detach &&
	    stats_open(settings->stats, &s->stats_fd, &trouble) < 0)
		err_print(PROGRAM, &trouble);
	return 0;
}

static void hand_over_terminal(void *arg, pid_t root, pid_t foreground)
{
	struct session *s = arg;

	terminal_hand_over(&s->terminal, &s->pick.tree->terminal, root, foreground);
}

/* Rebuilds the state; should its pages turn out to be damaged, the one before it. */
static int restore(struct request *q, struct session *s, struct err *err)
{
	const struct restore_opts opts = {
		.pids = q->pids,
		.rebuild = { q->maps, q->n_maps, q->inherit.fds, q->inherit.n, q->tcp_repair },
		.lazy = q->lazy,
		.verbose = q->o.verbose,
		.detach = q->detach,
		.warn = print_warning,
		.warn_arg = q,
		.ready = hand_over_terminal,
		.ready_arg = s,
	};
	struct err nothing;

	terminal_init(&s->terminal);

	for (;;) {
		int rc = restore_tree(s->pick.state, s->pick.tree, &opts, &s->tree, err);

		if (rc == 0 && q->o.verbose)
			fprintf(stderr, PROGRAM ": restarted from '%s' (pid %d)\n", s->pick.name,
				s->tree.root);
		if (rc == 0) {
			terminal_redraw(&s->terminal, &s->pick.tree->terminal, s->tree.root);
			return 0;
		}
		s->tree = (struct restored){ .pidfd = -1, .status_fd = -1, .keeper = -1 };
		if (!s->pick.chain || s->pick.at >= 0 || err->exit_status != EXIT_BAD_IMAGE)
			return rc;
		/* with nothing to go back to, this is the error */
		if (pick_take(&s->pick, &q->pick, &nothing) < 0)
			return rc;
		err_print(PROGRAM, err);
		err_clear(err);
		fprintf(stderr, PROGRAM ": going back to '%s'\n", s->pick.name);
	}
}

static int supervise_tree(const struct request *q, struct session *s, int *ret_status,
			  struct err *err)
{
	const struct supervise_opts opts = {
		.program = PROGRAM,
		.chain = q->no_checkpoint ? NULL : s->pick.chain,
		.settings = &s->settings,
		.stats_fd = s->stats_fd,
		.full = true,
		.verbose = q->o.verbose,
		.root = s->tree.root,
		.child = s->tree.child,
		.pidfd = s->tree.pidfd,
		.status_fd = s->tree.status_fd,
		.keeper = s->tree.keeper,
		.terminal = &s->terminal,
	};
	struct supervise_end end;
	int rc = supervise(&opts, s->signal_fd, &end, err);

	if (rc < 0)
		return rc;
	*ret_status = supervise_exit_status(&end, false);
	/* without checkpoints too: what the chain holds has been brought to its end */
	return supervise_mark_chain(s->pick.writable ? s->pick.chain : NULL, &end, err);
}

static int detach(struct err *err, pid_t root)
{
	printf("%d\n", root);
	return options_close_stdout(PROGRAM) < 0 ? err_set(err, -EIO, "the tree was ended again")
						 : 0;
}

/* From here to disarm a Ctrl-C means us: it ends what was made so far. */
static int rebuild_and_go(struct request *q, struct session *s, int *ret_status, struct err *err)
{
	int rc;

	interrupt_arm();
	rc = restore(q, s, err);
	if (rc == 0)
		rc = pidfile_write(s->pidfile_fd, q->pidfile, s->tree.root, err);
	if (rc == 0)
		rc = signals_open(&s->signal_fd, err);
	interrupt_disarm();
	if (rc == 0)
		pick_note_job(&s->pick, &q->pick, s->tree.root);
	if (rc == 0 && s->pick.writable)
		rc = chain_clear_finished(s->pick.chain, err);
	if (rc == 0 && q->detach) {
		rc = detach(err, s->tree.root);
		*ret_status = EXIT_DONE;
	} else if (rc == 0) {
		rc = supervise_tree(q, s, ret_status, err);
	}
	if (rc < 0 && *ret_status == EXIT_CKPT)
		interrupt_kill_children();
	return rc;
}

static int run(struct request *q, struct session *s, int *ret_status, struct err *err)
{
	int rc = launch_guard_streams(err);

	if (rc == 0)
		rc = pick_open(&s->pick, q->path, &q->pick, err);
	if (rc == 0)
		rc = pick_take(&s->pick, &q->pick, err);
	if (rc == 0)
		rc = settle(q, s, err);
	if (rc == 0)
		rc = pidfile_open(q->pidfile, &s->pidfile_fd, err);
	if (rc < 0)
		return rc;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return err_set(err, -errno, "cannot become a child subreaper: %m");
	return rebuild_and_go(q, s, ret_status, err);
}

int main(int argc, char **argv)
{
	CLEANUP(request_fini) struct request q = { 0 };
	CLEANUP(session_fini)
	struct session s = { .tree = { .pidfd = -1, .status_fd = -1, .keeper = -1 },
			     .stats_fd = -1,
			     .signal_fd = -1,
			     .pidfile_fd = -1,
			     .terminal = { .fd = -1 } };
	struct err err = { 0 };
	int status = EXIT_CKPT;

	if (parse_options(&q, argc, argv, &err) == 0 && run(&q, &s, &status, &err) == 0)
		return status;
	err_print(PROGRAM, &err);
	return err.exit_status ? err.exit_status : status;
}
