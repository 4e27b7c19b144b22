/* SPDX-License-Identifier: BSD-2-Clause */
/* Command lines: one table row for each option gives parsing, messages and --help, the same for all
 * commands. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * How a command uses it:
 *
 *	enum { OPT_OUTPUT = OPTION_FIRST, OPT_ONCE };
 *	static const struct option_row rows[] = {
 *		{ OPT_OUTPUT, 'o', "output", "DIR", "the chain of images" },
 *		{ OPT_ONCE, 0, "once", NULL, "one checkpoint, then exit" },
 *	};
 *	static const struct option_spec spec = { .program = "ckpt-run", .usage = "[OPTIONS] ...",
 *.rows = rows, ... }; struct options o; options_init(&o, &spec, argc, argv); while ((id =
 * options_next(&o)) != OPTION_END) switch (id) { case OPT_OUTPUT: out = o.arg; break; ...
 *		}
 *	// operands: o.operands[0 .. o.n_operands), NULL-terminated
 *
 * -h/--help, -V/--version, -v/--verbose and -q/--quiet are in every command and handled here.
 *
 * Misuse ends the program: one line that names the bad argument, "Try 'PROGRAM --help'", exit 2.
 *That is the one place where a command may exit so early: nothing is held yet while options are
 * parsed.
 */
#define OPTION_END   (-1)
#define OPTION_FIRST 256 /* a command's ids begin here */

struct option_row {
	int id;           /* what options_next returns */
	char letter;      /* 0: long form only */
	const char *name; /* without the dashes */
	const char *arg;  /* name of its argument in --help ("DIR"); NULL: takes none */
	const char *help; /* one sentence, wrapped when printed; NULL: not listed */
};

struct option_spec {
	const char *program;
	const char *usage; /* "[OPTIONS] CHAIN|IMAGE"; further forms after '\n' */
	const char *about; /* what the command does: a sentence or two */
	const struct option_row *rows;
	unsigned n_rows;
	const char *after;    /* printed after the options (exit status, signals ...), or NULL */
	bool stop_at_operand; /* the first operand ends the options: what follows belongs to it
				 (ckpt-run PROGRAM -x) */
};

struct options {
	const struct option_spec *spec;
	int argc;
	char **argv;
	bool verbose, quiet;
	/* of the option that options_next returned last */
	const struct option_row *row;
	char *arg;
	/* once it has returned OPTION_END */
	char **operands;
	int n_operands;
};

/* Also reads CKPT_DEBUG and CKPT_FAULT. */
void options_init(struct options *o, const struct option_spec *spec, int argc, char **argv);
/* The next option's id, OPTION_END after the last. */
int options_next(struct options *o);
/* "PROGRAM: fmt" and "Try 'PROGRAM --help'" on standard error; exit 2. */
_Noreturn void options_misuse(const struct options *o, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The current option's argument as a value; misuse when it is none: "invalid TIME 'x' for
 * --interval". */
uint64_t options_time_ns(const struct options *o);
/* The same for --interval: false when it is `auto`. */
bool options_interval_ns(const struct options *o, uint64_t *ret);
/* A percentage above 0 and below 100, in millionths. */
uint32_t options_percent(const struct options *o);
uint64_t options_size(const struct options *o);
int64_t options_int(const struct options *o, int64_t min, int64_t max);
/* Index of the argument in a NULL-terminated list of words. */
int options_choice(const struct options *o, const char *const *words);
/* The argument of --mode: enum copy_mode. */
uint32_t options_mode(const struct options *o);

/*
 * Flushes and closes standard output: 0, or -1 after "PROGRAM: cannot write to standard output:
 * REASON". Every command that prints calls it before it says that all went well; SIGPIPE must be
 * ignored for EPIPE to be seen.
 */
int options_close_stdout(const char *program);
