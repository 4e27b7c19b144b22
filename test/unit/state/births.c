/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Plans of births against a model of what the kernel does: processes fork or clone with shared
 * memory and descriptors, end, start sessions and groups at random; whatever tree comes out of that
 * is either made again by its plan with the same parents, sessions, groups and sharing, or refused.
 */
#include "state/births.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST         64
#define OUTSIDE_SID  500
#define OUTSIDE_PGID 600

struct proc {
	int32_t pid, ppid, sid, pgid;
	int32_t memory, files; /* who shares them has the same number here */
	bool alive, zombie, subreaper;
};

static struct proc p[MOST * 4];
static int n;

static int find(int32_t pid)
{
	for (int i = 0; i < n; i++)
		if (p[i].pid == pid && (p[i].alive || p[i].zombie))
			return i;
	return -1;
}

/* --- what happens --------------------------------------------------------------------------------
 */

static void adopt_children(int i)
{
	int to = find(p[i].ppid);

	while (to >= 0 && !p[to].subreaper)
		to = find(p[to].ppid);
	for (int k = 0; k < n; k++)
		if (p[k].ppid == p[i].pid) {
			p[k].ppid = to >= 0 ? p[to].pid : 0;
			if (to < 0 && p[k].zombie)
				p[k].zombie = false;
		}
}

static bool group_in_use(int32_t id, int32_t sid)
{
	for (int i = 0; i < n; i++)
		if ((p[i].alive || p[i].zombie) && p[i].pgid == id && p[i].sid == sid)
			return true;
	return false;
}

static void be_cloned(const struct proc *from, struct proc *q)
{
	int how = rand() % 12;

	q->memory = how < 4 ? from->memory : q->pid;
	q->files = how == 1 || how == 4 ? from->files : q->pid;
	if (how == 2 && from->ppid) /* CLONE_PARENT */
		q->ppid = from->ppid;
}

static void step(bool subreapers, bool sharing)
{
	int i = rand() % n;

	if (!p[i].alive)
		return;
	switch (rand() % 8) {
	case 0:
	case 1:
	case 2:
		if (n < MOST) {
			p[n] = p[i];
			p[n].pid = 1000 + n;
			p[n].ppid = p[i].pid;
			p[n].subreaper = false;
			p[n].memory = p[n].files = p[n].pid;
			if (sharing)
				be_cloned(&p[i], &p[n]);
			n++;
		}
		break;
	case 3:
		if (i == 0)
			break;
		p[i].alive = false;
		p[i].zombie = p[i].ppid && rand() % 3 == 0;
		adopt_children(i);
		break;
	case 4:
		if (p[i].pgid != p[i].pid && !group_in_use(p[i].pid, p[i].sid))
			p[i].sid = p[i].pgid = p[i].pid;
		break;
	case 5:
		if (p[i].sid != p[i].pid)
			p[i].pgid = p[i].pid;
		break;
	case 6: {
		int k = rand() % n;

		if (p[i].sid != p[i].pid && p[k].sid == p[i].sid && (p[k].alive || p[k].zombie))
			p[i].pgid = p[k].pgid;
		break;
	}
	case 7:
		if (subreapers && rand() % 4 == 0)
			p[i].subreaper = true;
	}
}

/* As a checkpoint records what somebody outside leads. */
static int32_t inside(int32_t id, int32_t outside)
{
	return id == outside ? 0 : id;
}

static int32_t first_with_files(const struct tree *t, const struct proc *q)
{
	for (unsigned i = 0; i < t->n_processes; i++)
		if (p[find(t->processes[i].pid)].files == q->files && t->processes[i].pid != q->pid)
			return t->processes[i].pid;
	return 0;
}

static void add_member(struct arena *a, struct tree *t, const struct proc *q)
{
	if (q->alive) {
		int32_t files_of = first_with_files(t, q); /* of those that are in the list */
		struct process *s = arena_push(a, &t->processes, &t->n_processes, sizeof *s);

		*s = (struct process){ .pid = q->pid,
				       .ppid = q->ppid,
				       .pgid = inside(q->pgid, OUTSIDE_PGID),
				       .sid = inside(q->sid, OUTSIDE_SID),
				       .exit_signal = SIGCHLD,
				       .space = (uint32_t)q->memory,
				       .files_of = files_of,
				       .child_subreaper = q->subreaper };
	} else if (q->zombie) {
		struct zombie *z = arena_push(a, &t->zombies, &t->n_zombies, sizeof *z);

		*z = (struct zombie){ .pid = q->pid,
				      .ppid = q->ppid,
				      .pgid = inside(q->pgid, OUTSIDE_PGID),
				      .sid = inside(q->sid, OUTSIDE_SID) };
	}
}

/* Parents first, as a freeze finds them. */
static void list(struct arena *a, struct tree *t, int32_t ppid)
{
	for (int i = 0; i < n; i++)
		if (p[i].alive && p[i].ppid == ppid) {
			add_member(a, t, &p[i]);
			list(a, t, p[i].pid);
		}
}

/* --- making it again
 * ------------------------------------------------------------------------------
 */

static struct proc made[MOST * 4];
static const struct births *plan;
static const struct tree *tree;

static int parent_of(unsigned i)
{
	while (plan->v[i].sibling)
		i = (unsigned)plan->v[i].creator;
	return plan->v[i].creator;
}

static void orphan_children(unsigned i)
{
	int to = parent_of(i);

	while (to >= 0 && !(plan->adopting && plan->v[to].kind == BIRTH_PROCESS &&
			    tree->processes[plan->v[to].index].child_subreaper))
		to = parent_of((unsigned)to);
	for (unsigned k = 0; k < plan->n; k++)
		if (made[k].ppid == made[i].pid && made[k].alive)
			made[k].ppid = to >= 0 ? made[to].pid : 0;
	made[i].alive = false;
}

static void make(unsigned i)
{
	const struct birth *b = &plan->v[i];

	made[i] = (struct proc){ .pid = b->pid ? b->pid : 100000 + (int32_t)i,
				 .sid = OUTSIDE_SID,
				 .pgid = OUTSIDE_PGID,
				 .alive = true };
	if (b->creator >= 0) {
		made[i].ppid = made[b->creator].pid;
		made[i].sid = made[b->creator].sid;
		made[i].pgid = made[b->creator].pgid;
	}
	made[i].memory = b->share & CLONE_VM ? made[b->creator].memory : made[i].pid;
	made[i].files = b->share & CLONE_FILES ? made[b->creator].files : made[i].pid;
	if (b->sibling)
		made[i].ppid = made[b->creator].ppid;
	for (int late = 0; late < 2; late++) {
		if (late && b->new_session)
			made[i].sid = made[i].pgid = made[i].pid;
		for (int c = b->first_child; c >= 0; c = plan->v[c].next_sibling)
			if (plan->v[c].late == late)
				make((unsigned)c);
	}
	if (b->kind == BIRTH_STEP)
		orphan_children(i);
}

static bool is_member(int32_t id)
{
	for (unsigned i = 0; i < plan->n; i++)
		if (id && plan->v[i].pid == id)
			return true;
	return false;
}

static int wrong(const char *what, int32_t pid, int32_t is, int32_t was)
{
	printf("pid %d: %s %d, was %d\n", pid, what, is, was);
	return 1;
}

static int compare_sharing(void)
{
	for (unsigned i = 0; i < plan->n; i++)
		for (unsigned k = 0; k < i; k++) {
			const struct proc *a, *b;

			if (plan->v[i].kind != BIRTH_PROCESS || plan->v[k].kind != BIRTH_PROCESS)
				continue;
			a = &p[find(plan->v[i].pid)];
			b = &p[find(plan->v[k].pid)];
			if ((a->memory == b->memory) != (made[i].memory == made[k].memory))
				return wrong("memory, as has", a->pid, b->pid, a->memory);
			if ((a->files == b->files) != (made[i].files == made[k].files))
				return wrong("files, as has", a->pid, b->pid, a->files);
		}
	return 0;
}

static int compare(void)
{
	for (unsigned i = 0; i < plan->n; i++) {
		const struct birth *b = &plan->v[i];
		const struct proc *m = &made[i];
		int32_t ppid, sid, pgid;

		if (b->kind == BIRTH_PROCESS) {
			ppid = tree->processes[b->index].ppid;
			sid = tree->processes[b->index].sid;
			pgid = tree->processes[b->index].pgid;
		} else if (b->kind == BIRTH_ZOMBIE) {
			ppid = tree->zombies[b->index].ppid;
			sid = tree->zombies[b->index].sid;
			pgid = tree->zombies[b->index].pgid;
		} else {
			continue;
		}
		if (m->ppid != ppid)
			return wrong("parent", m->pid, m->ppid, ppid);
		if (m->sid != sid && (is_member(sid) || is_member(m->sid)))
			return wrong("session", m->pid, m->sid, sid);
		if (m->pgid != pgid && (is_member(pgid) || is_member(m->pgid)))
			return wrong("group", m->pid, m->pgid, pgid);
	}
	return compare_sharing();
}

static int make_all(void)
{
	make(0);
	for (unsigned i = 0; i < plan->n; i++)
		if (plan->v[i].new_group)
			made[i].pgid = made[i].pid;
	for (unsigned k = 0; k < 2 * plan->n; k++) {
		unsigned i = k % plan->n;
		int g = plan->v[i].group;

		if (g < 0 || plan->v[i].new_group != (k >= plan->n))
			continue;
		if (made[g].pgid != made[g].pid || made[g].sid != made[i].sid)
			return wrong("cannot join group", made[i].pid, made[g].pid, 0);
		made[i].pgid = made[g].pid;
	}
	for (unsigned i = 0; i < plan->n; i++)
		if (plan->v[i].kind == BIRTH_GHOST)
			orphan_children(i);
	return compare();
}

static void show(const struct births *b)
{
	for (unsigned i = 0; i < b->n; i++)
		printf("kind %d pid %d creator %d group %d late %d session %d leads %d\n",
		       (int)b->v[i].kind, b->v[i].pid, b->v[i].creator, b->v[i].group, b->v[i].late,
		       b->v[i].new_session, b->v[i].new_group);
	for (int i = 0; i < n; i++)
		printf("was pid %d ppid %d sid %d pgid %d %s\n", p[i].pid, p[i].ppid, p[i].sid,
		       p[i].pgid,
		       p[i].alive    ? "alive"
		       : p[i].zombie ? "zombie"
				     : "gone");
}

/* One history: 0 made again, 1 refused, -1 wrong. */
static int round_of(unsigned seed)
{
	struct arena *a = arena_new();
	struct tree t = { 0 };
	struct births births;
	struct err err = { 0 };
	int rc;

	srand(seed);
	n = 1;
	p[0] = (struct proc){ .pid = 1000,
			      .sid = OUTSIDE_SID,
			      .pgid = OUTSIDE_PGID,
			      .memory = 1000,
			      .files = 1000,
			      .alive = true };
	for (int i = 0; i < 20 + (int)(seed % 200); i++)
		step(seed % 4 == 0, seed % 4 > 2);
	list(a, &t, 0);
	for (int i = 0; i < n; i++)
		if (p[i].zombie)
			add_member(a, &t, &p[i]);
	rc = births_plan(&t, a, &births, &err);
	plan = &births;
	tree = &t;
	rc = rc < 0 ? 1 : make_all() ? -1 : 0;
	if (rc < 0)
		show(&births);
	if (rc == 1 && !err.msg[0])
		rc = -1;
	if (rc == 1 && getenv("VERBOSE"))
		printf("seed %u: %s\n", seed, err.msg);
	arena_free(a);
	return rc;
}

int main(void)
{
	unsigned refused[3] = { 0 };

	for (unsigned seed = 1; seed <= 4000; seed++) {
		int rc = round_of(seed);

		if (rc < 0) {
			printf("seed %u\n", seed);
			return 1;
		}
		refused[seed % 4 == 0 ? 1 : seed % 4 > 2 ? 2 : 0] += rc == 1;
	}
	printf("refused: %u of 2000, with subreapers %u, sharing %u of 1000\n", refused[0],
	       refused[1], refused[2]);
	return refused[0] > 80;
}
