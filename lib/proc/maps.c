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

/* The mappings so far: while there may be more, outside of the arena, which takes nothing back. */
struct listing {
	struct arena *a;
	struct proc_map *v;
	unsigned n, room;
};

static void listing_fini(struct listing *l)
{
	free(l->v);
}

/* Zeroed. */
static struct proc_map *add_map(struct listing *l)
{
	if (l->n == l->room) {
		unsigned room = l->room ? l->room * 2 : 32;
		struct proc_map *more = realloc(l->v, room * sizeof *more);

		if (!more)
			return NULL;
		l->v = more;
		l->room = room;
	}
	memset(&l->v[l->n], 0, sizeof *l->v);
	return &l->v[l->n++];
}

static int read_map(struct listing *l, char *line, struct err *err)
{
	struct proc_map *m = add_map(l);
	char *path;

	if (!m)
		return err_nomem(err);
	path = (char *)read_numbers(line, m);
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
	/* a file's mappings stand together */
	m->path = l->n > 1 && !strcmp(m[-1].path, path) ? m[-1].path : arena_strdup(l->a, path);
	return m->path ? 0 : err_nomem(err);
}

static int read_line(struct listing *l, char *line, struct err *err)
{
	if ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f'))
		return read_map(l, line, err);
	if (l->n)
		smaps_line(line, &l->v[l->n - 1]); /* labels begin with a capital */
	return 0;
}

static int listing_done(struct listing *l, struct proc_map **ret, unsigned *ret_n, struct err *err)
{
	struct proc_map *maps = arena_memdup(l->a, l->v, l->n * sizeof *maps);

	if (!maps)
		return err_nomem(err);
	*ret = maps;
	*ret_n = l->n;
	return 0;
}

int proc_maps_parse(char *text, struct arena *a, struct proc_map **ret, unsigned *ret_n,
		    struct err *err)
{
	CLEANUP(listing_fini) struct listing l = { .a = a };
	char *line;
	int rc = 0;

	while (rc == 0 && (line = text_line(&text)))
		rc = read_line(&l, line, err);
	return rc < 0 ? rc : listing_done(&l, ret, ret_n, err);
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
#define TEXT_BYTES       (32 * 1024)

/* Text on its way: it is many times what is kept of it. */
struct text {
	char *p;
	size_t have, room, total;
};

static void text_fini(struct text *t)
{
	free(t->p);
}

static ssize_t read_more(struct text *t, int fd, bool one_by_one)
{
	ssize_t n;

	if (t->room - t->have < LESS_THAN_RECORD + 1) { /* a long line */
		char *more = realloc(t->p, t->room ? t->room * 2 : TEXT_BYTES);

		if (!more)
			return -ENOMEM;
		t->p = more;
		t->room = t->room ? t->room * 2 : TEXT_BYTES;
	}
	do
		n = read(fd, t->p + t->have,
			 one_by_one && t->total < ONE_BY_ONE ? LESS_THAN_RECORD
							     : t->room - t->have - 1);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	t->have += (size_t)n;
	t->total += (size_t)n;
	t->p[t->have] = '\0';
	return n;
}

/* What is whole of it. */
static int read_lines(struct listing *l, struct text *t, struct err *err)
{
	char *line = t->p, *nl;
	int rc = 0;

	while (rc == 0 && (nl = strchr(line, '\n'))) {
		*nl = '\0';
		rc = read_line(l, line, err);
		line = nl + 1;
	}
	t->have -= (size_t)(line - t->p);
	memmove(t->p, line, t->have + 1);
	return rc;
}

static int list(int dirfd, const char *name, bool one_by_one, struct listing *l, struct err *err)
{
	CLEANUP_FD int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	CLEANUP(text_fini) struct text t = { 0 };
	ssize_t n = fd < 0 ? -errno : 1;
	int rc = 0;

	while (rc == 0 && n > 0) {
		n = read_more(&t, fd, one_by_one);
		if (n > 0)
			rc = read_lines(l, &t, err);
	}
	if (n < 0)
		return text_fail(dirfd, name, (int)n, err);
	return rc == 0 && t.have ? read_line(l, t.p, err) : rc;
}

int proc_maps_read(int dirfd, bool with_flags, struct arena *a, struct proc_map **ret,
		   unsigned *ret_n, struct err *err)
{
	CLEANUP(listing_fini) struct listing l = { .a = a };
	int rc = list(dirfd, with_flags ? "smaps" : "maps", with_flags, &l, err);

	for (unsigned i = 0; rc >= 0 && i < l.n; i++)
		rc = settle(dirfd, &l.v[i], a, err);
	return rc < 0 ? rc : listing_done(&l, ret, ret_n, err);
}
