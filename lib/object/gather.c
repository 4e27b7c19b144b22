/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Gathering descriptors: each is duplicated (pidfd_getfd), and those that share an open file
 * description are found.
 *
 * kcmp(2) with KCMP_FILE orders descriptions, but a call is only needed where everything that can
 * be seen for nothing is the same: device, inode and flags. Each is then looked for among those
 * that are known to differ. So 1000 descriptors of different files need no call at all, 1000 of one
 * description (everybody's standard output) a call each, and 1000 eventfds (one inode) n log n. The
 * duplicates are compared, not the originals: a process may always compare its own.
 */
#include "object/kinds.h"

#include "inject/fetch.h"
#include "proc/probe.h"

#include <fcntl.h>
#include <sched.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef F_LINUX_SPECIFIC_BASE
#define F_LINUX_SPECIFIC_BASE 1024
#endif
#define CKPT_F_DUPFD_QUERY (F_LINUX_SPECIFIC_BASE + 3) /* Linux 6.10 */

bool gather_force_no_kcmp;

struct seen {
	struct open_file of;
	unsigned group; /* index of the first with the same description */
};

struct gathering {
	struct capture *c;
	struct seen *seen;
	unsigned n_seen;
	struct fetcher *fetcher; /* of the process at hand; NULL: there is pidfd_getfd */
};

int same_description(int a, int b)
{
	pid_t me = getpid();
	long rc = syscall(SYS_kcmp, me, me, KCMP_FILE, (unsigned long)a, (unsigned long)b);

	return rc < 0 ? -errno : (int)rc;
}

static int by_look(const struct seen *x, const struct seen *y)
{
	const struct stat *a = &x->of.st, *b = &y->of.st;

	if (a->st_dev != b->st_dev)
		return a->st_dev < b->st_dev ? -1 : 1;
	if (a->st_ino != b->st_ino)
		return a->st_ino < b->st_ino ? -1 : 1;
	if (x->of.flags != y->of.flags)
		return x->of.flags < y->of.flags ? -1 : 1;
	return 0;
}

static int in_order(const void *pa, const void *pb, void *arg)
{
	const struct gathering *g = arg;
	unsigned a = *(const unsigned *)pa, b = *(const unsigned *)pb;
	int rc = by_look(&g->seen[a], &g->seen[b]);

	return rc ? rc : a < b ? -1 : a > b;
}

/* order[start] to order[end - 1] look the same. known: room for as many. */
static int group_alike(struct gathering *g, const unsigned *order, unsigned start, unsigned end,
		       unsigned *known)
{
	unsigned n = 0;

	for (unsigned i = start; i < end; i++) {
		struct seen *s = &g->seen[order[i]];
		unsigned lo = 0, hi = n;

		s->group = order[i];
		while (lo < hi) {
			unsigned mid = lo + (hi - lo) / 2;
			int rc = same_description(s->of.dup, g->seen[known[mid]].of.dup);

			if (rc < 0)
				return rc;
			if (rc == 0) {
				s->group = known[mid];
				break;
			}
			if (rc == 1)
				hi = mid;
			else
				lo = mid + 1;
		}
		if (s->group != order[i])
			continue;
		memmove(&known[lo + 1], &known[lo], (n - lo) * sizeof *known);
		known[lo] = order[i];
		n++;
	}
	return 0;
}

/* Where kcmp is forbidden (a container's seccomp filter), newer kernels tell equal from unequal,
 * without an order. */
static int dupfd_query(int a, int b)
{
	int rc = fcntl(a, CKPT_F_DUPFD_QUERY, b);

	return rc < 0 ? -errno : rc;
}

static int group_unordered(struct gathering *g, const unsigned *order, struct err *err)
{
	unsigned start = 0;

	for (unsigned i = 0; i < g->n_seen; i++) {
		struct seen *s = &g->seen[order[i]];

		if (i && by_look(&g->seen[order[i - 1]], s))
			start = i;
		s->group = order[i];
		for (unsigned j = start; j < i; j++) {
			int rc = dupfd_query(g->seen[order[j]].of.dup, s->of.dup);

			if (rc < 0) {
				err_set(err, -EOPNOTSUPP,
					"pid %d: cannot tell which descriptors share an offset: "
					"neither kcmp nor F_DUPFD_QUERY is allowed here",
					s->of.subject->pid);
				err_hint(err, "a container needs kcmp in its seccomp profile, or "
					      "Linux 6.10");
				return -EOPNOTSUPP;
			}
			if (rc == 1) {
				s->group = g->seen[order[j]].group;
				break;
			}
		}
	}
	return 0;
}

static int group_all(struct gathering *g, struct err *err)
{
	CLEANUP_FREE unsigned *order = malloc((g->n_seen + 1) * sizeof *order);
	CLEANUP_FREE unsigned *known = malloc((g->n_seen + 1) * sizeof *known);
	int probe;

	if (!order || !known)
		return err_nomem(err);
	for (unsigned i = 0; i < g->n_seen; i++)
		order[i] = i;
	probe = g->n_seen ? same_description(g->seen[0].of.dup, g->seen[0].of.dup) : 0;
	qsort_r(order, g->n_seen, sizeof *order, in_order, g);
	if (gather_force_no_kcmp || probe == -EPERM || probe == -ENOSYS || probe == -EACCES)
		return group_unordered(g, order, err);
	for (unsigned start = 0, end; start < g->n_seen; start = end) {
		int rc;

		for (end = start + 1; end < g->n_seen; end++)
			if (by_look(&g->seen[order[start]], &g->seen[order[end]]))
				break;
		rc = group_alike(g, order, start, end, known);
		if (rc < 0)
			return err_set(err, rc, "cannot compare descriptors: %m");
	}
	return 0;
}

static int lowest_free(const struct fd_looks *looks)
{
	unsigned at = 0;

	while (at < looks->n && looks->v[at].fd == (int)at)
		at++;
	return (int)at;
}

static bool forbids_getfd(int error)
{
	return error == EPERM || error == ENOSYS;
}

static int duplicate(struct subject *s, int fd, int *ret, struct err *err)
{
	int dup = -1;
	struct rlimit lim;

	errno = EPERM;
	if (!probe_without("pidfd_getfd"))
		dup = (int)syscall(SYS_pidfd_getfd, s->pidfd, fd, 0);

	/* The job may hold as many as its own limit allows; ours can be raised to the same. */
	if (dup < 0 && errno == EMFILE && getrlimit(RLIMIT_NOFILE, &lim) == 0 &&
	    lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
		dup = (int)syscall(SYS_pidfd_getfd, s->pidfd, fd, 0);
	}
	if (dup < 0) {
		int rc = err_set(err, -errno, "pid %d fd %d: cannot duplicate the descriptor: %m",
				 s->pid, fd);

		if (rc == -EMFILE)
			err_hint(err, "raise the limit of open files: ulimit -n");
		return rc;
	}
	*ret = dup;
	return 0;
}

/* What a filter forbids, we are told as early as the first; then the process sends them. */
static int obtain(struct gathering *g, struct subject *s, const struct fd_looks *looks, unsigned i,
		  int *ret, struct err *err)
{
	int fd = looks->v[i].fd, rc = 0;

	if (!g->fetcher) {
		rc = duplicate(s, fd, ret, err);
		if (rc == 0 || !forbids_getfd(-rc))
			return rc;
		err_clear(err);
		/* meanwhile it has one more, and so have those that share its table */
		g->c->looked_at = NULL;
		rc = fetch_begin(s->batch, s->pid, lowest_free(looks), &g->fetcher, err);
	}
	if (rc == 0)
		rc = fetch_one(g->fetcher, fd, ret, err);
	return rc < 0 ? err_wrap(err, rc, "pid %d fd %d: cannot duplicate the descriptor", s->pid,
				 fd)
		      : 0;
}

/* --fd N=null: what is seen in its place, here and after a restart. */
static int substitute(struct open_file *of, bool cloexec, struct err *err)
{
	of->dup = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (of->dup < 0 || fstat(of->dup, &of->st) < 0)
		return fd_error(of, err, -errno, "cannot open /dev/null: %m");
	of->substituted = true;
	of->info.flags = O_RDWR | (cloexec ? O_CLOEXEC : 0);
	of->flags = O_RDWR;
	of->stream = of->carrier = -1;
	return 0;
}

int fds_look(int proc_dirfd, struct arena *a, struct fd_looks *ret, struct err *err)
{
	unsigned n;
	int *fds, rc = proc_fds(proc_dirfd, a, &fds, &n, err);

	ret->n = 0;
	if (rc == 0)
		ret->v = arena_array(a, n, sizeof *ret->v);
	if (rc == 0 && !ret->v)
		return err_nomem(err);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		struct fd_look *l = &ret->v[ret->n++];
		char name[32];

		l->fd = fds[i];
		(void)snprintf(name, sizeof name, "fd/%d", l->fd);
		rc = proc_fdinfo_read(proc_dirfd, l->fd, a, &l->info, err);
		if (rc == 0)
			rc = proc_link(proc_dirfd, name, a, &l->link, &l->deleted, err);
		if (rc < 0)
			return err_wrap(err, rc, "fd %d", l->fd);
		(void)sched_yield(); /* to a thread that is to run calls for us: dump/scout.c */
	}
	return rc;
}

static int look_at(struct open_file *of, const struct fd_look *l, struct err *err)
{
	of->info = l->info;
	of->link = l->link;
	of->deleted = l->deleted;
	if (fstat(of->dup, &of->st) < 0)
		return fd_error(of, err, -errno, "cannot look at the file: %m");
	of->flags = (int)(of->info.flags & ~(uint32_t)O_CLOEXEC);
	of->stream = -1;
	of->carrier = -1;
	return 0;
}

/* So that the other end of a pipe is not taken for one that leads out of the job. */
static int note_left_out(struct capture *c, const struct subject *s, int fd, struct err *err)
{
	struct left_out *out;
	struct stat st, link;
	char name[32];

	(void)snprintf(name, sizeof name, "fd/%d", fd);
	if (fstatat(s->proc_dirfd, name, &st, 0) < 0 ||
	    fstatat(s->proc_dirfd, name, &link, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	out = arena_push(c->arena, &c->left_out, &c->n_left_out, sizeof *out);
	if (!out)
		return err_nomem(err);
	/* proc_pid_fd(5): the link's mode says what it was opened for */
	*out = (struct left_out){ .dev = st.st_dev,
				  .ino = st.st_ino,
				  .reads = link.st_mode & S_IRUSR,
				  .writes = link.st_mode & S_IWUSR };
	return 0;
}

static int gather_all_of(struct gathering *g, struct subject *s, const struct fd_looks *looks,
			 struct err *err)
{
	struct capture *c = g->c;
	int rc;

	for (unsigned i = 0; i < looks->n; i++) {
		const struct fd_look *l = &looks->v[i];
		enum fd_action rule = fd_rule(&c->tree->settings, l->fd);
		struct seen *seen;

		rc = rule == FD_CLOSE || rule == FD_NULL ? note_left_out(c, s, l->fd, err) : 0;
		if (rc < 0)
			return rc;
		if (rule == FD_CLOSE)
			continue;
		seen = arena_push(c->arena, &g->seen, &g->n_seen, sizeof *seen);
		if (!seen)
			return err_nomem(err);
		seen->of.subject = s;
		seen->of.fd = l->fd;
		seen->of.dup = -1;
		if (rule == FD_NULL) {
			rc = substitute(&seen->of, l->info.flags & O_CLOEXEC, err);
			if (rc < 0)
				return rc;
			continue;
		}
		rc = obtain(g, s, looks, i, &seen->of.dup, err);
		if (rc < 0)
			return rc;
		rc = look_at(&seen->of, l, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int gather_subject(struct gathering *g, unsigned index, struct err *err)
{
	struct capture *c = g->c;
	struct subject *s = &c->subjects[index];
	const struct fd_looks *looks = c->looked_at ? c->looked_at(c->looked_at_arg, index) : NULL;
	struct fd_looks own;
	int rc = looks ? 0 : fds_look(s->proc_dirfd, c->arena, &own, err), end;

	if (rc < 0)
		return err_wrap(err, rc, "pid %d", s->pid);
	rc = gather_all_of(g, s, looks ? looks : &own, err);
	end = fetch_end(g->fetcher, rc < 0 ? NULL : err);
	g->fetcher = NULL;
	return rc < 0 ? rc : end;
}

/* What only one descriptor of each description needs to be asked. */
int file_look_closer(struct capture *c, struct open_file *of, struct err *err)
{
	struct statfs fs;

	if (of->substituted) {
		of->link = arena_strdup(c->arena, "/dev/null");
		return of->link ? 0 : err_nomem(err);
	}
	if ((S_ISREG(of->st.st_mode) || S_ISDIR(of->st.st_mode)) && fstatfs(of->dup, &fs) == 0)
		of->fs_magic = (long)fs.f_type;
	return 0;
}

/*
 * Is the descriptor closed on exec? fdinfo shows its own flag and that of the description as one;
 * the latter means nothing but is there when TIOCGPTPEER was given O_CLOEXEC (drivers/tty/pty.c).
 */
static int close_on_exec(const struct seen *s, uint32_t *ret, struct err *err)
{
	const struct subject *subject = s->of.subject;
	unsigned call;
	int rc;

	*ret = !!(s->of.info.flags & O_CLOEXEC);
	if (!*ret || !(fcntl(s->of.dup, F_GETFL) & O_CLOEXEC))
		return 0;
	batch_start(subject->batch);
	call = batch_call(subject->batch, "look at a descriptor's flags", SYS_fcntl, s->of.fd,
			  F_GETFD);
	rc = batch_run(subject->batch, subject->pid, err);
	if (rc == 0)
		*ret = batch_ret(subject->batch, call) & FD_CLOEXEC;
	return rc;
}

/* Files get their ids in the order in which they are first met. */
static int make_tables(struct gathering *g, struct err *err)
{
	struct capture *c = g->c;
	uint32_t *ids = arena_array(c->arena, g->n_seen, sizeof *ids);
	int rc;

	if (!ids)
		return err_nomem(err);
	for (unsigned i = 0; i < g->n_seen; i++) {
		struct seen *s = &g->seen[i];
		struct process *p = s->of.subject->process;
		struct fd *fd = arena_push(c->arena, &p->fds, &p->n_fds, sizeof *fd);
		struct open_file *of;
		struct file *f;
		uint32_t cloexec;

		if (!fd)
			return err_nomem(err);
		rc = close_on_exec(s, &cloexec, err);
		if (rc < 0)
			return rc;
		if (!ids[s->group]) {
			f = arena_push(c->arena, &c->tree->files, &c->tree->n_files, sizeof *f);
			of = f ? arena_push(c->arena, &c->open_files, &c->n_open_files, sizeof *of)
			       : NULL;
			if (!of)
				return err_nomem(err);
			f->id = ids[s->group] = c->n_open_files;
			*of = s->of;
			s->of.dup = -1; /* handed on: files_capture_done closes it */
			rc = file_look_closer(c, of, err);
			if (rc < 0)
				return rc;
		}
		*fd = (struct fd){ .fd = s->of.fd, .cloexec = cloexec, .file = ids[s->group] };
	}
	return 0;
}

/* The descriptors of p that share one description show the process's POSIX locks each: one is
 * asked. */
static int gather_posix_locks(struct gathering *g, struct err *err)
{
	struct capture *c = g->c;
	int rc;

	for (unsigned i = 0; i < g->n_seen; i++) {
		const struct seen *s = &g->seen[i];
		struct process *p = s->of.subject->process;
		const struct file *f;
		unsigned k = 0;

		if (!s->of.info.n_locks)
			continue;
		f = files_by_fd(c, s->of.subject, s->of.fd);
		while (k < p->n_fds && p->fds[k].file != f->id)
			k++;
		if (k == p->n_fds || p->fds[k].fd != s->of.fd)
			continue;
		rc = locks_capture_posix(c, p, f->id, &s->of.info, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void gather_forsaken(struct capture *c)
{
	for (unsigned i = 0; c->gathering && i < c->gathering->n_seen; i++)
		forsake(&c->gathering->seen[i].of.dup);
}

int files_gather(struct capture *c, struct err *err)
{
	struct gathering g = { .c = c };
	int rc = 0;

	c->gathering = &g;
	for (unsigned i = 0; i < c->n_subjects && rc == 0; i++)
		rc = gather_subject(&g, i, err);
	if (rc == 0)
		rc = group_all(&g, err);
	if (rc == 0)
		rc = make_tables(&g, err);
	if (rc == 0)
		rc = gather_posix_locks(&g, err);
	for (unsigned i = 0; i < g.n_seen; i++)
		if (g.seen[i].of.dup >= 0)
			(void)close(g.seen[i].of.dup);
	c->gathering = NULL;
	return rc;
}
