/* SPDX-License-Identifier: BSD-2-Clause */
/* Job control: who has the terminal, and stopping together with the job. */
#pragma once

#include "state/tree.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

/*
 * A shell sees only us. When the job stops because of Ctrl-Z (or for reading in the background), we
 * must stop as well, or the shell would wait for ever; and when the shell continues us, the job
 * must go on.
 */
struct terminal {
	int fd;          /* the controlling terminal, -1 = none */
	bool lent;       /* a restored job in a process group of its own has our foreground */
	bool stop_asked; /* a terminal stop came and the job has not followed yet */
	uint64_t stop_until_ns; /* how long to look out for that */
	bool changed;           /* it has the job's modes; ours are: */
	struct termios own;
};

void terminal_init(struct terminal *t);
void terminal_fini(struct terminal *t);
/*
 * A restored job may lead a process group of its own, which the terminal does not know: makes that
 * the foreground group if ours is it now. group: another of the job's that had the terminal, 0: the
 * root's.
 */
void terminal_lend(struct terminal *t, pid_t root, pid_t group);
/*
 * For a restored job, just before it is let go: the terminal gets the modes that the job's had, and
 * is lent, to the group that had it (0: the root's). Nothing of it when the terminal is not ours
 * now (we are in the background).
 */
void terminal_hand_over(struct terminal *t, const struct terminal_state *was, pid_t root,
			pid_t foreground);
/* Just after: full-screen programs redraw. */
void terminal_redraw(const struct terminal *t, const struct terminal_state *was, pid_t root);
/* Back to our group. */
void terminal_reclaim(struct terminal *t);

/* A terminal stop reached us: the job will stop within a moment, unless it handles or ignores the
 * signal. */
void terminal_stop_asked(struct terminal *t, uint64_t now_ns);
/* Milliseconds until the job should be looked at again, -1 = no need. */
int terminal_poll_ms(const struct terminal *t, uint64_t now_ns);

/* Is the process stopped by job control (/proc's state T)? */
bool terminal_is_stopped(pid_t pid);
/*
 * Does a stop of the job by this signal (0: unknown) call for us to stop too? Not after a SIGSTOP
 * that somebody sent to the job alone, which then says nothing of us.
 */
bool terminal_follows(const struct terminal *t, int stop_signal);
/*
 * Stops this process, by the signal that stopped the job (0: unknown), which a shell shows. Returns
 * when it was continued, with the terminal lent again if it was before.
 */
void terminal_stop_self(struct terminal *t, pid_t root, int stop_signal);
