/* SPDX-License-Identifier: BSD-2-Clause */
/* Scanning /proc text: numbers without sscanf, lines without copies, gone processes told apart. */
#pragma once

#include "util/arena.h"
#include "util/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Each reads a number at p and returns the first character behind it, or NULL where there is none
 * or where it does not fit. They skip no blanks. A "-" is accepted by text_i64 alone.
 */
const char *text_u64(const char *p, unsigned base, uint64_t *ret);
const char *text_i64(const char *p, int64_t *ret);

static inline const char *text_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

/* The word of a "Label:" line behind its label, blanks skipped; NULL when the line has another
 * label. */
static inline char *text_after(char *line, const char *label)
{
	size_t n = strlen(label);

	return strncmp(line, label, n) ? NULL : (char *)text_blanks(line + n);
}

/* Cuts the next line out of *text (NUL over the newline), NULL at the end. */
static inline char *text_line(char **text)
{
	char *line = *text, *nl;

	if (!line || !*line)
		return NULL;
	nl = strchr(line, '\n');
	if (nl) {
		*nl = '\0';
		*text = nl + 1;
	} else {
		*text = NULL;
	}
	return line;
}

/* The kernel writes a newline in a path as \012 and leaves everything else alone; undone in place.
 */
void text_unescape_path(char *path);

/*
 * The whole of a file below a /proc/PID directory, malloc'ed. -ESRCH (with a message) when the
 * process is gone, which the kernel reports as -ENOENT or -ESRCH depending on how far it got.
 */
int text_read(int dirfd, const char *name, char **ret, size_t *ret_len, struct err *err);
/* Turns a failed access to name below dirfd into an error as described there. */
int text_fail(int dirfd, const char *name, int code, struct err *err);
/* Is path, followed inside the process's own root, the object that st_dev/ino name? dev 0: compare
 * ino alone. */
bool text_path_is(int dirfd, const char *path, uint64_t dev, uint64_t ino);
/* The numeric names in a directory, ascending; the list is NULL-safe and never shared. */
int text_numbers(int dirfd, const char *name, struct arena *a, int **ret, unsigned *ret_n,
		 struct err *err);
