/* SPDX-License-Identifier: BSD-2-Clause */
/* /proc/PID/maps and smaps: one parser for both (in smaps, labelled lines follow each mapping). */
/*
 * Two things in the text are ambiguous, and proc_maps_read() settles them by asking the kernel
 * again: a newline in a path is written \012 while a backslash is not escaped, and " (deleted)" may
 * be the end of a name.
 */
#include "proc/proc.h"

#include "proc/smaps.h"
#include "proc/text.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <sys/mman.h>

#define DELETED " (deleted)"

static const char *read_prot(const char *p, struct proc_map *m)
{
	if (strnlen(p, 5) < 5 || p[4] != ' ')
		return NULL;
	m->prot = (p[0] == 'r' ? PROT_READ : 0u) | (p[1] == 'w' ? PROT_WRITE : 0u) |
		  (p[2] == 'x' ? PROT_EXEC : 0u);
	m->shared = p[3] == 's';
	return p + 5;
}

/* "fe:00" as major << 20 | minor, which is how the kernel holds a device number. */
static const char *read_dev(const char *p, struct proc_map *m)
{
	uint64_t major, minor = 0;

	p = text_u64(p, 16, &major);
	if (!p || *p != ':')
		return NULL;
	p = text_u64(p + 1, 16, &minor);
	m->dev = major << 20 | minor;
	return p;
}

/* Everything before the path: "START-END rwxp OFFSET MAJOR:MINOR INODE". */
static const char *read_numbers(const char *p, struct proc_map *m)
{
	p = text_u64(p, 16, &m->start);
	if (!p || *p != '-')
		return NULL;
	p = text_u64(p + 1, 16, &m->end);
	if (!p || *p != ' ' || !(p = read_prot(p + 1, m)))
		return NULL;
	p = text_u64(p, 16, &m->offset);
	if (!p || *p != ' ' || !(p = read_dev(p + 1, m)) || *p != ' ')
		return NULL;
	return text_u64(p + 1, 10, &m->ino);
}

static bool cut_deleted(char *path)
{
	size_t len = strlen(path), tail = sizeof DELETED - 1;

	if (path[0] != '/' || len <= tail || strcmp(path + len - tail, DELETED))
		return false;
	path[len - tail] = '\0';
	return true;
}

static int read_map(char *line, struct arena *a, struct proc_map *m, struct err *err)
{
	char *path = (char *)read_numbers(line, m);

	if (!path || m->start >= m->end)
		return err_set(err, -EBADMSG, "cannot read '/proc/PID/maps': bad line '%.80s'",
			       line);
	path = (char *)text_blanks(path);
	if (!*path) {
		m->path = (char *)"";
		return 0;
	}
	text_unescape_path(path);
	m->deleted = cut_deleted(path);
	m->path = arena_strdup(a, path);
	return m->path ? 0 : err_nomem(err);
}

int proc_maps_parse(char *text, struct arena *a, struct proc_map **ret, unsigned *ret_n,
		    struct err *err)
{
	struct proc_map *maps = NULL, *m = NULL;
	unsigned n = 0;
	char *line;
	int rc;

	while ((line = text_line(&text))) {
		if ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f')) {
			m = arena_push(a, &maps, &n, sizeof *m);
			if (!m)
				return err_nomem(err);
			rc = read_map(line, a, m, err);
			if (rc < 0)
				return rc;
		} else if (m) {
			smaps_line(line, m); /* labels begin with a capital */
		}
	}
	*ret = maps;
	*ret_n = n;
	return 0;
}

/* The path of a mapping as the kernel gives it unescaped; NULL when it can not be had. */
static char *exact_path(int dirfd, const struct proc_map *m, struct arena *a)
{
	CLEANUP_FREE char *target = NULL;
	char name[64];

	(void)snprintf(name, sizeof name, "map_files/%llx-%llx", (unsigned long long)m->start,
		       (unsigned long long)m->end);
	return io_readlink(dirfd, name, &target) < 0 ? NULL : arena_strdup(a, target);
}

/* A file that is really called "x (deleted)" and is there under that name is not deleted. */
static int settle_deleted(int dirfd, struct proc_map *m, struct arena *a, struct err *err)
{
	char *whole = arena_printf(a, "%s" DELETED, m->path);

	if (!whole)
		return err_nomem(err);
	if (text_path_is(dirfd, whole, 0, m->ino)) {
		m->path = whole;
		m->deleted = false;
	}
	return 0;
}

static int settle(int dirfd, struct proc_map *m, struct arena *a, struct err *err)
{
	/* Only odd names get here. */
	if (m->path[0] == '/' && strchr(m->path, '\n')) {
		char *path = exact_path(dirfd, m, a);

		if (path) {
			m->deleted = cut_deleted(path);
			m->path = path;
		}
	}
	return m->deleted ? settle_deleted(dirfd, m, a, err) : 0;
}

/*
 * smaps costs a walk of each mapping's page tables, 12 ms a GiB. The kernel writes records into a
 * page until the next does not fit, throws that away, and makes it anew for the next read. A read
 * that asks for less than a record gets one at a time, so that none is made twice; beyond
 * ONE_BY_ONE bytes (some hundred mappings) there would be too many reads.
 */
#define LESS_THAN_RECORD 512
#define ONE_BY_ONE       (256 * 1024)

static int read_smaps(int dirfd, char **ret, struct err *err)
{
	CLEANUP_FD int fd = openat(dirfd, "smaps", O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE char *text = NULL;
	size_t have = 0, size = 0;
	ssize_t n = fd < 0 ? -errno : 1;

	while (n > 0) {
		if (size - have < 16384) {
			char *more = realloc(text, size ? size * 2 : 65536);

			if (!more)
				return err_nomem(err);
			text = more;
			size = size ? size * 2 : 65536;
		}
		n = read(fd, text + have, have < ONE_BY_ONE ? LESS_THAN_RECORD : size - have - 1);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n < 0)
			n = -errno;
		else
			have += (size_t)n;
	}
	if (n < 0)
		return text_fail(dirfd, "smaps", (int)n, err);
	text[have] = '\0';
	*ret = ptr_take(&text);
	return 0;
}

int proc_maps_read(int dirfd, bool with_flags, struct arena *a, struct proc_map **ret,
		   unsigned *ret_n, struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	struct proc_map *maps = NULL;
	unsigned n = 0;
	int rc;

	rc = with_flags ? read_smaps(dirfd, &text, err)
			: text_read(dirfd, "maps", &text, NULL, err);
	if (rc < 0)
		return rc;
	rc = proc_maps_parse(text, a, &maps, &n, err);
	for (unsigned i = 0; rc >= 0 && i < n; i++)
		rc = settle(dirfd, &maps[i], a, err);
	if (rc < 0)
		return rc;
	*ret = maps;
	*ret_n = n;
	return 0;
}
