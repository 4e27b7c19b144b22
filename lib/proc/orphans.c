/* SPDX-License-Identifier: BSD-2-Clause */
/* Who belongs to a running tree: all of /proc is looked at once. */
#include "proc/orphans.h"

#include "proc/proc.h"
#include "proc/text.h"
#include "util/cleanup.h"
#include "util/hash.h"
#include "util/idmap.h"
#include "util/io.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct seen {
	pid_t pid, ppid, session, group;
	uid_t uid;
	uint64_t layout;   /* of its memory: alike in those that share it, or have been forked */
	bool above;        /* the root descends from it */
	bool inside, ours; /* of the tree; ckpt-run itself and who comes from it or before it */
};

struct looker {
	struct arena *a;
	struct seen *v;
	unsigned n;
	struct idmap by_pid;
};

static struct seen *seen_at(const struct looker *l, pid_t pid)
{
	uint32_t at;

	return pid > 0 && idmap_get(&l->by_pid, pid, &at) ? &l->v[at] : NULL;
}

/* 0: unknown, as to those who may not look at it. */
static uint64_t layout_of(const struct proc_stat *st)
{
	const uint64_t v[] = { st->start_code, st->start_stack, st->arg_start };

	return st->start_stack ? hash64(v, sizeof v) : 0;
}

static int look_at_all(struct looker *l, struct err *err)
{
	CLEANUP_FD int all = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned n;
	int *pids, rc;

	if (all < 0)
		return err_set(err, -errno, "cannot open '/proc': %m");
	rc = text_numbers(all, ".", l->a, &pids, &n, err);
	if (rc < 0)
		return rc;
	l->v = arena_array(l->a, n ? n : 1, sizeof *l->v);
	if (!l->v)
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++) {
		struct proc_stat st;
		struct stat owner;
		char name[32];

		(void)snprintf(name, sizeof name, "%d/stat", pids[i]);
		if (proc_stat_of(all, pids[i], &st, NULL) < 0 ||
		    fstatat(all, name, &owner, 0) < 0 || st.state == 'Z')
			continue; /* ended meanwhile */
		if (idmap_put(&l->by_pid, pids[i], l->n) < 0)
			return err_nomem(err);
		l->v[l->n++] = (struct seen){ .pid = pids[i],
					      .ppid = st.ppid,
					      .session = st.session,
					      .group = st.pgrp,
					      .uid = owner.st_uid,
					      .layout = layout_of(&st) };
	}
	return 0;
}

static void find_ours(struct looker *l)
{
	struct seen *self = seen_at(l, getpid());
	bool more = self != NULL;

	if (self)
		self->ours = true;
	for (unsigned depth = 0; self && depth < l->n; depth++) {
		self = seen_at(l, self->ppid);
		if (self)
			self->ours = true;
	}
	/* children of ours alone: an ancestor's others are not */
	while (more) {
		more = false;
		for (unsigned i = 0; i < l->n; i++) {
			const struct seen *p = seen_at(l, l->v[i].ppid);

			if (l->v[i].ours || !p || !p->ours || (p->pid != getpid() && !p->inside))
				continue;
			l->v[i].ours = l->v[i].inside = more =
				true; /* `inside` marks the descent */
		}
	}
	for (unsigned i = 0; i < l->n; i++)
		l->v[i].inside = false;
}

static bool led_from_inside(const struct looker *l, pid_t id)
{
	const struct seen *leader = seen_at(l, id);

	return leader && leader->inside;
}

static int add(struct looker *l, struct orphan **list, unsigned *n, pid_t pid, struct err *err)
{
	struct orphan *o = arena_push(l->a, list, n, sizeof *o);
	CLEANUP_FREE char *text = NULL;
	char path[40];

	if (!o)
		return err_nomem(err);
	(void)snprintf(path, sizeof path, "/proc/%d/comm", pid);
	if (io_read_file(-1, path, &text, NULL) < 0)
		text = NULL;
	*o = (struct orphan){ .pid = pid,
			      .comm = text ? arena_printf(l->a, "%.*s", (int)strcspn(text, "\n"),
							  text)
					   : arena_strdup(l->a, "?") };
	/* it may be shown on a terminal */
	for (char *s = o->comm; s && *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
	return o->comm ? 0 : err_nomem(err);
}

/* Somebody of the tree whose memory it has (CLONE_VM), or NULL. */
static const struct seen *shares_memory(const struct looker *l, const struct seen *s)
{
	for (unsigned i = 0; s->layout && i < l->n; i++)
		if (l->v[i].inside && l->v[i].layout == s->layout &&
		    syscall(SYS_kcmp, s->pid, l->v[i].pid, KCMP_VM, 0, 0) == 0)
			return &l->v[i];
	return NULL;
}

/* Who shares memory with the tree must be captured with it. */
static int refuse_above(const struct seen *s, const struct seen *inside, struct err *err)
{
	err_set(err, -EOPNOTSUPP, "pid %d: it shares its memory with process %d, its ancestor",
		inside->pid, s->pid);
	return err_hint(err, "take on that one, with --pid %d", s->pid);
}

/* Until nobody new is found: what an orphan leads may have others in it. */
static int find_belonging(struct looker *l, struct orphans *ret, struct err *err)
{
	bool more = true;
	int rc = 0;

	while (rc == 0 && more) {
		more = false;
		for (unsigned i = 0; rc == 0 && i < l->n; i++) {
			struct seen *s = &l->v[i];
			const struct seen *with;

			if (s->inside || s->ours)
				continue;
			with = shares_memory(l, s);
			if (with && s->above)
				return refuse_above(s, with, err);
			if (with && !led_from_inside(l, s->ppid)) {
				s->inside = more = true;
				rc = add(l, &ret->belong, &ret->n_belong, s->pid, err);
			} else if (led_from_inside(l, s->ppid)) {
				s->inside = more = true;
			} else if (led_from_inside(l, s->session) || led_from_inside(l, s->group)) {
				const struct seen *p = seen_at(l, s->ppid);

				/* a child of somebody else in that session is that one's */
				if (p && p->session == s->session && !p->inside)
					continue;
				s->inside = more = true;
				rc = add(l, &ret->belong, &ret->n_belong, s->pid, err);
			}
		}
	}
	return rc;
}

static int find_left(struct looker *l, const struct seen *root, struct orphans *ret,
		     struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < l->n; i++) {
		const struct seen *s = &l->v[i], *p = seen_at(l, s->ppid);

		if (s->inside || s->ours || s->session != root->session || s->session == s->pid ||
		    s->uid != root->uid || (p && p->session == s->session))
			continue;
		rc = add(l, &ret->left, &ret->n_left, s->pid, err);
	}
	return rc;
}

int proc_orphans(pid_t root, struct arena *a, struct orphans *ret, struct err *err)
{
	struct looker l = { .a = a };
	struct seen *r;
	int rc = look_at_all(&l, err);

	*ret = (struct orphans){ 0 };
	r = rc == 0 ? seen_at(&l, root) : NULL;
	if (r) {
		find_ours(&l);
		r->inside = true;
		for (struct seen *s = seen_at(&l, r->ppid); s && !s->above;
		     s = seen_at(&l, s->ppid))
			s->above = true;
		rc = find_belonging(&l, ret, err);
		if (rc == 0)
			rc = find_left(&l, r, ret, err);
	}
	idmap_fini(&l.by_pid);
	return rc;
}
