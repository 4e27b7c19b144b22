/* SPDX-License-Identifier: BSD-2-Clause */
/* A supervisor in a process of its own, with a job that is a little shell script and a dump of
 * ours. */
#pragma once

#include "../check.h"
#include "fake.h"

#include <stdbool.h>
#include <sys/types.h>

/*
 * Each case runs its supervisor in a process of its own, which this one signals and whose messages,
 * exit status and chain it looks at. Nothing is timed: the job says "ready", an attempt that begins
 * says so, and is held until it may end.
 */
struct session {
	pid_t pid;      /* of the supervisor */
	int out_fd;     /* what the job prints */
	int attempt_fd; /* one byte for each attempt that begins */
	int release_fd; /* a byte lets an attempt end */
	FILE *err;
};

/* What a case asks of the supervisor. */
struct set_up {
	const char *script;
	struct settings settings;
	bool once, kill, attached, held, no_chain;
	int rc[FAKE_STEPS];
	int n_rc;
	void (*before)(void); /* in the supervisor, before anything */
};

extern int terminal_master; /* of the terminal that `before` gives the session; -1: none */

/* Starts the supervisor, its job and an empty chain "c"; messages go to "stderr", lines to "stats".
 */
struct session begin(const struct set_up *u);
/* The next line that the job prints. */
void expect_line(struct session *s, const char *want);
/* The next attempt begins; kind: 'a', or 'k' for one that is to end the job. */
void expect_attempt(struct session *s, char kind);
/* Lets an attempt end. */
void release(struct session *s);
/* The supervisor ends with this exit status. */
void finish(struct session *s, int want_status);
void check_file(const char *path, const char *want);
/* How often the text occurs. */
unsigned count_in_file(const char *path, const char *what);
bool exists(const char *path);
/* Removes a directory and all in it. */
void remove_all(const char *path);
