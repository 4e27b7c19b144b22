/* SPDX-License-Identifier: BSD-2-Clause */
/* Rounds of capture and rebuild of a process's descriptors, without ptrace. */
#pragma once

#include "object/object.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct test {
	const char *name;
	/* In a process with nothing open but 0, 1 and 2 on /dev/null; whatever it opens is
	 * captured. */
	void (*setup)(void);
	/* In the harness, after the last capture and the death of the captured process; may be
	 * NULL. */
	void (*between)(void);
	/* In the rebuilt process: CHECKs. */
	void (*verify)(void);
	/* Instead of verify: the capture, or (check_fails) the check before the rebuild, fails with
	 * this in its message. */
	const char *fails;
	bool check_fails;
	int code; /* the error's code, 0 = any */
	const struct rebuild_opts *opts;
	/* In the harness, before the captured process is forked; may be NULL: descriptors that
	 * ckpt-run would have. */
	void (*outside)(void);
	/* In the rebuilding process, before it looks for its standard streams; may be NULL. */
	void (*caller)(void);
	bool root_only;
};

/* The directory of the test run (empty at each test's start). */
extern char test_dir[];
const char *in_dir(const char *name);
/* Runs them all, as root also as another user; the exit status of main. */
int run_tests(const struct test *tests, unsigned n);

/* Fails the test, from any of its processes. */
void fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), noreturn));
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fail(__FILE__, __LINE__, "%s (errno %d)", #cond, errno);                   \
	} while (0)
#define CHECK_EQ(a, b)                                                                             \
	do {                                                                                       \
		long long a_ = (long long)(a), b_ = (long long)(b);                                \
		if (a_ != b_)                                                                      \
			fail(__FILE__, __LINE__, "%s is %lld, not %lld (errno %d)", #a, a_, b_,    \
			     errno);                                                               \
	} while (0)

/* open(2) and friends put what they return at a number of the test's choice. */
void move_fd(int from, int to);
/* Are both descriptors one description? Tried out through its file offset or flags. */
bool shares_description(int a, int b);
/* The last capture's tree, for looks at what was recorded (in the harness: between, verify too). */
extern const struct tree *last_tree;
/* How long the last files_capture took. */
extern long last_capture_us;
