/* SPDX-License-Identifier: BSD-2-Clause */
/* Open descriptors and the links of /proc/PID. */
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <sys/stat.h>

#define DELETED " (deleted)"

int proc_fds(int dirfd, struct arena *a, int **ret, unsigned *ret_n, struct err *err)
{
	return text_numbers(dirfd, "fd", a, ret, ret_n, err);
}

/* Does the link lead to a file that is there under its name, odd ending and all? */
static bool really_called_so(int dirfd, const char *name, const char *target)
{
	struct stat st;

	return fstatat(dirfd, name, &st, 0) == 0 &&
	       text_path_is(dirfd, target, st.st_dev, st.st_ino);
}

int proc_link(int dirfd, const char *name, struct arena *a, char **ret, bool *ret_deleted,
	      struct err *err)
{
	CLEANUP_FREE char *target = NULL;
	size_t len, tail = sizeof DELETED - 1;
	bool deleted = false;
	char *copy;
	int rc;

	rc = io_readlink(dirfd, name, &target);
	if (rc < 0)
		return text_fail(dirfd, name, rc, err);
	len = strlen(target);
	if (target[0] == '/' && len > tail && !strcmp(target + len - tail, DELETED) &&
	    !really_called_so(dirfd, name, target)) {
		target[len - tail] = '\0';
		deleted = true;
	}
	copy = arena_strdup(a, target);
	if (!copy)
		return err_nomem(err);
	*ret = copy;
	if (ret_deleted)
		*ret_deleted = deleted;
	return 0;
}
