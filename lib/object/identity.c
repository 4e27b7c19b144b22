/* SPDX-License-Identifier: BSD-2-Clause */
/* Where a process stands: executable, working directory, root, umask, and prctl(2) flags of its
 * own. (Its group and session are a matter of its birth: state/births.h.) */
#include "object/attrs.h"

#include "proc/refusals.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef ARCH_GET_XCOMP_SUPP
#define ARCH_GET_XCOMP_SUPP 0x1021
#define ARCH_GET_XCOMP_PERM 0x1022
#define ARCH_REQ_XCOMP_PERM 0x1023
#endif
/* XTILEDATA, and what may come to need leave after it (arch_prctl(2)). */
#define XFEATURES_ON_DEMAND (1ULL << 18)
#define NS_PER_S            1000000000LL
#define DELETED             " (deleted)"

/* --- capture -------------------------------------------------------------------------------- */

/* A deleted file or directory keeps the kernel's mark behind its name. */
static int look_link(const struct subject *s, struct arena *a, const char *name, char **ret,
		     bool *ret_deleted, struct err *err)
{
	char *path;
	int rc;

	rc = proc_link(s->proc_dirfd, name, a, &path, ret_deleted, err);
	if (rc < 0)
		return rc;
	*ret = *ret_deleted ? arena_printf(a, "%s" DELETED, path) : path;
	return *ret ? 0 : err_nomem(err);
}

static int look_paths(struct capture *c, struct subject *s, struct err *err)
{
	struct process *p = s->process;
	bool deleted;
	struct stat st;
	int rc;

	rc = look_link(s, c->arena, "exe", &p->exe, &deleted, err);
	if (rc < 0)
		return rc;
	if (!deleted && fstatat(s->proc_dirfd, "exe", &st, 0) == 0) {
		p->exe_size = (uint64_t)st.st_size;
		p->exe_mtime_ns = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec;
	}
	rc = look_link(s, c->arena, "cwd", &p->cwd, &deleted, err);
	if (rc == 0)
		rc = look_link(s, c->arena, "root", &p->root, &deleted, err);
	if (rc == 0 && deleted) {
		(void)err_set(err, -EOPNOTSUPP,
			      "pid %d: a root directory that was deleted is not supported", s->pid);
		rc = err_hint(err, "%s", refusal_hint_root);
	}
	return rc;
}

/* Not there without CONFIG_ELF_CORE: then there is nothing to lose either. */
static void coredump_look(const struct subject *s, struct process *p)
{
	CLEANUP_FREE char *text = NULL;

	if (io_read_file(s->proc_dirfd, "coredump_filter", &text, NULL) == 0 && *text)
		p->coredump_filter = COREDUMP_FILTER_KNOWN | (uint32_t)strtoul(text, NULL, 16);
}

/* "0::/path" is that of version 2; a line for each hierarchy of version 1 may stand before it. */
static void cgroup_look(struct capture *c, const struct subject *s, struct process *p)
{
	CLEANUP_FREE char *text = NULL;
	const char *at;

	if (io_read_file(s->proc_dirfd, "cgroup", &text, NULL) < 0)
		return;
	at = !strncmp(text, "0::", 3) ? text : strstr(text, "\n0::");
	if (!at)
		return;
	at += *at == '\n' ? 4 : 3;
	p->cgroup = arena_printf(c->arena, "%.*s", (int)strcspn(at, "\n"), at);
}

int identity_look(struct capture *c, struct subject *s, const struct proc_status *st,
		  struct err *err)
{
	struct process *p = s->process;
	int64_t adj;
	int rc;

	p->pgid = st->ns_pgid;
	p->sid = st->ns_sid;
	p->umask = st->umask;
	rc = proc_int_read(s->proc_dirfd, "oom_score_adj", &adj, err);
	if (rc < 0)
		return rc;
	p->oom_score_adj = (int32_t)adj;
	coredump_look(s, p);
	cgroup_look(c, s, p);
	return look_paths(c, s, err);
}

void identity_ask(struct batch *b, struct identity_query *q)
{
	q->dumpable_call =
		batch_call(b, "read the dumpable flag", SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0);
	q->thp_call = batch_call(b, NULL, SYS_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
	q->xfeatures = batch_out(b, sizeof(uint64_t));
	q->xfeatures_call = batch_call(b, NULL, SYS_arch_prctl, ARCH_GET_XCOMP_PERM, q->xfeatures);
	q->subreaper = batch_out(b, sizeof(int));
	batch_call(b, "read the subreaper flag", SYS_prctl, PR_GET_CHILD_SUBREAPER, q->subreaper, 0,
		   0, 0);
}

void identity_take(const struct subject *s, const struct identity_query *q)
{
	int64_t thp = batch_ret(s->batch, q->thp_call);
	int subreaper;

	s->process->dumpable = (uint32_t)batch_ret(s->batch, q->dumpable_call);
	memcpy(&subreaper, batch_result(s->batch, q->subreaper), sizeof subreaper);
	s->process->child_subreaper = (uint32_t)subreaper;
	s->process->thp_disable = thp > 0 ? (uint32_t)thp : 0;
	if (batch_ret(s->batch, q->xfeatures_call) == 0) {
		memcpy(&s->process->xfeatures_asked, batch_result(s->batch, q->xfeatures),
		       sizeof s->process->xfeatures_asked);
		s->process->xfeatures_asked &= XFEATURES_ON_DEMAND;
	}
}

/* --- check ---------------------------------------------------------------------------------- */

/* A recorded path that carries the mark, where nothing has that very name: it was deleted. */
static bool was_deleted(const char *path)
{
	size_t len = strlen(path), tail = strlen(DELETED);
	struct stat st;

	return len > tail && !strcmp(path + len - tail, DELETED) && lstat(path, &st) < 0;
}

static int check_dir(const struct rebuild *rb, const struct process *p, const char *recorded,
		     const char *what, struct err *err)
{
	const char *path = rebuild_path(rb, recorded);
	struct stat st;

	if (!path)
		return err_nomem(err);
	if (was_deleted(path))
		return 0;
	if (stat(path, &st) < 0)
		(void)err_set(err, -errno, "pid %d: cannot enter its %s '%s': %m", p->pid, what,
			      path);
	else if (!S_ISDIR(st.st_mode))
		(void)err_set(err, -ENOTDIR, "pid %d: cannot enter its %s '%s': %m", p->pid, what,
			      path);
	else if (access(path, X_OK) < 0)
		(void)err_set(err, -errno, "pid %d: cannot enter its %s '%s': %m", p->pid, what,
			      path);
	else
		return 0;
	(void)err_hint(err, "make the directory, or name another with --map OLD=NEW");
	return err ? err->code : -ENOENT;
}

int identity_check(const struct rebuild *rb, const struct process *p, struct err *err)
{
	uint64_t here = 0;
	int rc = 0;

	if (p->xfeatures_asked &&
	    (syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &here) < 0 || p->xfeatures_asked & ~here))
		return err_set(err, -EOPNOTSUPP,
			       "pid %d has asked for leave to use AMX, which this machine has not",
			       p->pid);
	if (p->cwd)
		rc = check_dir(rb, p, p->cwd, "working directory", err);
	if (rc == 0 && p->root && strcmp(p->root, "/"))
		rc = check_dir(rb, p, p->root, "root directory", err);
	return rc;
}

/* --- restore -------------------------------------------------------------------------------- */

static uint64_t path_in(struct batch *b, const char *path)
{
	return batch_in(b, path, strlen(path) + 1);
}

static const char *gone_dir(const struct rebuild *rb, const struct process *p, const char *cwd)
{
	const char *above = rebuild_above_gone(rb, cwd);

	return above ? arena_printf(rb->arena, "%s.ckpt-gone-%d-%d", above, p->pid, getpid())
		     : NULL;
}

/* Recorded paths are as seen from outside a chroot, so the root comes second; it leaves the cwd
 * alone. */
static int dirs_calls(const struct rebuild *rb, const struct process *p, struct batch *b,
		      struct err *err)
{
	const char *cwd = p->cwd ? rebuild_path(rb, p->cwd) : NULL;
	const char *root = p->root ? rebuild_path(rb, p->root) : NULL;

	if ((p->cwd && !cwd) || (p->root && !root))
		return err_nomem(err);
	if (cwd && was_deleted(cwd)) {
		const char *gone = gone_dir(rb, p, cwd);

		if (!gone)
			return err_nomem(err);
		batch_call(b, "make a directory in place of the deleted working directory",
			   SYS_mkdir, path_in(b, gone), 0700);
		batch_call(b, "enter a directory in place of the deleted working directory",
			   SYS_chdir, path_in(b, gone));
		batch_call(b, "delete the directory in its place", SYS_rmdir, path_in(b, gone));
	} else if (cwd) {
		batch_call(b, "enter the working directory", SYS_chdir, path_in(b, cwd));
	}
	if (root && strcmp(root, "/"))
		batch_call(b, "change the root directory", SYS_chroot, path_in(b, root));
	return 0;
}

/*
 * Lowering the score takes a privilege, and not having it costs nothing but a likelier victim in an
 * emergency: only a failure to raise it, which everybody may, is an error.
 */
static int oom_put(const struct process *p, pid_t tid, struct err *err)
{
	char path[48], text[16];
	CLEANUP_FREE char *now = NULL;
	long current = 0;
	int rc;

	(void)snprintf(path, sizeof path, "/proc/%d/oom_score_adj", tid);
	(void)snprintf(text, sizeof text, "%d", p->oom_score_adj);
	if (io_read_file(-1, path, &now, NULL) == 0)
		current = strtol(now, NULL, 10);
	if (current == p->oom_score_adj)
		return 0;
	rc = io_write_file(-1, path, text);
	if (rc < 0 && p->oom_score_adj > current)
		return err_set(err, rc, "pid %d: cannot set its oom_score_adj to %d: %m", p->pid,
			       p->oom_score_adj);
	return 0;
}

/* What a core dump holds is nothing that a restart should fail for. */
static void coredump_put(const struct process *p, pid_t tid)
{
	char path[48], text[16];

	if (!(p->coredump_filter & COREDUMP_FILTER_KNOWN))
		return;
	(void)snprintf(path, sizeof path, "/proc/%d/coredump_filter", tid);
	(void)snprintf(text, sizeof text, "%#x",
		       p->coredump_filter & ~(uint32_t)COREDUMP_FILTER_KNOWN);
	(void)io_write_file(-1, path, text);
}

int identity_put(const struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		 struct err *err)
{
	int rc = oom_put(p, tid, err);

	if (rc < 0)
		return rc;
	coredump_put(p, tid);
	batch_start(b);
	batch_call(b, "set the umask", SYS_umask, p->umask);
	batch_call(b, "set the subreaper flag", SYS_prctl, PR_SET_CHILD_SUBREAPER,
		   p->child_subreaper, 0, 0, 0);
	/* What PR_GET_THP_DISABLE gives is the flag in bit 0 and its modifiers above. */
	batch_call(b, p->thp_disable ? "set the THP flag" : NULL, SYS_prctl, PR_SET_THP_DISABLE,
		   p->thp_disable & 1, p->thp_disable & ~1u, 0, 0);
	/* before there are alternate stacks, which it asks to have room for more then */
	for (unsigned i = 0; i < 64; i++)
		if (p->xfeatures_asked & 1ULL << i)
			batch_call(b, "get leave to use AMX", SYS_arch_prctl, ARCH_REQ_XCOMP_PERM,
				   i);
	rc = dirs_calls(rb, p, b, err);
	return rc < 0 ? rc : batch_run(b, tid, err);
}
