/* SPDX-License-Identifier: BSD-2-Clause */
/* Errors: a negative errno, and one sentence for the user, in a fixed struct (no malloc on a
 * failure path). */
#pragma once

#include <errno.h>
#include <stdarg.h>

/*
 * Every fallible function takes a struct err * last (NULL allowed) and returns 0 or a negative
 * errno. The place that failed calls err_set(); callers put what *they* were doing in front with
 * err_wrap(). Messages read: cannot VERB 'OBJECT': REASON. A hint says what the user can do about
 * it and is printed in brackets at the end.
 */
struct err {
	int code;        /* negative errno, 0 = no error */
	int exit_status; /* what a command should exit with; 0 = the command's default (1) */
	char msg[768];
	char hint[256];
};

/* Exit statuses of all commands (design.md section 2, style.md section 1). */
enum exit_status {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_BAD_IMAGE = 3, /* image bad or unsupported */
	EXIT_REQUEUE = 75,  /* EX_TEMPFAIL: --on-term checkpoint */
	EXIT_CKPT = 125,    /* ckpt-run: our own failure */
	EXIT_NOEXEC = 126,
	EXIT_NOENT = 127,
};

/* Sets the message ("%m" means strerror(-code)); returns code. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "fmt: " before the message that is there; returns code. */
int err_wrap(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Sets the hint (what to do about it) if there is none yet; returns err's code. */
int err_hint(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Like err_set, and marks the error as "image bad or unsupported" (exit status 3). */
int err_image(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Out of memory, by name of what was wanted. */
int err_nomem(struct err *err);
void err_clear(struct err *err);
/* "PROGRAM: msg (hint)" on standard error. */
void err_print(const char *program, const struct err *err);
