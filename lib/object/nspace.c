/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Namespaces of the job's own, which a restart does not make again: refused by name. What the job
 * runs in anyway is that of its root's parent: ckpt-run's, or those that ckpt-restart made, in
 * which the parent is the small init.
 */
#include "object/attrs.h"

#include "util/cleanup.h"

#include <stdio.h>
#include <string.h>

static const struct {
	const char *file, *what;
} names[] = {
	{ "mnt", "a mount namespace" },     { "pid", "a pid namespace" },
	{ "user", "a user namespace" },     { "net", "a network namespace" },
	{ "ipc", "an IPC namespace" },      { "uts", "a UTS namespace (host name)" },
	{ "cgroup", "a cgroup namespace" },
};

_Static_assert(ARRAY_SIZE(names) <= CAPTURE_NAMESPACES, "room for all");

static ino_t number_of(int dirfd, const char *file)
{
	char path[32];
	struct stat st;

	(void)snprintf(path, sizeof path, "ns/%s", file);
	return fstatat(dirfd, path, &st, 0) == 0 ? st.st_ino : 0;
}

/* Once for a checkpoint. What may not be looked at stays 0 and is not compared. */
static void look_at_surroundings(struct capture *c)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat stat;

	c->namespaces_known = true;
	if (!c->n_subjects || proc_stat_read(c->subjects[0].proc_dirfd, &stat, NULL) < 0 ||
	    stat.ppid <= 0 || proc_open_pid(stat.ppid, &dirfd, NULL) < 0)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		c->namespaces[i] = number_of(dirfd, names[i].file);
}

int namespaces_check(struct capture *c, const struct subject *s, struct err *err)
{
	if (!c->namespaces_known)
		look_at_surroundings(c);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		ino_t theirs = c->namespaces[i] ? number_of(s->proc_dirfd, names[i].file) : 0;

		if (!theirs || theirs == c->namespaces[i])
			continue;
		(void)err_set(err, -EOPNOTSUPP, "pid %d: %s of its own is not supported", s->pid,
			      names[i].what);
		return err_hint(err, "run ckpt-run inside of that namespace");
	}
	return 0;
}
