/* SPDX-License-Identifier: BSD-2-Clause */
/* What a signal that reaches the supervisor means: for the job, for us, or for nobody. */
#pragma once

#include "util/err.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/signalfd.h>
#include <sys/types.h>

/*
 * The supervisor stands between the job and whoever signals "it": a shell, a scheduler, a user with
 * kill(1) all know the supervisor's pid only. So what is sent to us goes on to the job, unless the
 * job got a copy of its own: the terminal signals its whole foreground group, of which the job is a
 * member as long as it did not leave it.
 */
enum signal_action {
	SIGNAL_NOTHING,
	SIGNAL_FORWARD,
	SIGNAL_CHILD,          /* a child has changed its state */
	SIGNAL_CHECKPOINT,     /* take one now */
	SIGNAL_CHECKPOINT_END, /* take one, then end the job */
	SIGNAL_TERMINAL_STOP,  /* the terminal stops the foreground group: the job will stop, and
				  then we do */
	SIGNAL_CONTINUE,       /* go on, and see that the job does */
	SIGNAL_LET_GO,         /* leave the job alone and end */
};

struct signal_facts {
	pid_t self;
	bool with_us;  /* the job's root is in our process group */
	bool attached; /* --pid: the job is not ours, signals to us do not mean it */
	bool on_term;  /* --on-term checkpoint */
	bool from_job; /* a process of the job sent it */
};

enum signal_action signal_decide(const struct signalfd_siginfo *si,
				 const struct signal_facts *facts);

/*
 * Blocks all signals and opens a signalfd for them. Threads made later inherit the mask, so that
 * the signalfd is where every signal to the process arrives. Our own memory faults are not
 * affected: the kernel forces those.
 */
int signals_open(int *ret_fd, struct err *err);
/* Every stop of a traced thread sends SIGCHLD: while a checkpoint is under way nobody listens to
 * that one. */
void signals_watch_children(int fd, bool watch);
/* Passes a signal on, with the value that came with it (sigqueue). -ESRCH when the process has
 * ended. */
int signal_forward(int pidfd, const struct signalfd_siginfo *si);
/* Is pid the process root or below it? False when pid has ended. */
bool signal_from_tree(pid_t pid, pid_t root);
