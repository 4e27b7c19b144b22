/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From an inode back to a path: by file handle where that is allowed, else by looking where a watch
 * is likely to be.
 *
 * fdinfo shows a file handle, which open_by_handle_at(2) takes from root only. Everyone else has
 * the places that the job is about: its working directory, the directories of its open files and of
 * its program, its home, /tmp, the directories above them, and one level of what is in each. What
 * is found to be watched is searched in turn, so that a whole tree of directories under watch is
 * found from its top.
 */
#include "proc/watches.h"

#include "proc/proc.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAX_REMEMBERED 4096

/* --- by handle -------------------------------------------------------------------------------- */

/* The directory on which the file system with this device number is mounted. */
static int open_mount(uint64_t dev)
{
	CLEANUP_FILE FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP_FREE char *line = NULL;
	size_t size = 0;

	/* "ID PARENT MAJOR:MINOR ROOT MOUNTPOINT ..." (proc_pid_mountinfo(5)) */
	while (f && getline(&line, &size, f) > 0) {
		char *save = NULL, *word = strtok_r(line, " ", &save);
		unsigned maj, min;
		int fd;

		for (int i = 0; word && i < 2; i++)
			word = strtok_r(NULL, " ", &save);
		if (!word || sscanf(word, "%u:%u", &maj, &min) != 2 ||
		    ((uint64_t)maj << 20 | min) != dev)
			continue;
		(void)strtok_r(NULL, " ", &save);
		word = strtok_r(NULL, " ", &save);
		fd = word ? open(word, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
		if (fd >= 0)
			return fd;
	}
	return -1;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "... fhandle-bytes:8 fhandle-type:1 f_handle:0123456789abcdef": the numbers are hexadecimal. */
static bool parse_handle(const char *line, struct file_handle *h, unsigned max)
{
	const char *bytes = strstr(line, "fhandle-bytes:"), *type = strstr(line, "fhandle-type:");
	const char *data = strstr(line, "f_handle:"), *end = strchr(line, '\n');

	if (!bytes || !type || !data || (end && data > end))
		return false;
	h->handle_bytes = (unsigned)strtoul(bytes + 14, NULL, 16);
	h->handle_type = (int)strtoul(type + 13, NULL, 16);
	if (!h->handle_bytes || h->handle_bytes > max)
		return false;
	data += 9;
	for (unsigned i = 0; i < h->handle_bytes; i++, data += 2) {
		int hi = hex_digit(data[0]), lo = hi < 0 ? -1 : hex_digit(data[1]);

		if (lo < 0)
			return false;
		h->f_handle[i] = (unsigned char)(hi << 4 | lo);
	}
	return true;
}

static void by_handle(struct watch_search *s, struct inotify_watch *w, const char *line)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u;
	CLEANUP_FD int mount_fd = -1;
	CLEANUP_FD int fd = -1;
	CLEANUP_FREE char *path = NULL;
	char name[32];
	struct stat st, there;

	if (!parse_handle(line, &u.h, MAX_HANDLE_SZ))
		return;
	mount_fd = open_mount(w->dev);
	fd = mount_fd < 0 ? -1 : open_by_handle_at(mount_fd, &u.h, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	(void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (io_readlink(AT_FDCWD, name, &path) < 0 || lstat(path, &there) < 0 ||
	    st.st_ino != there.st_ino || st.st_dev != there.st_dev)
		return;
	w->path = arena_strdup(s->arena, path);
	if (w->path)
		s->n_open--;
}

void watches_by_handle(struct watch_search *s, int proc_dirfd, int inotify)
{
	CLEANUP_FREE char *text = NULL;
	char name[32], *save = NULL;

	(void)snprintf(name, sizeof name, "fdinfo/%d", inotify);
	if (io_read_file(proc_dirfd, name, &text, NULL) < 0)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned wd;

		if (sscanf(line, "inotify wd:%x", &wd) != 1)
			continue;
		for (unsigned i = 0; i < s->d->n_watches; i++)
			if (s->d->watches[i].wd == (int32_t)wd)
				by_handle(s, &s->d->watches[i], line);
	}
}

/* --- by looking around ------------------------------------------------------------------------ */

static void add_dir(struct watch_search *s, const char *path)
{
	struct string *dir;

	if (path[0] != '/')
		return;
	for (unsigned i = 0; i < s->n_dirs; i++)
		if (!strcmp(s->dirs[i].s, path))
			return;
	dir = arena_push(s->arena, &s->dirs, &s->n_dirs, sizeof *dir);
	if (!dir)
		return;
	dir->s = arena_strdup(s->arena, path);
	if (!dir->s)
		s->n_dirs--;
}

/* The path, if it is a directory, and all above it. */
static void add_upward(struct watch_search *s, const char *path)
{
	CLEANUP_FREE char *copy = strdup(path);
	char *slash;

	if (!copy || copy[0] != '/')
		return;
	add_dir(s, copy);
	while ((slash = strrchr(copy, '/')) && slash != copy) {
		*slash = '\0';
		add_dir(s, copy);
	}
	add_dir(s, "/");
}

static bool is_wanted(const struct watch_search *s, uint64_t ino)
{
	for (unsigned i = 0; i < s->d->n_watches; i++)
		if (!s->d->watches[i].path && s->d->watches[i].ino == ino)
			return true;
	return false;
}

static void try_path(struct watch_search *s, const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	for (unsigned i = 0; i < s->d->n_watches; i++) {
		struct inotify_watch *w = &s->d->watches[i];

		if (w->path || w->ino != st.st_ino ||
		    w->dev != ((uint64_t)major(st.st_dev) << 20 | minor(st.st_dev)))
			continue;
		w->path = arena_strdup(s->arena, path);
		if (!w->path)
			return;
		s->n_open--;
		if (S_ISDIR(st.st_mode))
			add_dir(s, path);
	}
}

void watches_by_memory(struct watch_search *s, const struct watch_memory *m)
{
	for (unsigned i = 0; i < m->n && s->n_open; i++)
		try_path(s, m->paths[i].s);
}

void watches_remember(struct watch_memory *m, const char *path)
{
	struct string *more;

	if (m->n == MAX_REMEMBERED)
		watches_forget(m);
	for (unsigned i = 0; i < m->n; i++)
		if (!strcmp(m->paths[i].s, path))
			return;
	if (!m->arena)
		m->arena = arena_new();
	more = m->arena ? arena_push(m->arena, &m->paths, &m->n, sizeof *more) : NULL;
	if (!more)
		return;
	more->s = arena_strdup(m->arena, path);
	if (!more->s)
		m->n--;
}

void watches_forget(struct watch_memory *m)
{
	arena_free(m->arena);
	*m = (struct watch_memory){ 0 };
}

static void look_through(struct watch_search *s, const char *dir)
{
	CLEANUP_DIR DIR *d = NULL;
	const struct dirent *e;
	char path[4096];

	try_path(s, dir);
	d = s->n_open ? opendir(dir) : NULL;
	while (d && s->n_open && (e = readdir(d))) {
		if (!is_wanted(s, e->d_ino) || !strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (snprintf(path, sizeof path, "%s/%s", strcmp(dir, "/") ? dir : "", e->d_name) <
		    (int)sizeof path)
			try_path(s, path);
	}
}

static void add_environment(struct watch_search *s, int proc_dirfd)
{
	CLEANUP_FREE char *text = NULL;
	size_t len = 0;

	if (io_read_file(proc_dirfd, "environ", &text, &len) < 0)
		return;
	for (const char *p = text; p < text + len; p += strlen(p) + 1) {
		if (!strncmp(p, "PWD=", 4))
			add_upward(s, p + 4);
		else if (!strncmp(p, "HOME=", 5) || !strncmp(p, "TMPDIR=", 7))
			add_upward(s, strchr(p, '=') + 1);
	}
}

void watches_near_process(struct watch_search *s, int proc_dirfd)
{
	static const char *const links[] = { "cwd", "exe", "root" };

	for (unsigned k = 0; k < ARRAY_SIZE(links); k++) {
		char *path = NULL;

		if (proc_link(proc_dirfd, links[k], s->arena, &path, NULL, NULL) == 0)
			add_upward(s, path);
	}
	add_environment(s, proc_dirfd);
}

void watches_near_file(struct watch_search *s, const char *path)
{
	add_upward(s, path);
}

void watches_look_around(struct watch_search *s)
{
	add_dir(s, "/tmp");
	add_dir(s, "/dev/shm");
	for (unsigned i = 0; i < s->n_dirs && s->n_open; i++)
		look_through(s, s->dirs[i].s);
}
