/* SPDX-License-Identifier: BSD-2-Clause */
/* Where scripts find the pid of a restarted job. */
#include "pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int pidfile_open(const char *path, int *ret_fd, struct err *err)
{
	if (!path)
		return 0;
	*ret_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	return *ret_fd < 0 ? err_set(err, -errno, "cannot open pidfile '%s': %m", path) : 0;
}

int pidfile_write(int fd, const char *path, pid_t pid, struct err *err)
{
	if (fd < 0)
		return 0;
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", pid) < 0)
		return err_set(err, -errno, "cannot write pidfile '%s': %m", path);
	return 0;
}
