/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Namespaces of a job's own, which a restart does not make again. What the job runs in anyway is
 * that of its root's parent: ckpt-run's, or those that ckpt-restart made, in which the parent is
 * the small init.
 */
#include "proc/proc.h"

#include "util/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *file, *what;
} names[] = {
	{ "mnt", "a mount namespace" },     { "pid", "a pid namespace" },
	{ "user", "a user namespace" },     { "net", "a network namespace" },
	{ "ipc", "an IPC namespace" },      { "uts", "a UTS namespace (host name)" },
	{ "cgroup", "a cgroup namespace" },
};

_Static_assert(ARRAY_SIZE(names) == PROC_NAMESPACES, "room for all");

/* namespaces(7): "mnt:[4026531841]". To look at the namespace itself takes twice as long. */
static ino_t number_of(int dirfd, const char *file)
{
	char path[32], link[64];
	const char *at;
	ssize_t n;

	(void)snprintf(path, sizeof path, "ns/%s", file);
	n = readlinkat(dirfd, path, link, sizeof link - 1);
	link[n > 0 ? n : 0] = '\0';
	at = strchr(link, '[');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

void proc_namespaces_around(int root_dirfd, ino_t ret[static PROC_NAMESPACES])
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat stat;
	bool known = proc_stat_read(root_dirfd, &stat, NULL) == 0 && stat.ppid > 0 &&
		     proc_open_pid(stat.ppid, &dirfd, NULL) == 0;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		ret[i] = known ? number_of(dirfd, names[i].file) : 0;
}

const char *proc_namespace_own(int dirfd, const ino_t around[static PROC_NAMESPACES])
{
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		ino_t theirs = around[i] ? number_of(dirfd, names[i].file) : 0;

		if (theirs && theirs != around[i])
			return names[i].what;
	}
	return NULL;
}
