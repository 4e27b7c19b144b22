/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether what a descriptor leads to can be found again by the path that /proc shows of it. */
#include "proc/proc.h"

#include "util/cleanup.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

int proc_access_mode(int flags)
{
	int mode = flags & O_ACCMODE;

	return mode == O_RDONLY ? R_OK : mode == O_WRONLY ? W_OK : R_OK | W_OK;
}

bool proc_reaches(pid_t pid, const char *path, const struct stat *file, int flags)
{
	struct stat st;
	char there[4200];

	if (stat(path, &st) < 0)
		return false;
	if (!same(&st, file)) {
		/* a job in a mount namespace of its own may have another file there */
		(void)snprintf(there, sizeof there, "/proc/%d/root%s", pid, path);
		if (stat(there, &st) < 0 || !same(&st, file)) {
			errno = ESTALE;
			return false;
		}
		return true;
	}
	return faccessat(AT_FDCWD, path, proc_access_mode(flags), AT_EACCESS) == 0 ||
	       (errno == EACCES && file->st_uid == geteuid()); /* see open_lent of object/ */
}

char *proc_other_name(struct arena *a, const char *path, const struct stat *file)
{
	CLEANUP_FREE char *copy = strdup(path);
	const char *dir = copy ? dirname(copy) : NULL;
	CLEANUP_DIR DIR *d = dir ? opendir(dir) : NULL;
	const struct dirent *e;
	struct stat st;

	while (d && (e = readdir(d))) {
		if (e->d_ino != file->st_ino ||
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (same(&st, file))
			return arena_printf(a, "%s/%s", strcmp(dir, "/") ? dir : "", e->d_name);
	}
	return NULL;
}

static int32_t id_at(const char *p, const char **ret_rest)
{
	char *end;
	long id;

	if (!isdigit((unsigned char)*p))
		return 0;
	id = strtol(p, &end, 10);
	if ((*end && *end != '/') || id <= 0 || id > INT32_MAX)
		return 0;
	*ret_rest = end;
	return (int32_t)id;
}

int32_t proc_path_pid(const char *path, const char **ret_rest)
{
	return strncmp(path, "/proc/", 6) ? 0 : id_at(path + 6, ret_rest);
}

int32_t proc_path_tid(const char *rest, const char **ret_rest)
{
	return strncmp(rest, "/task/", 6) ? 0 : id_at(rest + 6, ret_rest);
}

/* proc_pid_stat(5): the minor number is in bits 31 to 20 and 7 to 0, the major one in 15 to 8 */
dev_t proc_tty_device(const struct proc_stat *st)
{
	unsigned nr = (unsigned)st->tty_nr;

	return makedev(nr >> 8 & 0xff, (nr & 0xff) | (nr >> 12 & 0xfff00));
}
