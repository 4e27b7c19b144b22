/* SPDX-License-Identifier: BSD-2-Clause */
/* --stats: one JSON line for each attempt at a checkpoint. */
#pragma once

#include "dump/dump.h"
#include "util/err.h"

/*
 * Opens the file for appending, creating it; -1 with path NULL. The path is taken relative to the
 * working directory of the caller; stats_path makes it absolute (malloc'ed), so that a restart from
 * elsewhere finds the same file.
 */
int stats_open(const char *path, int *ret_fd, struct err *err);
int stats_path(const char *path, char **ret, struct err *err);
/*
 * The line for an attempt that ended with rc (and err when rc < 0), newline and all; malloc'ed,
 * NULL when out of memory. Always valid JSON, whatever bytes a message holds.
 */
char *stats_line(int rc, const struct dump_result *result, const struct err *err);
/* Appends a line in one write, so that several writers of a file do not mix; does nothing for fd
 * -1. */
int stats_append(int fd, const char *line, struct err *err);
