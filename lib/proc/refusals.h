/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be restored, by the names under which /proc shows it: one table for the checkpoint
 * that refuses it, and for ckpt-inspect, which foretells that. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct refusal {
	const char *prefix; /* the beginning of what /proc/PID/fd or /proc/PID/maps shows */
	const char *name;
	const char *hint; /* what to do about it, or NULL */
};

/* A descriptor, by what readlink shows of it (without " (deleted)"); NULL: not by its name. */
const struct refusal *refusal_of_file(const char *link);
/* A device, by its path. */
const struct refusal *refusal_of_device(const char *path);
/* A mapping, by its path. */
const struct refusal *refusal_of_mapping(const char *path);
/* What to do about hugetlb memory, which has no name. */
extern const char refusal_hint_hugetlb[];
/* Is it a ckpt-run or ckpt-restart, by the process's name and its executable? */
bool refusal_is_ckpt(const char *name, const char *exe);
extern const char refusal_hint_ckpt[];
/* A file, by the type of its file system (statfs(2)); NULL: it is no such. */
const char *refusal_of_filesystem(long magic);
/* Character devices that can be opened again, or are handled otherwise: memory devices, terminals.
 */
int refusal_knows_device(unsigned maj, unsigned min);
