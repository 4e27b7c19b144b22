/* SPDX-License-Identifier: BSD-2-Clause */
/* In which order the processes of a tree are made: see the header. */
#include "state/births_int.h"

#include "util/cleanup.h"

#include <signal.h>

static const struct member *member_of(const struct planner *p, int32_t pid)
{
	uint32_t at;

	return pid > 0 && idmap_get(&p->by_pid, pid, &at) ? &p->m[at] : NULL;
}

static bool leads_session(const struct member *m)
{
	return m->sid == m->pid;
}

/* --- who is there ------------------------------------------------------------------------------
 */

static void list_members(struct planner *p)
{
	const struct tree *t = p->t;

	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *q = &t->processes[i];

		p->m[i] = (struct member){ .pid = q->pid,
					   .ppid = q->ppid,
					   .pgid = q->pgid,
					   .sid = q->sid,
					   .exit_signal = q->exit_signal,
					   .subreaper = q->child_subreaper };
	}
	for (unsigned i = 0; i < t->n_zombies; i++) {
		const struct zombie *z = &t->zombies[i];

		p->m[t->n_processes + i] = (struct member){ .pid = z->pid,
							    .ppid = z->ppid,
							    .pgid = z->pgid,
							    .sid = z->sid,
							    .exit_signal = z->exit_signal };
	}
}

/* What the root was born into is of somebody outside, whoever is in it. */
static void find_outside(struct planner *p)
{
	int32_t sid = p->m[0].sid, pgid = p->m[0].pgid;
	bool foreign_sid = !member_of(p, sid), foreign_pgid = !member_of(p, pgid);

	for (unsigned i = 0; i < p->n; i++) {
		struct member *m = &p->m[i];

		if (m->sid <= 0 || (foreign_sid && m->sid == sid))
			m->sid = OUTSIDE;
		if (m->pgid <= 0 || (foreign_pgid && m->pgid == pgid))
			m->pgid = OUTSIDE;
	}
}

static int index_members(struct planner *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		if (idmap_get(&p->by_pid, p->m[i].pid, NULL))
			return err_image(p->err, -EINVAL, "process %d occurs twice", p->m[i].pid);
		if (p->m[i].pid <= 0 || idmap_put(&p->by_pid, p->m[i].pid, i) < 0)
			return err_nomem(p->err);
	}
	find_outside(p);
	for (unsigned i = 0; i < p->n; i++) {
		struct member *m = &p->m[i];
		const struct member *parent = member_of(p, m->ppid);

		m->birth = -1;
		m->parent = parent ? (int)(parent - p->m) : -1;
		if (i < p->t->n_processes ? parent && parent >= m
					  : !parent || parent >= p->m + p->t->n_processes)
			return err_image(p->err, -EINVAL, "pid %d: its parent %d is missing",
					 m->pid, m->ppid);
	}
	return 0;
}

/* --- sessions at birth -------------------------------------------------------------------------
 */

/* Can a process have been born into that session: from an ancestor that was in it, or from one that
 * has ended? */
static bool may_come_from(const struct planner *p, int32_t sid, const struct member *m)
{
	int i;

	for (i = m->parent; i >= 0; i = p->m[i].parent) {
		if (p->m[i].pid == sid || p->m[i].sid == sid)
			return true;
		m = &p->m[i];
	}
	return sid == OUTSIDE || m != p->m;
}

/* Children come after their parents, so that from the end each is known before its parent. */
static void find_birth_sessions(struct planner *p)
{
	for (unsigned i = 0; i < p->n; i++)
		p->m[i].birth_sid = leads_session(&p->m[i]) ? ANY : p->m[i].sid;
	for (unsigned i = p->n; i-- > 0;) {
		const struct member *m = &p->m[i];
		struct member *parent = m->parent >= 0 ? &p->m[m->parent] : NULL;
		int32_t sid = m->birth_sid;

		if (!parent || !leads_session(parent) || sid == ANY || sid == parent->pid ||
		    parent->birth_sid != ANY)
			continue;
		if (may_come_from(p, sid, parent))
			parent->birth_sid = sid;
	}
	if (p->m[0].birth_sid == ANY)
		p->m[0].birth_sid = OUTSIDE;
}

/* --- births ------------------------------------------------------------------------------------
 */

static int add_birth(struct planner *p, struct birth birth)
{
	unsigned n = p->b->n;
	struct birth *b;

	if (n == p->n_births_room)
		return -1;
	b = &p->b->v[p->b->n++];
	*b = birth;
	b->first_child = b->next_sibling = b->group = p->last_child[n] = -1;
	if (b->creator < 0)
		return 0;
	if (p->last_child[b->creator] < 0)
		p->b->v[b->creator].first_child = (int)n;
	else
		p->b->v[p->last_child[b->creator]].next_sibling = (int)n;
	p->last_child[b->creator] = (int)n;
	return (int)n;
}

/* A step below the birth, which makes what is to be an orphan. */
static int add_step(struct planner *p, int below, bool late)
{
	return add_birth(p, (struct birth){ .kind = BIRTH_STEP,
					    .exit_signal = SIGCHLD,
					    .creator = below,
					    .late = late });
}

static int ghost_session(struct planner *p, int32_t sid, int adopter)
{
	uint32_t at;
	int g;

	if (idmap_get(&p->ghosts, sid, &at))
		return (int)at;
	g = add_birth(p, (struct birth){ .kind = BIRTH_GHOST,
					 .pid = sid,
					 .exit_signal = SIGCHLD,
					 .creator = adopter < 0 ? 0 : p->m[adopter].birth,
					 .late = true,
					 .new_session = true });
	return g < 0 || idmap_put(&p->ghosts, sid, (uint32_t)g) < 0 ? -1 : g;
}

/* The birth that makes what is to be adopted, and ends. */
static int maker_of_orphan(struct planner *p, const struct member *m, bool *late)
{
	int32_t sid = m->birth_sid;
	const struct member *leader = member_of(p, sid);
	int adopter = m->parent;

	*late = true;
	if (sid == ANY)
		return add_step(p, adopter < 0 ? 0 : p->m[adopter].birth, true);
	if (sid == OUTSIDE)
		return add_step(p, 0, false);
	if (leader && leads_session(leader) && leader->birth >= 0)
		return add_step(p, leader->birth, true);
	return leader ? -1 : ghost_session(p, sid, adopter);
}

/* Born by its parent in its own place; false: it must be an adopted one. */
static bool born_by_parent(const struct member *m, const struct member *parent, bool *late)
{
	*late = true;
	if (m->birth_sid == ANY || m->birth_sid == parent->sid)
		return true;
	*late = false;
	return leads_session(parent) && m->birth_sid == parent->birth_sid;
}

static int parent_birth(const struct births *b, int birth)
{
	while (b->v[birth].sibling)
		birth = b->v[birth].creator;
	return b->v[birth].creator;
}

/* Who becomes the parent when `birth` ends: the next subreaper above, -1: none in the tree. */
static int adopter_of(const struct planner *p, int birth)
{
	const struct births *b = p->b;

	for (int i = parent_birth(b, birth); b->adopting && i >= 0; i = parent_birth(b, i))
		if (b->v[i].kind == BIRTH_PROCESS && p->m[b->v[i].index].subreaper)
			return (int)b->v[i].index;
	return -1;
}

/* Are those that it needs there, its parent and the leader of its session? */
static bool can_be_born(const struct planner *p, const struct member *m)
{
	const struct member *leader = member_of(p, m->birth_sid);

	return (m->parent < 0 || p->m[m->parent].birth >= 0) && (!leader || leader->birth >= 0);
}

static int give_birth(struct planner *p, unsigned i)
{
	struct member *m = &p->m[i];
	bool zombie = i >= p->t->n_processes, late = false;
	int creator = -1, sibling = 0;

	if (i > 0 && m->parent >= 0 && born_by_parent(m, &p->m[m->parent], &late)) {
		creator = p->m[m->parent].birth;
	} else if (i > 0) {
		creator = maker_of_orphan(p, m, &late);
		if (creator < 0)
			return births_refuse(
				p, m->pid,
				"its session is older than itself and led by a younger "
				"process");
		if (adopter_of(p, creator) != m->parent)
			return births_refuse(
				p, m->pid,
				"its parent has ended, and another process has adopted it "
				"than would now");
	} else if (m->birth_sid != OUTSIDE) {
		return births_refuse(p, m->pid, "it was born into a session that has ended");
	}
	if (i > 0 && !zombie)
		sibling = births_by_sibling(p, i, &creator, &late);
	if (sibling < 0)
		return sibling;
	m->birth =
		add_birth(p, (struct birth){ .kind = zombie ? BIRTH_ZOMBIE : BIRTH_PROCESS,
					     .index = zombie ? i - p->t->n_processes : i,
					     .pid = m->pid,
					     .exit_signal = m->exit_signal,
					     .creator = creator,
					     .sibling = sibling > 0,
					     .late = late,
					     .new_session = leads_session(m),
					     .new_group = m->pgid == m->pid && !leads_session(m) });
	return m->birth < 0 ? err_nomem(p->err) : 0;
}

static int give_births(struct planner *p)
{
	unsigned left = p->n;

	for (unsigned before = left + 1; left > 0 && left < before;) {
		before = left;
		for (unsigned i = 0; i < p->n; i++) {
			int rc;

			if (p->m[i].birth >= 0 || !can_be_born(p, &p->m[i]))
				continue;
			rc = give_birth(p, i);
			if (rc < 0)
				return rc;
			left--;
		}
	}
	for (unsigned i = 0; left > 0 && i < p->n; i++)
		if (p->m[i].birth < 0)
			return births_refuse(p, p->m[i].pid, "its session is led by a descendant");
	return 0;
}

static bool needs_adoption(const struct planner *p)
{
	bool late;

	for (unsigned i = 1; i < p->n; i++)
		if (p->m[i].parent >= 0 && !born_by_parent(&p->m[i], &p->m[p->m[i].parent], &late))
			return true;
	return false;
}

/* --- process groups ----------------------------------------------------------------------------
 */

/* The leader of a group has ended: a ghost leads it until all have joined. */
static int ghost_group(struct planner *p, const struct member *m)
{
	const struct member *leader = member_of(p, m->sid);
	uint32_t at;
	int creator = 0, g;

	if (idmap_get(&p->ghosts, m->pgid, &at))
		return (int)at;
	if (m->sid != OUTSIDE && leader)
		creator = leader->birth;
	else if (m->sid != OUTSIDE && idmap_get(&p->ghosts, m->sid, &at))
		creator = (int)at;
	else if (m->sid != OUTSIDE)
		return -1;
	g = add_birth(p, (struct birth){ .kind = BIRTH_GHOST,
					 .pid = m->pgid,
					 .exit_signal = SIGCHLD,
					 .creator = creator,
					 .late = m->sid != OUTSIDE,
					 .new_group = true });
	return g < 0 || idmap_put(&p->ghosts, m->pgid, (uint32_t)g) < 0 ? -1 : g;
}

static int find_groups(struct planner *p)
{
	static const char left[] = "the leader of its process group is in another one";

	for (unsigned i = 0; i < p->n; i++) {
		const struct member *m = &p->m[i], *leader = member_of(p, m->pgid);
		int group;

		/* the group that comes with the session, or one of its own */
		if (m->pgid == OUTSIDE || m->pgid == m->pid)
			continue;
		group = leader ? leader->birth : ghost_group(p, m);
		if (group < 0 || (leader && leader->sid != m->sid))
			return births_refuse(p, m->pid,
					     "its process group belongs to another session");
		p->b->v[m->birth].group = group;
		/* one that has left the group of its id leads it until the others have joined */
		if (leader && leader->pgid == OUTSIDE)
			return births_refuse(p, m->pid, left);
		if (leader && leader->pgid != leader->pid)
			p->b->v[group].new_group = true;
	}
	for (unsigned i = 0; i < p->b->n; i++) {
		const struct birth *b = &p->b->v[i];

		if (b->group >= 0 && b->new_group && p->b->v[b->group].group >= 0)
			return births_refuse(p, b->pid, left);
	}
	return 0;
}

int births_plan(const struct tree *t, struct arena *a, struct births *ret, struct err *err)
{
	unsigned n = t->n_processes + t->n_zombies;
	struct planner p = { .t = t, .a = a, .n = n, .b = ret, .err = err };
	int rc = 0;

	/* for each its own, a step and two ghosts */
	p.n_births_room = 4 * n;
	p.memory_of = arena_array(a, t->n_processes, sizeof *p.memory_of);
	p.m = arena_array(a, n, sizeof *p.m);
	p.last_child = arena_array(a, p.n_births_room, sizeof *p.last_child);
	*ret = (struct births){ .v = arena_array(a, p.n_births_room, sizeof *ret->v) };
	if (!p.m || !p.memory_of || !p.last_child || !ret->v)
		return err_nomem(err);
	list_members(&p);
	rc = index_members(&p);
	if (rc == 0)
		rc = births_find_memory(&p);
	if (rc == 0)
		find_birth_sessions(&p);
	ret->adopting = rc == 0 && needs_adoption(&p);
	if (rc == 0)
		rc = give_births(&p);
	if (rc == 0)
		rc = find_groups(&p);
	if (rc == 0)
		rc = births_share(&p);
	idmap_fini(&p.by_pid);
	idmap_fini(&p.ghosts);
	return rc;
}
