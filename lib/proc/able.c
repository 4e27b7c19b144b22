/* SPDX-License-Identifier: BSD-2-Clause */
/* What stands in the way of checkpointing a running tree, as far as /proc shows it. */
#include "proc/able_int.h"

#include "proc/refusals.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int able_obstacle(struct looking *l, int fd, const char *hint, const char *fmt, ...)
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
			(void)able_obstacle(l, -1, "run ckpt-run as that user, or as root",
					    "a process of another user (uid %u)", st->uid[i]);
			return false;
		}
	/* the kernel gives the files of a process that is not dumpable to root */
	if (!mighty && st->uid[1] && fstatat(l->dirfd, "maps", &dir, 0) == 0 &&
	    dir.st_uid != st->uid[1]) {
		(void)able_obstacle(l, -1,
				    "it must not call prctl(PR_SET_DUMPABLE, 0), nor run with file "
				    "capabilities",
				    "a process that is not dumpable");
		return false;
	}
	return true;
}

/* A filter that is not ours: see has_foreign_filter of object/admit.c. */
static void look_at_filter(struct looking *l, const char *whose, const struct proc_status *st)
{
	if (st->seccomp && (st->seccomp != 2 || st->seccomp_filters > l->own.seccomp_filters + 1))
		(void)able_obstacle(l, -1, refusal_hint_filter, "%sa seccomp filter", whose);
	else if (st->seccomp && st->seccomp_filters > l->own.seccomp_filters)
		(void)able_obstacle(l, -1,
				    "unless it is that of ckpt-run --deny-io-uring, which is known",
				    "%sa seccomp filter", whose);
}

static void look_at_threads(struct looking *l, const struct proc_status *st)
{
	unsigned n;
	pid_t *tids;

	if (proc_threads(l->dirfd, l->a, &tids, &n, NULL) < 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		struct proc_status own;

		if (tids[i] == st->pid ||
		    proc_thread_status_read(l->dirfd, tids[i], l->a, &own, NULL) < 0 ||
		    own.state == 'Z' || own.state == 'X')
			continue;
		if (own.seccomp != st->seccomp || own.seccomp_filters != st->seccomp_filters)
			look_at_filter(l, "a thread with ", &own);
		if (!proc_same_creds(st, &own))
			(void)able_obstacle(l, -1, refusal_hint_thread_creds,
					    "a thread (%d) with credentials of its own", tids[i]);
	}
}

static void look_at_timers(struct looking *l, const struct proc_status *st)
{
	struct posix_timer *timers;
	unsigned n;

	if (proc_timers_read(l->dirfd, l->a, &timers, &n, NULL) < 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		const char *why = proc_timer_refusal(l->pid, st->ns_tgid, &timers[i], l->a);

		if (why)
			(void)able_obstacle(l, -1, refusal_hint_timer, "a POSIX timer (id %d) %s",
					    timers[i].id, why);
	}
}

static void look_at_process(struct looking *l, const struct proc_status *st)
{
	const char *own = proc_namespace_own(l->dirfd, l->namespaces);
	CLEANUP_FREE char *exe = NULL;
	bool gone = false;
	char *root;

	if (own)
		(void)able_obstacle(l, -1, "run ckpt-run inside of that namespace", "%s of its own",
				    own);
	if (st->tracer)
		(void)able_obstacle(l, -1, "end the debugger, or strace",
				    "it is being traced by process %d", st->tracer);
	look_at_filter(l, "", st);
	look_at_threads(l, st);
	look_at_timers(l, st);
	if (io_readlink(l->dirfd, "exe", &exe) >= 0 && refusal_is_ckpt(st->name, exe))
		(void)able_obstacle(l, -1, refusal_hint_ckpt, "%s", st->name);
	if (is_32bit(l))
		(void)able_obstacle(l, -1, refusal_hint_32bit, "a 32-bit program");
	if (st->shadow_stack)
		(void)able_obstacle(l, -1, refusal_hint_shadow_stack, "a shadow stack");
	if (proc_link(l->dirfd, "root", l->a, &root, &gone, NULL) == 0 && gone)
		(void)able_obstacle(l, -1, refusal_hint_root, "a root directory that was deleted");
	else if (foreign_root(l))
		(void)able_obstacle(l, -1, "run ckpt-run inside of that container",
				    "a process in another mount namespace");
	if (st->cap_prm && other_namespace(l, "user"))
		(void)able_obstacle(l, -1, "run ckpt-run inside of that namespace",
				    "a process with privileges in a user namespace of its own");
}

/* --- memory ----------------------------------------------------------------------------------- */

/* A mapped file must be found again: see stat_file of dump/memory.c. */
static void look_at_mapped_file(struct looking *l, const struct proc_map *m)
{
	struct stat st;

	if (m->path[0] != '/' || !m->ino || m->deleted || refusal_of_mapping(m->path) ||
	    !strncmp(m->path, "/memfd:", 7) || !strncmp(m->path, "/SYSV", 5) ||
	    !strcmp(m->path, "/dev/zero"))
		return;
	if (stat(m->path, &st) < 0)
		(void)able_obstacle(l, -1, refusal_hint_mapped,
				    "a mapped file that cannot be found ('%s')", m->path);
	else if (!S_ISREG(st.st_mode))
		(void)able_obstacle(l, -1, refusal_hint_device,
				    "a mapping of '%s', which is not a regular file,", m->path);
}

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

		const char *hint = r                                 ? r->hint
				   : m->pkey                         ? refusal_hint_pkey
				   : m->advice & ADVICE_HUGETLB      ? refusal_hint_hugetlb
				   : m->advice & ADVICE_UFFD_MISSING ? refusal_hint_uffd
								     : refusal_hint_device;

		if (what)
			(void)able_obstacle(l, -1, hint, "%s mapped at %#llx", what,
					    (unsigned long long)m->start);
		else if (i == 0 || strcmp(m->path, maps[i - 1].path) != 0)
			look_at_mapped_file(l, m);
	}
	return rc;
}

/* --- the tree --------------------------------------------------------------------------------- */

bool able_in_tree(const struct looking *l, pid_t pid)
{
	for (unsigned i = 0; i < l->n_pids; i++)
		if (l->pids[i] == pid)
			return true;
	return false;
}

static bool any_fd_of(const struct looking *l, pid_t pid, int dirfd, able_fd_fn is, void *arg)
{
	unsigned n;
	int *fds;
	bool found = proc_fds(dirfd, l->a, &fds, &n, NULL) < 0;

	if (found) /* not to be looked at: it is said of that process */
		return false;
	for (unsigned i = 0; i < n && !found; i++) {
		char name[32];

		(void)snprintf(name, sizeof name, "fd/%d", fds[i]);
		found = is(arg, &(struct able_fd){ pid, dirfd, fds[i], name });
	}
	return found;
}

bool able_any_fd(const struct looking *l, able_fd_fn is, void *arg)
{
	bool found = false;

	for (unsigned i = 0; i < l->n_pids && !found; i++) {
		CLEANUP_FD int dirfd = -1;

		if (proc_open_pid(proc_live_thread(l->pids[i]), &dirfd, NULL) == 0)
			found = any_fd_of(l, l->pids[i], dirfd, is, arg);
	}
	return found;
}

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
		rc = able_look_at_files(l, err);
	if (rc != -EACCES && rc != -EPERM)
		return rc;
	err_clear(err);
	return able_obstacle(l, -1, "see ptrace(2) on who may trace whom",
			     "a process that we may not trace");
}

static int add_children(struct looking *l, struct err *err)
{
	pid_t *children, *p;
	unsigned n;
	int rc = proc_children(l->dirfd, l->a, &children, &n, err);

	for (unsigned i = 0; rc == 0 && i < n; i++) {
		if (able_in_tree(l, children[i]))
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
