/* SPDX-License-Identifier: BSD-2-Clause */
/* Restoring open files, the common part: paths, and opening things again. */
#include "object/kinds.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define OLD_LARGEFILE                                                                              \
	0100000 /* O_LARGEFILE, as the kernel shows it on x86-64, where glibc has it as 0 */
#define TMPFILE_BIT (O_TMPFILE & ~O_DIRECTORY)

/* --- names ------------------------------------------------------------------------------------ */

/* The length of the match when old is path or a directory above it, else 0. */
static size_t prefix_len(const char *path, const char *old)
{
	size_t len = strlen(old);

	while (len > 1 && old[len - 1] == '/')
		len--;
	if (!len || strncmp(path, old, len))
		return 0;
	return path[len] == '\0' || path[len] == '/' || old[len - 1] == '/' ? len : 0;
}

const char *rebuild_path(const struct rebuild *rb, const char *path)
{
	const struct path_map *best = NULL;
	size_t best_len = 0, to;
	const char *rest, *mapped;

	for (unsigned i = 0; path && rb->opts && i < rb->opts->n_maps; i++) {
		size_t len = prefix_len(path, rb->opts->maps[i].old_prefix);

		if (len > best_len) {
			best = &rb->opts->maps[i];
			best_len = len;
		}
	}
	if (!best)
		return path;
	rest = path + best_len;
	while (*rest == '/')
		rest++;
	to = strlen(best->new_prefix);
	while (to && best->new_prefix[to - 1] == '/')
		to--;
	mapped = *rest ? arena_printf(rb->arena, "%.*s/%s", (int)to, best->new_prefix, rest)
		       : arena_printf(rb->arena, "%.*s", MAX((int)to, 1), best->new_prefix);
	return mapped ? mapped : path;
}

const struct process *file_first_holder(const struct tree *t, uint32_t file,
					const struct fd **ret_fd)
{
	for (unsigned i = 0; i < t->n_processes; i++)
		for (unsigned k = 0; k < t->processes[i].n_fds; k++)
			if (t->processes[i].fds[k].file == file) {
				if (ret_fd)
					*ret_fd = &t->processes[i].fds[k];
				return &t->processes[i];
			}
	return NULL;
}

const char *rebuild_file_owner(const struct rebuild *rb, const struct file *f)
{
	const struct fd *fd = NULL;
	const struct process *p = file_first_holder(rb->tree, f->id, &fd);
	const char *text = p ? arena_printf(rb->arena, "pid %d fd %d", p->pid, fd->fd)
			     : arena_printf(rb->arena, "file %u", f->id);

	return text ? text : "a descriptor";
}

int file_index(const struct tree *t, uint32_t id)
{
	/* as a rule they are numbered in order */
	if (id && id <= t->n_files && t->files[id - 1].id == id)
		return (int)id - 1;
	for (unsigned i = 0; i < t->n_files; i++)
		if (t->files[i].id == id)
			return (int)i;
	return -1;
}

/* --- opening ---------------------------------------------------------------------------------- */

int reopen_flags(const struct file *f)
{
	/* What is not named here either cannot be meant (O_CREAT, O_TRUNC) or is set later
	 * (O_ASYNC). */
	int flags = (int)f->flags & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DIRECT |
				     OLD_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_PATH);

	if ((f->flags & TMPFILE_BIT) && !S_ISDIR(f->mode))
		flags &= ~O_DIRECTORY; /* O_TMPFILE includes it */
	return flags | O_CLOEXEC | O_NOCTTY;
}

int reopen_fd(int fd, int flags)
{
	char path[32];
	int ret;

	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	ret = open(path, flags & ~O_NOFOLLOW);
	if (ret < 0 && errno == EPERM && (flags & O_NOATIME))
		ret = open(path, flags & ~(O_NOFOLLOW | O_NOATIME));
	return ret < 0 ? -errno : ret;
}

static int path_error(struct err *err, int code, const char *verb, const char *path)
{
	errno = -code;
	err_set(err, code, "cannot %s '%s': %m", verb, path);
	if (code == -ENOENT || code == -ENOTDIR)
		err_hint(err, "if it is elsewhere now: --map OLD=NEW");
	return code;
}

/*
 * A file that was made with a mode by which its own maker could not open it again: cp(1) of one
 * that may only be read, an object of git's. Its owner may change the mode, for this moment.
 */
int open_lent(const char *path, int flags)
{
	CLEANUP_FD int fd = open(path, O_PATH | O_CLOEXEC);
	char name[32];
	struct stat st;
	int ret;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	errno = EACCES;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return -1;
	(void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (chmod(name, (st.st_mode & 07777) | S_IRUSR | S_IWUSR) < 0)
		return -1;
	ret = reopen_fd(fd, flags);
	(void)chmod(name, st.st_mode & 07777);
	errno = ret < 0 ? -ret : 0;
	return ret < 0 ? -1 : ret;
}

const char *rebuild_above_gone(const struct rebuild *rb, const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL, *above;

	above = slash ? arena_printf(rb->arena, "%.*s/", (int)(slash - path), path) : NULL;
	return !above || access(above, W_OK | X_OK) == 0 ? above : "/tmp/";
}

int reopen_path(const struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const char *path = rebuild_path(rb, f->path);
	int flags = reopen_flags(f), fd = open(path, flags);

	/* O_NOATIME is for owners only, and only an optimisation */
	if (fd < 0 && errno == EPERM && (flags & O_NOATIME))
		fd = open(path, flags & ~O_NOATIME);
	if (fd < 0 && errno == EACCES)
		fd = open_lent(path, flags);
	if (fd < 0)
		return path_error(err, -errno, "open", path);
	*ret_fd = fd;
	return 0;
}

int check_path(const struct rebuild *rb, const struct file *f, struct stat *ret, struct err *err)
{
	const char *path = rebuild_path(rb, f->path);

	if (fstatat(AT_FDCWD, path, ret, f->flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0) < 0)
		return path_error(err, -errno, "find", path);
	return 0;
}

static int raise_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_cur >= lim.rlim_max)
		return -EMFILE;
	lim.rlim_cur = lim.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &lim) < 0 ? -errno : 0;
}

int lift_copy(struct rebuild *rb, int fd, int *ret_fd, struct err *err)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, rb->fd_base);

	/* EINVAL: the number itself is beyond the limit */
	if (high < 0 && (errno == EMFILE || errno == EINVAL) && raise_limit() == 0)
		high = fcntl(fd, F_DUPFD_CLOEXEC, rb->fd_base);
	if (high < 0) {
		int rc = err_set(err, -errno, "cannot keep a descriptor at %d or above: %m",
				 rb->fd_base);

		if (rc == -EMFILE || rc == -EINVAL)
			err_hint(err, "raise the limit of open files: ulimit -Hn");
		return rc;
	}
	*ret_fd = high;
	return 0;
}

int lift_fd(struct rebuild *rb, int *fd, struct err *err)
{
	int high, rc;

	if (*fd >= rb->fd_base)
		return 0;
	rc = lift_copy(rb, *fd, &high, err);
	if (rc < 0)
		return rc;
	(void)close(*fd);
	*fd = high;
	return 0;
}
