/* SPDX-License-Identifier: BSD-2-Clause */
/* Supervising a job from its start to its end: signals, checkpoints, job control, its exit. */
#pragma once

#include "image/chain.h"
#include "run/terminal.h"
#include "state/tree.h"
#include "util/err.h"

#include <sys/types.h>

struct supervise_opts {
	const char *program; /* for messages */
	struct chain *chain; /* NULL: no checkpoints are taken */
	const struct settings *settings;
	int stats_fd;  /* -1 = none */
	bool full;     /* the first image must be full (after a restart) */
	bool replace;  /* the chain's older images go once there is a new one (claim.h) */
	bool attached; /* --pid: we did not start the job, and signals to us do not mean it */
	bool once;     /* one checkpoint, then let go */
	bool kill;     /* with once: end the tree instead */
	bool verbose;

	pid_t root;
	pid_t child;               /* our own child: root, or the init above it; -1 when attached */
	int pidfd;                 /* of root */
	struct terminal *terminal; /* borrowed; NULL: opened here */
	int status_fd; /* root's wait status comes from here; -1: root is our child (or attached) */
	int keeper;    /* > 0: a pidfd; until it ends, nobody may seize the job or wait for it */
};

enum job_end {
	JOB_EXITED, /* value: its exit status */
	JOB_KILLED, /* value: the signal */
	JOB_ENDED,  /* attached: its status could not be had */
	JOB_LET_GO, /* attached: value: the signal that ended the supervising; the job goes on */
	JOB_CHECKPOINTED, /* once: the checkpoint is durable; the job goes on */
	JOB_SAVED,        /* the checkpoint is durable, and we ended the job */
	JOB_NOT_SAVED,    /* once: failed, see err; the job goes on */
};

struct supervise_end {
	enum job_end how;
	int value;
	unsigned checkpoints; /* that were taken */
};

/*
 * Returns when the job has ended or is not to be supervised any more; the job was never harmed by
 * us. All signals must be blocked, signal_fd is from signals_open(). A negative errno:
 * JOB_NOT_SAVED, or we could not begin to supervise (end->how is JOB_LET_GO then).
 */
int supervise(const struct supervise_opts *opts, int signal_fd, struct supervise_end *end,
	      struct err *err);

/* The command's exit status; once: as in the options. */
int supervise_exit_status(const struct supervise_end *end, bool once);
/*
 * Marks the chain finished if the job ended by itself and has images. A job that died by a signal,
 * whoever sent it, leaves its chain as it is: it can be restarted.
 */
int supervise_mark_chain(struct chain *chain, const struct supervise_end *end, struct err *err);
