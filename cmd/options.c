/* SPDX-License-Identifier: BSD-2-Clause */
/* Command lines: getopt_long's tables, --help and the messages for misuse, all made from the option
 * rows. */
#include "options.h"
#include "state/tree.h"

#include "util/err.h"
#include "util/fault.h"
#include "util/log.h"
#include "util/parse.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS_MAX = 64, HELP_WIDTH = 80, HELP_COLUMN = 26 };
enum { COMMON_HELP = 1, COMMON_VERSION, COMMON_VERBOSE, COMMON_QUIET };

static const struct option_row common_rows[] = {
	{ COMMON_VERBOSE, 'v', "verbose", NULL, "say more" },
	{ COMMON_QUIET, 'q', "quiet", NULL, "say nothing but errors" },
	{ COMMON_HELP, 'h', "help", NULL, "show this help and exit" },
	{ COMMON_VERSION, 'V', "version", NULL, "show the version and exit" },
};
enum { N_COMMON = sizeof common_rows / sizeof common_rows[0] };

/* getopt's view of the rows; val is 1 + the row's index, so that it never meets '?' or ':' or a
 * letter. */
enum { VAL_FIRST = 1000 };

static char short_opts[2 * ROWS_MAX + 4];
static struct option long_opts[ROWS_MAX + 1];
static const struct option_row *all_rows[ROWS_MAX];
static int n_all_rows;

static void add_rows(const struct option_row *rows, unsigned n)
{
	size_t len = strlen(short_opts);

	for (unsigned i = 0; i < n && n_all_rows < ROWS_MAX; i++) {
		struct option *l = &long_opts[n_all_rows];

		if (rows[i].letter) {
			short_opts[len++] = rows[i].letter;
			if (rows[i].arg)
				short_opts[len++] = ':';
		}
		l->name = rows[i].name;
		l->has_arg = rows[i].arg ? required_argument : no_argument;
		l->val = VAL_FIRST + n_all_rows;
		all_rows[n_all_rows++] = &rows[i];
	}
}

void options_init(struct options *o, const struct option_spec *spec, int argc, char **argv)
{
	memset(o, 0, sizeof *o);
	o->spec = spec;
	o->argc = argc;
	o->argv = argv;
	log_init(spec->program);
	fault_init();
	(void)strcpy(short_opts, spec->stop_at_operand ? "+:" : ":");
	add_rows(spec->rows, spec->n_rows);
	add_rows(common_rows, N_COMMON);
	opterr = 0;
}

/* Prints text from column on, broken at blanks before the margin; later lines are indented by
 * indent. */
static void print_wrapped(const char *text, int column, int indent)
{
	while (*text) {
		int len = (int)strcspn(text, " ");

		if (column > indent && column + 1 + len > HELP_WIDTH) {
			printf("\n%*s", indent, "");
			column = indent;
		} else if (column > indent) {
			putchar(' ');
			column++;
		}
		printf("%.*s", len, text);
		column += len;
		text += len + (text[len] == ' ');
	}
	putchar('\n');
}

static void print_row(const struct option_row *row)
{
	int n;

	if (!row->help)
		return;
	if (row->letter)
		n = printf("  -%c, --%s", row->letter, row->name);
	else
		n = printf("      --%s", row->name);
	if (row->arg)
		n += printf(" %s", row->arg);
	if (n + 2 > HELP_COLUMN) {
		putchar('\n');
		n = 0;
	}
	printf("%*s", HELP_COLUMN - n, "");
	print_wrapped(row->help, HELP_COLUMN, HELP_COLUMN);
}

static void print_help(const struct option_spec *spec)
{
	const char *form = spec->usage;

	for (int first = 1; *form; first = 0) {
		size_t len = strcspn(form, "\n");

		printf("%s %s %.*s\n", first ? "Usage:" : "   or:", spec->program, (int)len, form);
		form += len + (form[len] == '\n');
	}
	if (spec->about)
		print_wrapped(spec->about, 0, 0);
	printf("\nOptions:\n");
	for (int i = 0; i < n_all_rows; i++)
		print_row(all_rows[i]);
	if (spec->after)
		printf("\n%s%s", spec->after,
		       spec->after[strlen(spec->after) - 1] == '\n' ? "" : "\n");
}

static const struct option_row *row_by_letter(int letter)
{
	for (int i = 0; i < n_all_rows; i++)
		if (all_rows[i]->letter == letter)
			return all_rows[i];
	return NULL;
}

/* getopt_long answered '?': find out what it did not like. */
static _Noreturn void misuse_of_getopt(const struct options *o)
{
	const char *word = o->argv[optind - 1];

	if (optopt >= VAL_FIRST && optopt < VAL_FIRST + n_all_rows)
		options_misuse(o, "option '--%s' takes no argument",
			       all_rows[optopt - VAL_FIRST]->name);
	if (optopt)
		options_misuse(o, "unknown option '-%c'", optopt);
	for (int i = 0, len = (int)strcspn(word, "="); i < n_all_rows; i++)
		if (len > 2 && !strncmp(all_rows[i]->name, word + 2, (size_t)len - 2))
			options_misuse(o, "option '%.*s' is ambiguous", len, word);
	options_misuse(o, "unknown option '%s'", word);
}

static _Noreturn void misuse_no_argument(const struct options *o)
{
	if (optopt >= VAL_FIRST && optopt < VAL_FIRST + n_all_rows)
		options_misuse(o, "option '--%s' needs an argument (%s)",
			       all_rows[optopt - VAL_FIRST]->name,
			       all_rows[optopt - VAL_FIRST]->arg);
	options_misuse(o, "option '-%c' needs an argument (%s)", optopt,
		       row_by_letter(optopt)->arg);
}

static _Noreturn void finish_stdout(const struct options *o)
{
	exit(options_close_stdout(o->spec->program) < 0 ? EXIT_FAILED : EXIT_DONE);
}

int options_next(struct options *o)
{
	int val;

	while ((val = getopt_long(o->argc, o->argv, short_opts, long_opts, NULL)) != -1) {
		if (val == '?')
			misuse_of_getopt(o);
		if (val == ':')
			misuse_no_argument(o);
		o->row = val >= VAL_FIRST ? all_rows[val - VAL_FIRST] : row_by_letter(val);
		o->arg = optarg;
		switch (o->row->id) {
		case COMMON_HELP:
			print_help(o->spec);
			finish_stdout(o);
		case COMMON_VERSION:
			printf("%s %s\n", o->spec->program, CKPT_VERSION);
			finish_stdout(o);
		case COMMON_VERBOSE:
			o->verbose = true;
			break;
		case COMMON_QUIET:
			o->quiet = true;
			break;
		default:
			return o->row->id;
		}
	}
	o->row = NULL;
	o->arg = NULL;
	o->operands = o->argv + optind;
	o->n_operands = o->argc - optind;
	return OPTION_END;
}

void options_misuse(const struct options *o, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", o->spec->program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry '%s --help'\n", o->spec->program);
	exit(EXIT_USAGE);
}

static _Noreturn void bad_value(const struct options *o)
{
	options_misuse(o, "invalid %s '%s' for --%s", o->row->arg, o->arg, o->row->name);
}

uint64_t options_time_ns(const struct options *o)
{
	uint64_t ns;

	if (parse_time(o->arg, &ns) < 0)
		bad_value(o);
	return ns;
}

bool options_interval_ns(const struct options *o, uint64_t *ret)
{
	*ret = 0;
	if (!strcmp(o->arg, "auto"))
		return false;
	*ret = options_time_ns(o);
	return true;
}

uint32_t options_percent(const struct options *o)
{
	char *end;
	double value = strtod(o->arg, &end);

	if (!isdigit((unsigned char)o->arg[0]) || (*end && strcmp(end, "%")) || value < 0.0001 ||
	    value >= 100)
		bad_value(o);
	return (uint32_t)(value * 10000 + 0.5);
}

uint64_t options_size(const struct options *o)
{
	uint64_t bytes;

	if (parse_size(o->arg, &bytes) < 0)
		bad_value(o);
	return bytes;
}

int64_t options_int(const struct options *o, int64_t min, int64_t max)
{
	int64_t n;

	if (parse_int(o->arg, min, max, &n) < 0)
		bad_value(o);
	return n;
}

int options_choice(const struct options *o, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(o->arg, words[i]))
			return i;
	bad_value(o);
}

uint32_t options_mode(const struct options *o)
{
	static const char *const words[] = { "auto", "stop", "snapshot", "precopy", NULL };
	static const uint32_t values[] = { MODE_AUTO, MODE_STOP, MODE_SNAPSHOT, MODE_PRECOPY };

	return values[options_choice(o, words)];
}

int options_close_stdout(const char *program)
{
	/* A descriptor 1 that was closed from the start matters only if something was printed: then
	 * the flush failed. */
	int failed = fflush(stdout) || ferror(stdout);

	if (!failed && fclose(stdout) && errno != EBADF)
		failed = 1;
	if (!failed)
		return 0;
	fprintf(stderr, "%s: cannot write to standard output: %s\n", program, strerror(errno));
	return -1;
}
