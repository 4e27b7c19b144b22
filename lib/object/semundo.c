/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What semop(2) is to undo when a process ends (SEM_UNDO): for each semaphore an adjustment.
 *
 * No interface shows it, but a failing semop tells. The kernel goes through the operations of one
 * call in order and takes all of them back if one fails; an adjustment that would get out of
 * [-32768, 32767] is ERANGE, an operation that would have to wait EAGAIN (IPC_NOWAIT). So this list
 *
 *	-value IPC_NOWAIT	the semaphore is 0 now,
 *	wait for 0 IPC_NOWAIT	if that was its value
 *	+a, -a SEM_UNDO		it still is, and the adjustment has grown by a (a <= 32767; else
 *				in steps)
 *	-32768 IPC_NOWAIT	never possible
 *
 * says whether adjustment + a > 32767, in one step that nobody can see into, and changes nothing:
 * neither value, nor adjustment, nor the id of whoever used the semaphore last, and nobody is
 * woken. With +a SEM_UNDO, -a it says whether adjustment - a < -32768.
 *
 * A program outside may change the value meanwhile. Then the answer is no (EAGAIN) to whatever is
 * asked, and never may the job's thread sleep in a question of ours. So only a yes proves anything,
 * and two of them, one to each side, what the adjustment is. That is asked for 0 first; else it is
 * searched for by halves, and what was found asked for.
 *
 * A process that has never used SEM_UNDO has no list for it (kcmp(2), KCMP_SYSVSEM), and is not
 * asked. Threads share one list; a thread that has its own (clone without CLONE_SYSVSEM) is
 * refused.
 */
#include "object/kinds.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TOP      32767 /* SEMVMX, SEMAEM */
#define MAX_OPS  9     /* three steps: -32768, asked for upwards, or 32767 downwards */
#define PER_TURN 400

/* A semaphore whose adjustment is looked for. */
struct asked {
	const struct sysv_sem *set;
	unsigned short num, value;
	int lo, hi; /* adjustment + lo <= TOP, adjustment + hi > TOP */
};

#define HINT "only as long as there is something to undo: the next checkpoint may succeed"

/* --- capture ---------------------------------------------------------------------------------- */

/* 0: the same list, or both have none. */
static int compare(pid_t a, pid_t b)
{
	return (int)syscall(SYS_kcmp, a, b, KCMP_SYSVSEM, 0, 0);
}

static bool has_none(pid_t pid)
{
	return compare((pid_t)syscall(SYS_gettid), pid) == 0;
}

static int check_threads(const struct subject *s, struct err *err)
{
	int fd = openat(s->proc_dirfd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		pid_t tid = (pid_t)atoi(e->d_name);

		if (tid <= 0 || compare(s->pid, tid) <= 0 || has_none(tid))
			continue;
		(void)err_set(err, -EOPNOTSUPP,
			      "pid %d: thread %d has SEM_UNDO adjustments of its own "
			      "(clone without CLONE_SYSVSEM); that is not supported",
			      s->process->pid, tid);
		return err_hint(err, HINT);
	}
	if (fd >= 0 && !d)
		(void)close(fd);
	return 0;
}

static unsigned push(struct sembuf *ops, unsigned n, unsigned short num, int op, int flags)
{
	ops[n] = (struct sembuf){ .sem_num = num, .sem_op = (short)op, .sem_flg = (short)flags };
	return n + 1;
}

/* The question: is adjustment + a > TOP? Or, with down, adjustment - a < -TOP - 1? */
static unsigned ask(struct batch *b, const struct asked *q, int a, bool down)
{
	struct sembuf ops[MAX_OPS];
	unsigned n = 0;

	if (q->value)
		n = push(ops, n, q->num, -q->value, IPC_NOWAIT);
	n = push(ops, n, q->num, 0, IPC_NOWAIT);
	while (a > 0) {
		int step = MIN(a, TOP);

		n = push(ops, n, q->num, step, down ? SEM_UNDO : 0);
		n = push(ops, n, q->num, -step, down ? 0 : SEM_UNDO);
		a -= step;
	}
	n = push(ops, n, q->num, -TOP - 1, IPC_NOWAIT);
	return batch_call(b, NULL, SYS_semop, q->set->id, batch_in(b, ops, n * sizeof ops[0]), n);
}

/* The answer; -errno: it cannot be asked. */
static int answer(const struct batch *b, unsigned call)
{
	int64_t rc = batch_ret(b, call);

	return rc == -ERANGE ? 1 : rc == -EAGAIN ? 0 : rc < 0 ? (int)rc : -EINVAL;
}

/* The calls that ask whether the adjustment is at least, and at most, some number. */
struct proof {
	unsigned least, most;
};

static struct proof ask_whether(struct batch *b, const struct asked *q, int adjust)
{
	struct proof p;

	p.least = ask(b, q, TOP + 1 - adjust, false);
	p.most = ask(b, q, TOP + 2 + adjust, true);
	return p;
}

/* 1: it is; 0: not, or the value is another just now; -errno: it cannot be asked. */
static int verdict(const struct batch *b, const struct proof *p)
{
	return MIN(answer(b, p->least), answer(b, p->most));
}

static int unanswered(const struct subject *s, const struct asked *q, int rc, struct err *err)
{
	/* it may not change the semaphore: so it has not; or it is gone */
	if (rc == -EACCES || rc == -EIDRM || rc == -EINVAL)
		return 0;
	errno = -rc;
	(void)err_set(err, -EOPNOTSUPP,
		      "pid %d: cannot find out what is to be undone (SEM_UNDO) on System V "
		      "semaphores %d: %m",
		      s->process->pid, q->set->id);
	return err_hint(err, HINT);
}

/* Drops from q those whose adjustment is 0; returns how many are left, or an error. */
static int drop_zero(const struct subject *s, struct asked *q, unsigned n, struct err *err)
{
	struct proof proofs[PER_TURN];
	unsigned left = 0;
	int rc;

	batch_start(s->batch);
	for (unsigned i = 0; i < n; i++)
		proofs[i] = ask_whether(s->batch, &q[i], 0);
	rc = batch_run(s->batch, s->pid, err);
	for (unsigned i = 0; rc >= 0 && i < n; i++) {
		int is_zero = verdict(s->batch, &proofs[i]);

		if (is_zero < 0)
			rc = unanswered(s, &q[i], is_zero, err);
		else if (!is_zero)
			q[left++] = q[i];
	}
	return rc < 0 ? rc : (int)left;
}

/* One halving for each; the adjustment is TOP + 1 - hi when lo and hi are neighbours. */
static int narrow(const struct subject *s, struct asked *q, unsigned n, struct err *err)
{
	unsigned calls[PER_TURN];
	int rc;

	batch_start(s->batch);
	for (unsigned i = 0; i < n; i++)
		calls[i] = ask(s->batch, &q[i], (q[i].lo + q[i].hi) / 2, false);
	rc = batch_run(s->batch, s->pid, err);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		int middle = (q[i].lo + q[i].hi) / 2, got = answer(s->batch, calls[i]);

		if (got < 0)
			rc = unanswered(s, &q[i], -EIO, err);
		*(got > 0 ? &q[i].hi : &q[i].lo) = middle;
	}
	return rc;
}

/* Whatever the values were while it was searched for. */
static int prove(const struct subject *s, const struct asked *q, unsigned n, struct err *err)
{
	struct proof proofs[PER_TURN];
	int rc;

	batch_start(s->batch);
	for (unsigned i = 0; i < n; i++)
		proofs[i] = ask_whether(s->batch, &q[i], TOP + 1 - q[i].hi);
	rc = batch_run(s->batch, s->pid, err);
	for (unsigned i = 0; rc == 0 && i < n; i++)
		if (verdict(s->batch, &proofs[i]) != 1)
			rc = err_set(err, -EAGAIN,
				     "pid %d: System V semaphores %d are being changed by a "
				     "program outside the job",
				     s->process->pid, q[i].set->id);
	return rc;
}

static int look(struct capture *c, const struct subject *s, struct asked *q, unsigned n,
		struct err *err)
{
	int left = drop_zero(s, q, n, err), rc = MIN(left, 0);

	/* [-1, 2 * (TOP + 1)) is cut down to one in 17 steps */
	for (int i = 0; rc == 0 && left && i < 17; i++)
		rc = narrow(s, q, (unsigned)left, err);
	if (rc == 0 && left)
		rc = prove(s, q, (unsigned)left, err);
	for (int i = 0; rc == 0 && i < left; i++) {
		struct sem_undo *u;

		if (q[i].hi == TOP + 1) /* 0 after all: its value was another at first */
			continue;
		u = arena_push(c->arena, &s->process->sem_undos, &s->process->n_sem_undos,
			       sizeof *u);
		if (!u)
			return err_nomem(err);
		*u = (struct sem_undo){ .id = q[i].set->id,
					.num = q[i].num,
					.adjust = TOP + 1 - q[i].hi };
	}
	return rc;
}

static int capture_process(struct capture *c, const struct subject *s, struct err *err)
{
	struct asked q[PER_TURN];
	unsigned n = 0;
	int rc = check_threads(s, err);

	for (unsigned i = 0; rc == 0 && i < c->tree->n_sems; i++) {
		const struct sysv_sem *set = &c->tree->sems[i];
		unsigned n_values = set->values.len / sizeof(unsigned short);

		for (unsigned k = 0; rc == 0 && k < n_values; k++) {
			q[n] = (struct asked){
				.set = set, .num = (unsigned short)k, .lo = -1, .hi = 2 * (TOP + 1)
			};
			memcpy(&q[n].value, set->values.data + k * sizeof q[n].value,
			       sizeof q[n].value);
			if (++n < PER_TURN)
				continue;
			rc = look(c, s, q, n, err);
			n = 0;
		}
	}
	return rc == 0 && n ? look(c, s, q, n, err) : rc;
}

/* Two processes with one list: what is undone when the last of them ends cannot be told apart. */
static int check_shared(const struct capture *c, unsigned n, struct err *err)
{
	const struct subject *s = &c->subjects[n];

	for (unsigned i = 0; s->process->n_sem_undos && i < n; i++)
		if (c->subjects[i].process->n_sem_undos &&
		    compare(s->pid, c->subjects[i].pid) == 0) {
			(void)err_set(err, -EOPNOTSUPP,
				      "pid %d: SEM_UNDO adjustments shared with pid %d "
				      "(CLONE_SYSVSEM) are not supported",
				      s->process->pid, c->subjects[i].process->pid);
			return err_hint(err, HINT);
		}
	return 0;
}

int sem_undos_capture(struct capture *c, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && c->tree->n_sems && i < c->n_subjects; i++) {
		if (has_none(c->subjects[i].pid))
			continue;
		rc = capture_process(c, &c->subjects[i], err);
		if (rc == 0)
			rc = check_shared(c, i, err);
	}
	return rc;
}

/* --- restore ---------------------------------------------------------------------------------- */

/* The semaphore's recorded value, -1: the tree has no such semaphore. */
static int value_of(const struct tree *t, const struct sem_undo *u)
{
	for (unsigned i = 0; i < t->n_sems; i++) {
		const struct sysv_sem *set = &t->sems[i];
		unsigned short value;

		if (set->id != u->id)
			continue;
		if (u->num >= set->values.len / sizeof value)
			return -1;
		memcpy(&value, set->values.data + u->num * sizeof value, sizeof value);
		return value;
	}
	return -1;
}

/* In one call, so that the value is never another: a plain operation, and one that undoes it and is
 * remembered with the opposite sign. */
static int put(struct rebuild *rb, const struct process *p, const struct sem_undo *u,
	       struct batch *b, struct err *err)
{
	int value = value_of(rb->tree, u), left = u->adjust;
	struct sembuf ops[MAX_OPS];
	unsigned n = 0;

	if (value < 0 || value > TOP || u->adjust < -TOP - 1 || u->adjust > TOP)
		return err_image(err, -EINVAL,
				 "the image has a SEM_UNDO adjustment of pid %d that cannot be",
				 p->pid);
	if (value)
		n = push(ops, n, (unsigned short)u->num, -value, IPC_NOWAIT);
	while (left) {
		int step = left > 0 ? left : MAX(left, -TOP);
		unsigned short num = (unsigned short)u->num;

		/* up before down */
		n = push(ops, n, num, abs(step), step > 0 ? 0 : SEM_UNDO);
		n = push(ops, n, num, -abs(step), step > 0 ? SEM_UNDO : 0);
		left -= step;
	}
	if (value)
		n = push(ops, n, (unsigned short)u->num, value, 0);
	if (!batch_room(b, 1, sizeof ops))
		return err_set(err, -E2BIG, "pid %d has too many SEM_UNDO adjustments", p->pid);
	(void)batch_call(b, "promise what semop() is to undo (SEM_UNDO)", SYS_semop, u->id,
			 batch_in(b, ops, n * sizeof ops[0]), n);
	return 0;
}

int sem_undos_put(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		  struct err *err)
{
	int rc = 0;

	batch_start(b);
	for (unsigned i = 0; rc == 0 && i < p->n_sem_undos; i++) {
		if (i && i % PER_TURN == 0) {
			rc = batch_run(b, tid, err);
			batch_start(b);
		}
		if (rc == 0)
			rc = put(rb, p, &p->sem_undos[i], b, err);
	}
	if (rc == 0)
		rc = batch_run(b, tid, err);
	batch_start(b);
	return rc;
}
