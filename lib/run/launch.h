/* SPDX-License-Identifier: BSD-2-Clause */
/* Starting the job: found through PATH, forked with everything just as we got it ourselves. */
#pragma once

#include "util/err.h"

#include <stdbool.h>
#include <sys/types.h>

/* Descriptors 0, 1 and 2 that are closed get a placeholder, closed again by exec: nothing of ours
 * can land there. */
int launch_guard_streams(struct err *err);

/*
 * The file that execvp would run for name; malloc'ed. -ENOENT (exit status 127) or -EACCES and the
 * like (126), with the message. Nothing is created or started.
 */
int launch_find(const char *name, char **ret_path, struct err *err);

struct launch {
	pid_t pid;
	int go_fd;          /* the job waits for a byte here, and ends should we go first */
	int err_fd;         /* closed by a successful exec */
	bool deny_io_uring; /* asked for: the job gets a filter before it starts */
};

/*
 * From here on a Ctrl-C and the like waits, so that what is made for the job (its chain) can be
 * unmade. launch_exec gives the job the signal mask that we had.
 */
void launch_hold_signals(void);
/* Has one come that would have ended us? To be asked after launch_start: what comes later comes to
 * the job too, or is passed on to it. */
bool launch_interrupted(void);
/* Ends us by it. */
void launch_let_signals_in(void);

/*
 * Forks the job, which waits. It must be called before signals_open: the job has the mask
 * and the dispositions that we were started with, and a Ctrl-C in between ends the two of us
 * together.
 */
int launch_start(struct launch *l, struct err *err);
/*
 * In the job launch_start returns 0 with pid 0: then this is to be called, which waits and runs the
 * program, and does not return. argv is NULL-terminated, argv[0] as the user named the program.
 */
_Noreturn void launch_exec(struct launch *l, const char *path, char *const *argv);
/* Lets the job go: 0 once the program runs; else the exec's error (exit status 126 or 127), and the
 * job is reaped. */
int launch_go(struct launch *l, const char *name, struct err *err);
