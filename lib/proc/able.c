/* SPDX-License-Identifier: BSD-2-Clause */
/* What stands in the way of checkpointing a running tree, as far as /proc shows it. */
#include "proc/able.h"

#include "proc/proc.h"
#include "proc/refusals.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

struct looking {
	struct arena *a;
	struct able *able;
	struct proc_status own;
	pid_t *pids; /* of the tree; a parent before its children */
	unsigned n_pids;
	ino_t namespaces[PROC_NAMESPACES]; /* around the tree */
	pid_t pid;                         /* being looked at */
	int dirfd;
};

__attribute__((format(printf, 4, 5))) static int obstacle(struct looking *l, int fd,
							  const char *hint, const char *fmt, ...)
{
	struct obstacle *o =
		arena_push(l->a, &l->able->obstacles, &l->able->n_obstacles, sizeof *o);
	char text[512];
	va_list ap;

	if (!o)
		return -ENOMEM;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (!hint && fd >= 0)
		hint = arena_printf(l->a, "ckpt-run --fd %d=close leaves it out", fd);
	*o = (struct obstacle){
		.pid = l->pid, .fd = fd, .what = arena_strdup(l->a, text), .hint = hint
	};
	return o->what ? 0 : -ENOMEM;
}

/* --- the process ------------------------------------------------------------------------------ */

static bool is_32bit(const struct looking *l)
{
	CLEANUP_FD int fd = openat(l->dirfd, "exe", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	unsigned char ident[EI_NIDENT];

	return fd >= 0 && io_pread_full(fd, ident, sizeof ident, 0) == (ssize_t)sizeof ident &&
	       !memcmp(ident, ELFMAG, SELFMAG) && ident[EI_CLASS] == ELFCLASS32;
}

static bool other_namespace(const struct looking *l, const char *name)
{
	char ours[48], theirs[32];
	struct stat a, b;

	(void)snprintf(ours, sizeof ours, "/proc/self/ns/%s", name);
	(void)snprintf(theirs, sizeof theirs, "ns/%s", name);
	return stat(ours, &a) == 0 && fstatat(l->dirfd, theirs, &b, 0) == 0 && a.st_ino != b.st_ino;
}

static bool foreign_root(const struct looking *l)
{
	CLEANUP_FREE char *link = NULL;
	struct stat theirs, ours;

	return io_readlink(l->dirfd, "root", &link) >= 0 && !strcmp(link, "/") &&
	       fstatat(l->dirfd, "root", &theirs, 0) == 0 && stat("/", &ours) == 0 &&
	       (theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino);
}

/* Whether what follows can be seen at all. */
static bool may_look(struct looking *l, const struct proc_status *st)
{
	bool mighty = l->own.cap_eff & 1ULL << CAP_SYS_PTRACE;
	struct stat dir;

	for (int i = 0; !mighty && i < 4; i++)
		if (st->uid[i] != geteuid()) {
			(void)obstacle(l, -1, "run ckpt-run as that user, or as root",
				       "a process of another user (uid %u)", st->uid[i]);
			return false;
		}
	/* the kernel gives the files of a process that is not dumpable to root */
	if (!mighty && st->uid[1] && fstatat(l->dirfd, "maps", &dir, 0) == 0 &&
	    dir.st_uid != st->uid[1]) {
		(void)obstacle(l, -1,
			       "it must not call prctl(PR_SET_DUMPABLE, 0), nor run with file "
			       "capabilities",
			       "a process that is not dumpable");
		return false;
	}
	return true;
}

static void look_at_process(struct looking *l, const struct proc_status *st)
{
	const char *own = proc_namespace_own(l->dirfd, l->namespaces);
	CLEANUP_FREE char *exe = NULL;

	if (own)
		(void)obstacle(l, -1, "run ckpt-run inside of that namespace", "%s of its own",
			       own);
	if (st->tracer)
		(void)obstacle(l, -1, "end the debugger, or strace",
			       "it is being traced by process %d", st->tracer);
	if (st->seccomp && (st->seccomp != 2 || st->seccomp_filters > l->own.seccomp_filters + 1))
		(void)obstacle(l, -1,
			       "start the program without its sandbox (many have an option for "
			       "that)",
			       "a seccomp filter");
	else if (st->seccomp && st->seccomp_filters > l->own.seccomp_filters)
		(void)obstacle(l, -1,
			       "unless it is that of ckpt-run --deny-io-uring, which is known",
			       "a seccomp filter");
	if (io_readlink(l->dirfd, "exe", &exe) >= 0 && refusal_is_ckpt(st->name, exe))
		(void)obstacle(l, -1, refusal_hint_ckpt, "%s", st->name);
	if (is_32bit(l))
		(void)obstacle(l, -1, NULL, "a 32-bit program");
	if (foreign_root(l))
		(void)obstacle(l, -1, "run ckpt-run inside of that container",
			       "a process in another mount namespace");
	if (st->cap_prm && other_namespace(l, "user"))
		(void)obstacle(l, -1, "run ckpt-run inside of that namespace",
			       "a process with privileges in a user namespace of its own");
}

/* --- memory ----------------------------------------------------------------------------------- */

static int look_at_memory(struct looking *l, struct err *err)
{
	struct proc_map *maps;
	unsigned n;
	int rc = proc_maps_read(l->dirfd, true, l->a, &maps, &n, err);

	for (unsigned i = 0; rc == 0 && i < n; i++) {
		const struct proc_map *m = &maps[i];
		const struct refusal *r = refusal_of_mapping(m->path);
		const char *what = r                            ? r->name
				   : m->pkey                    ? "memory with a protection key"
				   : m->advice & ADVICE_HUGETLB ? "hugetlb memory"
				   : m->advice & ADVICE_UFFD_MISSING
					   ? "memory under the program's own userfaultfd"
				   : (m->advice & ADVICE_IO) && m->path[0] != '[' ? "device memory"
										  : NULL;

		const char *hint = r                            ? r->hint
				   : m->advice & ADVICE_HUGETLB ? refusal_hint_hugetlb
								: NULL;

		if (what)
			(void)obstacle(l, -1, hint, "%s mapped at %#llx", what,
				       (unsigned long long)m->start);
	}
	return rc;
}

/* --- descriptors ------------------------------------------------------------------------------ */

/* Is the inode number in one of the tables of sockets that can be restored? */
static bool known_socket(const struct looking *l, const char *link)
{
	static const char *const tables[] = { "net/unix", "net/tcp",  "net/tcp6",
					      "net/udp",  "net/udp6", "net/netlink" };
	char number[32];

	(void)snprintf(number, sizeof number, " %.*s ", (int)strcspn(link + 8, "]"), link + 8);
	for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
		CLEANUP_FREE char *text = NULL;

		if (io_read_file(l->dirfd, tables[i], &text, NULL) >= 0 && strstr(text, number))
			return true;
	}
	/* unix sockets without a name end their line with the number */
	(void)snprintf(number, sizeof number, " %.*s\n", (int)strcspn(link + 8, "]"), link + 8);
	for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
		CLEANUP_FREE char *text = NULL;

		if (io_read_file(l->dirfd, tables[i], &text, NULL) >= 0 && strstr(text, number))
			return true;
	}
	return false;
}

static bool in_tree(const struct looking *l, pid_t pid)
{
	for (unsigned i = 0; i < l->n_pids; i++)
		if (l->pids[i] == pid)
			return true;
	return false;
}

static void look_at_pidfd(struct looking *l, int fd)
{
	struct proc_fdinfo info = { 0 };

	if (proc_fdinfo_read(l->dirfd, fd, l->a, &info, NULL) == 0 && info.pidfd_pid > 0 &&
	    !in_tree(l, info.pidfd_pid))
		(void)obstacle(l, fd, NULL, "a pidfd of process %d, which is not in the job",
			       info.pidfd_pid);
}

static void look_at_named(struct looking *l, int fd, const char *name, const char *link)
{
	struct statfs fs;
	struct stat st;
	char path[64];
	const char *what;

	(void)snprintf(path, sizeof path, "/proc/%d/%s", l->pid, name);
	if (fstatat(l->dirfd, name, &st, 0) < 0)
		return;
	if ((S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) &&
	    !(S_ISCHR(st.st_mode) && refusal_knows_device(major(st.st_rdev), minor(st.st_rdev)))) {
		const struct refusal *r = refusal_of_device(link);

		(void)obstacle(l, fd, r ? r->hint : NULL, "%s '%s'", r ? r->name : "device", link);
		return;
	}
	what = (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && statfs(path, &fs) == 0
		       ? refusal_of_filesystem((long)fs.f_type)
		       : NULL;
	if (what)
		(void)obstacle(l, fd, NULL, "%s", what);
}

static int look_at_files(struct looking *l, struct err *err)
{
	unsigned n;
	int *fds, rc = proc_fds(l->dirfd, l->a, &fds, &n, err);

	for (unsigned i = 0; rc == 0 && i < n; i++) {
		const struct refusal *r;
		char name[32], *link;

		(void)snprintf(name, sizeof name, "fd/%d", fds[i]);
		if (proc_link(l->dirfd, name, l->a, &link, NULL, NULL) < 0)
			continue; /* closed since */
		r = refusal_of_file(link);
		if (r)
			(void)obstacle(l, fds[i], r->hint, "%s", r->name);
		else if (!strncmp(link, "socket:[", 8) && fds[i] > 2 && !known_socket(l, link))
			(void)obstacle(l, fds[i], NULL,
				       "a socket that is neither unix nor TCP, UDP or netlink");
		else if (!strcmp(link, "anon_inode:[pidfd]") || !strncmp(link, "pidfd:", 6))
			look_at_pidfd(l, fds[i]);
		else if (link[0] == '/')
			look_at_named(l, fds[i], name, link);
	}
	return rc;
}

/* --- the tree --------------------------------------------------------------------------------- */

static int look_at(struct looking *l, struct err *err)
{
	struct proc_status st;
	struct proc_stat stat;
	int rc = proc_status_read(l->dirfd, l->a, &st, err);

	if (rc < 0)
		return rc;
	l->able->n_processes++;
	l->able->n_threads += st.threads;
	if (proc_stat_read(l->dirfd, &stat, NULL) == 0 && stat.state == 'Z')
		return 0;
	if (!may_look(l, &st))
		return 0;
	look_at_process(l, &st);
	rc = look_at_memory(l, err);
	if (rc == 0)
		rc = look_at_files(l, err);
	if (rc != -EACCES && rc != -EPERM)
		return rc;
	err_clear(err);
	return obstacle(l, -1, "see ptrace(2) on who may trace whom",
			"a process that we may not trace");
}

static int add_children(struct looking *l, struct err *err)
{
	pid_t *children, *p;
	unsigned n;
	int rc = proc_children(l->dirfd, l->a, &children, &n, err);

	for (unsigned i = 0; rc == 0 && i < n; i++) {
		if (in_tree(l, children[i]))
			continue;
		p = arena_push(l->a, &l->pids, &l->n_pids, sizeof *p);
		if (!p)
			return err_nomem(err);
		*p = children[i];
	}
	return rc;
}

static int open_next(struct looking *l, unsigned i, struct err *err)
{
	l->pid = l->pids[i];
	l->dirfd = -1;
	return proc_open_pid(proc_live_thread(l->pid), &l->dirfd, err);
}

/* First who belongs to it (what is said of one may depend on the others), then each in turn. One
 * that ends meanwhile is no matter, but for the root. */
static int look_at_tree(struct looking *l, bool find, struct err *err)
{
	for (unsigned i = 0; i < l->n_pids; i++) {
		int rc = open_next(l, i, err);

		if (rc == 0 && i == 0 && find)
			proc_namespaces_around(l->dirfd, l->namespaces);
		if (rc == 0)
			rc = find ? add_children(l, err) : look_at(l, err);
		if (l->dirfd >= 0)
			(void)close(l->dirfd);
		if (rc < 0 && (i == 0 || rc == -ENOMEM))
			return rc;
		if (rc < 0)
			err_clear(err);
	}
	return 0;
}

/* With the root, as it were: their children are found like its. */
static int add_orphans(struct looking *l, pid_t root, struct err *err)
{
	struct orphans o;
	int rc = proc_orphans(root, l->a, &o, err);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < o.n_belong; i++) {
		pid_t *p = arena_push(l->a, &l->pids, &l->n_pids, sizeof *p);

		if (!p)
			return err_nomem(err);
		*p = o.belong[i].pid;
	}
	l->able->left = o.left;
	l->able->n_left = o.n_left;
	return 0;
}

int able_look(pid_t root, struct arena *a, struct able *ret, struct err *err)
{
	struct looking l = { .a = a, .able = ret };
	CLEANUP_FD int self = -1;
	pid_t *p = arena_push(a, &l.pids, &l.n_pids, sizeof *p);
	int rc;

	if (!p)
		return err_nomem(err);
	*p = root;
	*ret = (struct able){ 0 };
	rc = proc_open_pid(getpid(), &self, err);
	if (rc == 0)
		rc = proc_status_read(self, a, &l.own, err);
	if (rc == 0)
		rc = add_orphans(&l, root, err);
	if (rc == 0)
		rc = look_at_tree(&l, true, err);
	return rc < 0 ? rc : look_at_tree(&l, false, err);
}
