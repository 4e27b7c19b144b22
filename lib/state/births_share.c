/* SPDX-License-Identifier: BSD-2-Clause */
/* What processes share by clone(2): memory, signal handlers, descriptors, directories. It can only
 * come from whoever creates them. */
#include "state/births_int.h"

#include "util/cleanup.h"

#include <sched.h>
#include <stdio.h>

int births_refuse(struct planner *p, int32_t pid, const char *why)
{
	(void)err_set(p->err, -EOPNOTSUPP, "pid %d: %s: a restart could not make it so again", pid,
		      why);
	return err_hint(p->err, "checkpoints are possible before such a process is started, and "
				"when it has ended");
}

static const uint64_t shareable[] = { CLONE_VM, CLONE_SIGHAND, CLONE_FILES, CLONE_FS };

/* The process that stands for what it shares: the first that has it. */
static int32_t table_of(const struct planner *p, unsigned process, uint64_t kind)
{
	const struct process *q = &p->t->processes[process];
	int32_t of = kind == CLONE_VM        ? p->memory_of[process]
		     : kind == CLONE_SIGHAND ? q->sighand_of
		     : kind == CLONE_FILES   ? q->files_of
					     : q->fs_of;

	return of ? of : q->pid;
}

static const char *name_of(uint64_t kind)
{
	return kind == CLONE_VM        ? "memory"
	       : kind == CLONE_SIGHAND ? "signal handlers"
	       : kind == CLONE_FILES   ? "descriptors"
				       : "working directory";
}

int births_find_memory(struct planner *p)
{
	struct idmap first = { 0 };
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < p->t->n_processes; i++) {
		const struct process *q = &p->t->processes[i];
		uint32_t at = i;

		if (q->space && !idmap_get(&first, (int32_t)q->space, &at))
			rc = idmap_put(&first, (int32_t)q->space, i);
		p->memory_of[i] = p->t->processes[at].pid;
	}
	idmap_fini(&first);
	return rc < 0 ? err_nomem(p->err) : 0;
}

/* What of that which process i shares with an earlier one it cannot have from process `from`; 0:
 * nothing. */
static uint64_t not_shared_with(const struct planner *p, unsigned i, int from)
{
	for (size_t k = 0; k < ARRAY_SIZE(shareable); k++) {
		int32_t table = table_of(p, i, shareable[k]);

		if (table != p->t->processes[i].pid &&
		    (from < 0 || table_of(p, (unsigned)from, shareable[k]) != table))
			return shareable[k];
	}
	return 0;
}

/* The process that creates, or has made the step that does; -1: none. */
static int creating_process(const struct planner *p, int creator)
{
	const struct birth *c = creator >= 0 ? &p->b->v[creator] : NULL;

	if (c && c->kind == BIRTH_STEP)
		c = &p->b->v[c->creator];
	return c && c->kind == BIRTH_PROCESS ? (int)c->index : -1;
}

/*
 * A child of the same parent that has what it shares: it makes it with CLONE_PARENT, which gives
 * the child its own exit signal. -1: there is none.
 */
static int sharing_sibling(const struct planner *p, unsigned i)
{
	const struct member *m = &p->m[i];

	for (unsigned k = 0; k < p->t->n_processes; k++) {
		const struct member *s = &p->m[k];

		if (k != i && s->parent == m->parent && s->birth >= 0 &&
		    s->exit_signal == m->exit_signal &&
		    (m->birth_sid == ANY || m->birth_sid == s->sid) &&
		    !not_shared_with(p, i, (int)k))
			return s->birth;
	}
	return -1;
}

/* Another creator, if this one has not got what it shares. */
int births_by_sibling(struct planner *p, unsigned i, int *creator, bool *late)
{
	uint64_t kind = not_shared_with(p, i, creating_process(p, *creator));
	char why[96];

	if (!kind)
		return 0;
	*creator = sharing_sibling(p, i);
	*late = true;
	if (*creator >= 0)
		return 1;
	(void)snprintf(why, sizeof why,
		       "it shares its %s with one that is neither its parent nor its sibling",
		       name_of(kind));
	return births_refuse(p, p->m[i].pid, why);
}

/* A step shares what it is to pass on. */
int births_share(struct planner *p)
{
	for (unsigned i = 0; i < p->b->n; i++) {
		struct birth *b = &p->b->v[i];
		int from = b->kind == BIRTH_PROCESS ? creating_process(p, b->creator) : -1;

		if (from < 0)
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(shareable); k++)
			if (table_of(p, b->index, shareable[k]) != b->pid &&
			    table_of(p, b->index, shareable[k]) ==
				    table_of(p, (unsigned)from, shareable[k]))
				b->share |= shareable[k];
		if ((b->share & CLONE_SIGHAND) && !(b->share & CLONE_VM))
			return err_image(p->err, -EINVAL,
					 "process %d shares signal handlers, but no memory, with "
					 "another",
					 b->pid);
		if (p->b->v[b->creator].kind == BIRTH_STEP)
			p->b->v[b->creator].share |= b->share;
	}
	return 0;
}
