/* SPDX-License-Identifier: BSD-2-Clause */
/* What the descriptors of a running process are, by their links: in the order of the table of kinds
 * in object/files.c. */
#include "proc/able_int.h"

#include "proc/refusals.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FS_PROC   0x9fa0
#define FS_NFS    0x6969
#define FS_MQUEUE 0x19800202

/* A descriptor that a path is shown of. */
struct named {
	int fd;
	const char *path;
	bool deleted;
	struct stat st;
	int flags;
	long fs;
};

static bool is_member(const struct looking *l, int32_t inner, int32_t tid)
{
	for (unsigned i = 0; i < l->n_pids; i++) {
		CLEANUP_FD int dirfd = -1;
		struct proc_status st;
		unsigned n;
		pid_t *tids;

		if (proc_open_pid(l->pids[i], &dirfd, NULL) < 0 ||
		    proc_status_read(dirfd, l->a, &st, NULL) < 0 || st.ns_tgid != inner)
			continue;
		if (!tid)
			return true;
		if (proc_threads(dirfd, l->a, &tids, &n, NULL) < 0)
			return true;
		for (unsigned k = 0; k < n; k++)
			if (proc_inner_tid(l->pids[i], tids[k], l->a) == tid)
				return true;
	}
	return false;
}

/* A file below /proc: it must be about the tree, or about nobody. */
static void look_at_procfile(struct looking *l, const struct named *f)
{
	const char *rest;
	int32_t pid = proc_path_pid(f->path, &rest);

	if (f->deleted)
		(void)able_obstacle(l, f->fd, NULL,
				    "'%s', which belongs to a process that has ended,", f->path);
	else if (pid && !is_member(l, pid, proc_path_tid(rest, &rest)))
		(void)able_obstacle(l, f->fd, NULL,
				    "'%s', which is about a process outside of the job,", f->path);
}

static bool is_stream_of(void *arg, const struct able_fd *f)
{
	const struct named *wanted = arg;
	struct stat st;

	return f->fd <= 2 && fstatat(f->dirfd, f->name, &st, 0) == 0 &&
	       st.st_ino == wanted->st.st_ino && st.st_dev == wanted->st.st_dev;
}

static void look_at_regular(struct looking *l, struct named *f)
{
	const char *base = strrchr(f->path, '/');
	char why[96];

	if (f->deleted || f->st.st_nlink == 0) {
		if (f->st.st_nlink > 0 && !proc_other_name(l->a, f->path, &f->st))
			(void)able_obstacle(l, f->fd, NULL,
					    "'%s', which was deleted and has no other name in that "
					    "directory,",
					    f->path);
		return;
	}
	if ((f->fs == FS_NFS && base && !strncmp(base, "/.nfs", 5)) ||
	    proc_reaches(l->pid, f->path, &f->st, f->flags))
		return;
	(void)snprintf(why, sizeof why, "%s",
		       errno == ESTALE ? "another file lies there" : strerror(errno));
	/* standard streams to files that this user may not open are taken from the caller */
	if (!able_any_fd(l, is_stream_of, f))
		(void)able_obstacle(l, f->fd, NULL, "'%s', which could not be opened again (%s),",
				    f->path, why);
}

static void look_at_device(struct looking *l, const struct named *f)
{
	const struct refusal *r = refusal_of_device(f->path);
	unsigned maj = major(f->st.st_rdev), min = minor(f->st.st_rdev);

	if (!S_ISCHR(f->st.st_mode) || !refusal_knows_device(maj, min))
		(void)able_obstacle(l, f->fd, r ? r->hint : NULL, "%s '%s'", r ? r->name : "device",
				    f->path);
	else if (maj == 1 && f->deleted)
		(void)able_obstacle(l, f->fd, NULL, "the device '%s', which was deleted,", f->path);
	else if (maj == 5 && min == 2)
		able_look_at_master(l, f->fd);
	else if (maj != 1 && f->fd > 2 && !f->deleted) /* whose master is closed comes back so */
		able_look_at_terminal(l, f->fd, f->path, f->st.st_rdev);
}

static void look_at_named(struct looking *l, const char *name, struct named *f)
{
	const char *what = refusal_of_filesystem(f->fs);

	if (f->flags & O_PATH) {
		if (f->deleted)
			(void)able_obstacle(l, f->fd, NULL,
					    "an O_PATH descriptor of '%s', which has no name,",
					    f->path);
	} else if (S_ISCHR(f->st.st_mode) || S_ISBLK(f->st.st_mode)) {
		look_at_device(l, f);
	} else if (!S_ISREG(f->st.st_mode) && !S_ISDIR(f->st.st_mode)) {
		return;
	} else if (what) {
		(void)able_obstacle(l, f->fd, NULL, "%s", what);
	} else if (f->fs == FS_PROC) {
		look_at_procfile(l, f);
	} else if (f->fs == FS_MQUEUE) {
		able_look_at_queue(l, f->fd, name, f->path);
	} else if (S_ISREG(f->st.st_mode) && !refusal_is_kernels_own(f->fs) &&
		   strncmp(f->path, "/memfd:", 7) != 0) {
		look_at_regular(l, f);
	}
}

static void look_at_nameless(struct looking *l, int fd, const char *name, const char *link)
{
	struct proc_fdinfo info = { 0 };

	if (!strncmp(link, "socket:[", 8)) {
		if (fd > 2)
			able_look_at_socket(l, fd, name, link);
	} else if (!refusal_knows_link(link)) {
		(void)able_obstacle(l, fd, NULL, "'%s'", link);
	} else if (proc_fdinfo_read(l->dirfd, fd, l->a, &info, NULL) < 0) {
		return;
	} else if (refusal_link_is_pidfd(link)) {
		if (info.pidfd_pid > 0 && !able_in_tree(l, info.pidfd_pid))
			(void)able_obstacle(l, fd, NULL,
					    "a pidfd of process %d, which is not in the job",
					    info.pidfd_pid);
	} else if (!strcmp(link, LINK_EPOLL)) {
		able_look_at_epoll(l, fd, &info);
	} else if (!strcmp(link, LINK_INOTIFY)) {
		able_look_at_inotify(l, fd, &info);
	}
}

static void look_at_file(struct looking *l, int fd)
{
	const struct refusal *r;
	struct proc_fdinfo info = { 0 };
	struct named f = { .fd = fd };
	struct statfs fs;
	char name[32], path[64], *link;

	(void)snprintf(name, sizeof name, "fd/%d", fd);
	if (proc_link(l->dirfd, name, l->a, &link, &f.deleted, NULL) < 0)
		return; /* closed since */
	r = refusal_of_file(link);
	if (r) {
		(void)able_obstacle(l, fd, r->hint, "%s", r->name);
		return;
	}
	if (link[0] != '/') {
		look_at_nameless(l, fd, name, link);
		return;
	}
	f.path = link;
	(void)snprintf(path, sizeof path, "/proc/%d/%s", l->pid, name);
	if (fstatat(l->dirfd, name, &f.st, 0) < 0 ||
	    proc_fdinfo_read(l->dirfd, fd, l->a, &info, NULL) < 0)
		return;
	f.flags = (int)info.flags;
	f.fs = statfs(path, &fs) == 0 ? (long)fs.f_type : 0;
	look_at_named(l, name, &f);
}

int able_look_at_files(struct looking *l, struct err *err)
{
	unsigned n;
	int *fds, rc = proc_fds(l->dirfd, l->a, &fds, &n, err);

	for (unsigned i = 0; rc == 0 && i < n; i++)
		look_at_file(l, fds[i]);
	return rc;
}
