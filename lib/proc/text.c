/* SPDX-License-Identifier: BSD-2-Clause */
/* Scanning /proc text: what all parsers and readers of this room share. */
#include "proc/text.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

static unsigned digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	if (c >= 'A' && c <= 'F')
		return (unsigned)(c - 'A') + 10;
	return UINT_MAX;
}

const char *text_u64(const char *p, unsigned base, uint64_t *ret)
{
	uint64_t limit = UINT64_MAX / base, v = 0;
	unsigned d = digit(*p);

	if (d >= base)
		return NULL;
	for (; d < base; d = digit(*++p)) {
		if (v > limit || v * base > UINT64_MAX - d)
			return NULL;
		v = v * base + d;
	}
	*ret = v;
	return p;
}

const char *text_i64(const char *p, int64_t *ret)
{
	bool negative = *p == '-';
	uint64_t v;

	p = text_u64(p + negative, 10, &v);
	if (!p || v > (uint64_t)INT64_MAX + negative)
		return NULL;
	*ret = negative ? (int64_t)(0 - v) : (int64_t)v;
	return p;
}

void text_unescape_path(char *path)
{
	char *in = strstr(path, "\\012"), *out = in;

	if (!in)
		return;
	while (*in) {
		if (!strncmp(in, "\\012", 4)) {
			*out++ = '\n';
			in += 4;
		} else {
			*out++ = *in++;
		}
	}
	*out = '\0';
}

int text_fail(int dirfd, const char *name, int code, struct err *err)
{
	struct stat st;

	/* "." of a gone process's directory can still be looked at; what is in it can not. */
	if (code == -ESRCH || (code == -ENOENT && fstatat(dirfd, "stat", &st, 0) < 0))
		return err_set(err, -ESRCH, "cannot read '/proc/PID/%s': the process is gone",
			       name);
	err_set(err, code, "cannot read '/proc/PID/%s': %m", name);
	if (code == -EACCES || code == -EPERM)
		err_hint(err, "it belongs to another user, or is not dumpable");
	return code;
}

int text_read(int dirfd, const char *name, char **ret, size_t *ret_len, struct err *err)
{
	int rc = io_read_file(dirfd, name, ret, ret_len);

	return rc < 0 ? text_fail(dirfd, name, rc, err) : 0;
}

bool text_path_is(int dirfd, const char *path, uint64_t dev, uint64_t ino)
{
	char in_root[PATH_MAX + 8];
	struct stat st;
	int n;

	n = snprintf(in_root, sizeof in_root, "root%s", path);
	if (path[0] != '/' || n < 0 || (size_t)n >= sizeof in_root)
		return false;
	if (fstatat(dirfd, in_root, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	return st.st_ino == ino && (!dev || st.st_dev == dev);
}

static int by_number(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

int text_numbers(int dirfd, const char *name, struct arena *a, int **ret, unsigned *ret_n,
		 struct err *err)
{
	CLEANUP_FD int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_DIR DIR *dir = NULL;
	struct dirent *entry;
	int *list = NULL, *slot;
	unsigned n = 0;
	int64_t v;

	if (fd < 0)
		return text_fail(dirfd, name, -errno, err);
	dir = fdopendir(fd);
	if (!dir)
		return text_fail(dirfd, name, -errno, err);
	(void)fd_take(&fd);
	while ((errno = 0, entry = readdir(dir))) {
		const char *end = text_i64(entry->d_name, &v);

		if (!end || *end || v < 0 || v > INT_MAX)
			continue;
		slot = arena_push(a, &list, &n, sizeof *list);
		if (!slot)
			return err_nomem(err);
		*slot = (int)v;
	}
	if (errno)
		return text_fail(dirfd, name, -errno, err);
	if (n)
		qsort(list, n, sizeof *list, by_number);
	*ret = list;
	*ret_n = n;
	return 0;
}
