/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * System V shared memory, semaphores and message queues: capture.
 *
 * They belong to an IPC namespace, not to a process. The job itself is asked, since it may be in
 * another one than we are. Of what there is, the job's are: shared memory that it has attached or
 * made, semaphores that one of its processes used last or waits for, queues to which one wrote or
 * from which one read last, or waits for. Messages can be looked at without taking them out
 * (MSG_COPY).
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif
#define PER_BATCH 256
#define COPY_STEP (128u << 10)

union any_ds {
	struct shmid_ds shm;
	struct semid_ds sem;
	struct msqid_ds msg;
};

/* One of the three kinds, as a batch asks for it. */
struct ipc_kind {
	const char *what;
	long nr; /* shmctl, semctl, msgctl */
	int info, stat;
	int (*take)(struct capture *c, int id, const union any_ds *ds, struct err *err);
};

static uint64_t ctl(struct batch *b, const struct ipc_kind *k, int id, int cmd, uint64_t buf,
		    unsigned *ret_call)
{
	*ret_call = k->nr == SYS_semctl ? batch_call(b, NULL, k->nr, id, 0, cmd, buf)
					: batch_call(b, NULL, k->nr, id, cmd, buf);
	return buf;
}

static bool in_tree(const struct capture *c, int32_t pid)
{
	for (unsigned i = 0; pid && i < c->n_subjects; i++)
		if (c->subjects[i].process->pid == pid)
			return true;
	return false;
}

/* gregs are laid out as the kernel's struct user_regs_struct: rdi is the 15th */
static uint64_t first_argument(const struct thread *t)
{
	uint64_t rdi = 0;

	if (t->gregs.len >= 15 * sizeof rdi)
		memcpy(&rdi, t->gregs.data + 14 * sizeof rdi, sizeof rdi);
	return rdi;
}

/* Does a thread of the job wait in one of these calls for the object id? */
static bool awaited(const struct capture *c, const long *nrs, unsigned n, int id)
{
	for (unsigned i = 0; i < c->n_subjects; i++) {
		const struct process *p = c->subjects[i].process;

		for (unsigned t = 0; t < p->n_threads; t++)
			for (unsigned k = 0; k < n; k++)
				if (p->threads[t].syscall_nr == nrs[k] &&
				    first_argument(&p->threads[t]) == (uint64_t)(unsigned)id)
					return true;
	}
	return false;
}

static int refuse_object(const struct capture *c, const char *what, int id, const char *why,
			 const char *hint, struct err *err)
{
	(void)err_set(err, -EOPNOTSUPP, "pid %d: System V %s %d %s; that is not supported",
		      c->subjects[0].process->pid, what, id, why);
	return err_hint(err, "%s", hint);
}

/* --- shared memory ---------------------------------------------------------------------------- */

uint32_t sysv_space(struct capture *c, int id, uint64_t size, int fd)
{
	char key[SPACE_KEY_LEN], name[48];

	(void)snprintf(key, sizeof key, "sysv:%d", id);
	(void)snprintf(name, sizeof name, "System V shared memory %d", id);
	return capture_space(c, SPACE_SHM, key, name, size, fd);
}

static unsigned attached(const struct capture *c, uint32_t space)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n_subjects; i++) {
		const struct process *p = c->subjects[i].process;

		for (unsigned k = 0; k < p->n_vmas; k++)
			n += p->vmas[k].kind == VMA_SHM && p->vmas[k].shm_space == space;
	}
	return n;
}

/* The pieces that mprotect(2) has made of an attachment must be all of it. */
static bool is_whole(const struct capture *c, uint32_t space, uint64_t size)
{
	uint64_t pages = (size + CKPT_PAGE_SIZE - 1) / CKPT_PAGE_SIZE * CKPT_PAGE_SIZE;

	for (unsigned i = 0; i < c->n_subjects; i++) {
		const struct process *p = c->subjects[i].process;
		uint64_t next = 0, at = 0;

		for (unsigned k = 0; k < p->n_vmas; k++) {
			const struct vma *v = &p->vmas[k];

			if (v->kind != VMA_SHM || v->shm_space != space)
				continue;
			if (v->offset != next || (next && v->start != at))
				return false;
			next = v->offset + (v->end - v->start);
			at = v->end;
			if (next == pages)
				next = 0;
		}
		if (next)
			return false;
	}
	return true;
}

/* The content of a segment that nobody has attached: the job attaches it for as long as a batch
 * runs, and copies a piece to where we can read it. */
static int copy_unattached(struct capture *c, int id, uint64_t size, int *ret_fd, struct err *err)
{
	const struct subject *s = &c->subjects[0];
	CLEANUP_FD int fd = memfd_create("sysv", MFD_CLOEXEC);
	uint64_t hole = 0x200000000000ULL; /* found free below */

	for (unsigned k = 0; k < s->process->n_vmas; k++)
		if (s->process->vmas[k].start < hole + size && s->process->vmas[k].end > hole)
			hole = (s->process->vmas[k].end + (2u << 20)) & ~(uint64_t)0x1fffff;
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return err_set(err, -errno, "cannot make room for a copy of shared memory: %m");
	for (uint64_t at = 0; at < size; at += COPY_STEP) {
		uint64_t len = MIN(size - at, (uint64_t)COPY_STEP), out, from, to;
		struct {
			uint64_t base, len;
		} iov[2];
		int rc;

		batch_start(s->batch);
		out = batch_out(s->batch, len);
		iov[0].base = out;
		iov[1].base = hole + at;
		iov[0].len = iov[1].len = len;
		to = batch_in(s->batch, &iov[0], sizeof iov[0]);
		from = batch_in(s->batch, &iov[1], sizeof iov[1]);
		(void)batch_call(s->batch, "attach shared memory", SYS_shmat, id, hole, SHM_RDONLY);
		(void)batch_call(s->batch, "copy shared memory", SYS_process_vm_readv,
				 s->status.ns_pid, to, 1, from, 1, 0);
		(void)batch_call(s->batch, "detach shared memory", SYS_shmdt, hole);
		rc = batch_run(s->batch, s->pid, err);
		if (rc < 0)
			return rc;
		if (pwrite(fd, batch_result(s->batch, out), len, (off_t)at) != (ssize_t)len)
			return err_set(err, -EIO, "cannot copy shared memory: %m");
	}
	*ret_fd = fd_take(&fd);
	return 0;
}

static int take_shm(struct capture *c, int id, const union any_ds *ds, struct err *err)
{
	const struct shmid_ds *d = &ds->shm;
	uint32_t space = 0;
	struct sysv_shm *shm;
	char key[SPACE_KEY_LEN];
	unsigned n = 0;
	int fd = -1, rc;

	(void)snprintf(key, sizeof key, "System V shared memory %d", id);
	for (unsigned i = 0; i < c->tree->n_spaces; i++)
		if (c->tree->spaces[i].name && !strcmp(c->tree->spaces[i].name, key))
			space = c->tree->spaces[i].id;
	n = space ? attached(c, space) : 0;
	if (!n && !in_tree(c, d->shm_cpid))
		return 0;
	if (d->shm_nattch != n)
		return refuse_object(c, "shared memory", id,
				     "is attached outside of the job as well",
				     "start all that use it under one ckpt-run", err);
	if (n && !is_whole(c, space, d->shm_segsz))
		return refuse_object(c, "shared memory", id, "has been unmapped in part",
				     "it must be detached as a whole, with shmdt(2)", err);
	if (!n) {
		rc = copy_unattached(c, id, d->shm_segsz, &fd, err);
		space = rc < 0 ? 0 : sysv_space(c, id, d->shm_segsz, fd);
		if (!space)
			return rc < 0 ? rc : err_nomem(err);
	}
	shm = arena_push(c->arena, &c->tree->shms, &c->tree->n_shms, sizeof *shm);
	if (!shm)
		return err_nomem(err);
	*shm = (struct sysv_shm){ .id = id,
				  .key = d->shm_perm.__key,
				  .mode = d->shm_perm.mode & 0777,
				  .uid = d->shm_perm.uid,
				  .gid = d->shm_perm.gid,
				  .size = d->shm_segsz,
				  .space = space,
				  .removed = !!(d->shm_perm.mode & SHM_DEST) };
	return 0;
}

/* --- semaphores ------------------------------------------------------------------------------- */

static int take_sem(struct capture *c, int id, const union any_ds *ds, struct err *err)
{
	static const long waits[] = { SYS_semop, SYS_semtimedop };
	const struct semid_ds *d = &ds->sem;
	struct batch *b = c->subjects[0].batch;
	unsigned n = (unsigned)d->sem_nsems, first = 0;
	bool ours = awaited(c, waits, ARRAY_SIZE(waits), id);
	struct sysv_sem *sem;
	uint64_t values;
	int rc;

	if (n > 512)
		n = 512; /* enough of them to say whose they are */
	batch_start(b);
	for (unsigned i = 0; i < n; i++) {
		unsigned call = batch_call(b, NULL, SYS_semctl, id, i, GETPID);

		first = i ? first : call;
	}
	values = batch_out(b, d->sem_nsems * sizeof(unsigned short));
	(void)batch_call(b, NULL, SYS_semctl, id, 0, GETALL, values);
	rc = batch_run(b, c->subjects[0].pid, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < n && !ours; i++)
		ours = in_tree(c, (int32_t)batch_ret(b, first + i));
	if (!ours)
		return 0;
	sem = arena_push(c->arena, &c->tree->sems, &c->tree->n_sems, sizeof *sem);
	if (!sem)
		return err_nomem(err);
	*sem = (struct sysv_sem){ .id = id,
				  .key = d->sem_perm.__key,
				  .mode = d->sem_perm.mode & 0777,
				  .uid = d->sem_perm.uid,
				  .gid = d->sem_perm.gid };
	sem->values.len = (uint32_t)(d->sem_nsems * sizeof(unsigned short));
	sem->values.data = arena_memdup(c->arena, batch_result(b, values), sem->values.len);
	return sem->values.data ? 0 : err_nomem(err);
}

/* --- message queues --------------------------------------------------------------------------- */

static int take_message(struct capture *c, struct sysv_msg *q, unsigned index, size_t room,
			struct err *err)
{
	struct batch *b = c->subjects[0].batch;
	struct sysv_message *m;
	const uint8_t *got;
	unsigned call;
	uint64_t buf;
	int64_t len;
	int rc;

	batch_start(b);
	buf = batch_out(b, room + 8);
	call = batch_call(b, NULL, SYS_msgrcv, q->id, buf, room, index, MSG_COPY | IPC_NOWAIT);
	rc = batch_run(b, c->subjects[0].pid, err);
	if (rc < 0)
		return rc;
	len = batch_ret(b, call);
	if (len < 0)
		return refuse_object(c, "message queue", q->id,
				     "holds messages that cannot be looked at (MSG_COPY)",
				     "it is no obstacle when they have been read", err);
	m = arena_push(c->arena, &q->messages, &q->n_messages, sizeof *m);
	if (!m)
		return err_nomem(err);
	got = batch_result(b, buf);
	memcpy(&m->type, got, 8);
	m->data.len = (uint32_t)len;
	m->data.data = arena_memdup(c->arena, got + 8, (size_t)len);
	return m->data.data || !len ? 0 : err_nomem(err);
}

static int take_msg(struct capture *c, int id, const union any_ds *ds, struct err *err)
{
	static const long waits[] = { SYS_msgrcv, SYS_msgsnd };
	const struct msqid_ds *d = &ds->msg;
	size_t room = MIN(d->__msg_cbytes, (unsigned long)BATCH_DATA - 4096);
	struct sysv_msg *q;
	int rc = 0;

	if (!in_tree(c, d->msg_lspid) && !in_tree(c, d->msg_lrpid) &&
	    !awaited(c, waits, ARRAY_SIZE(waits), id))
		return 0;
	q = arena_push(c->arena, &c->tree->queues, &c->tree->n_queues, sizeof *q);
	if (!q)
		return err_nomem(err);
	*q = (struct sysv_msg){ .id = id,
				.key = d->msg_perm.__key,
				.mode = d->msg_perm.mode & 0777,
				.uid = d->msg_perm.uid,
				.gid = d->msg_perm.gid,
				.max_bytes = d->msg_qbytes };
	for (unsigned i = 0; rc == 0 && i < d->msg_qnum; i++)
		rc = take_message(c, q, i, room, err);
	return rc;
}

/* --- all -------------------------------------------------------------------------------------- */

static const struct ipc_kind kinds[] = {
	{ "shared memory", SYS_shmctl, SHM_INFO, SHM_STAT, take_shm },
	{ "semaphores", SYS_semctl, SEM_INFO, SEM_STAT, take_sem },
	{ "message queue", SYS_msgctl, MSG_INFO, MSG_STAT, take_msg },
};

/* Looks at the objects [from, to) of the kernel's table. */
static int look(struct capture *c, const struct ipc_kind *k, int from, int to, struct err *err)
{
	struct batch *b = c->subjects[0].batch;
	CLEANUP_FREE union any_ds *found = calloc(PER_BATCH, sizeof *found);
	uint64_t at[PER_BATCH];
	unsigned call[PER_BATCH];
	int id[PER_BATCH], n = to - from, rc;

	if (!found)
		return err_nomem(err);
	batch_start(b);
	for (int i = 0; i < n; i++)
		at[i] = ctl(b, k, from + i, k->stat, batch_out(b, sizeof(union any_ds)), &call[i]);
	rc = batch_run(b, c->subjects[0].pid, err);
	if (rc < 0)
		return rc;
	for (int i = 0; i < n; i++) {
		id[i] = (int)batch_ret(b, call[i]);
		memcpy(&found[i], batch_result(b, at[i]), sizeof found[i]);
	}
	for (int i = 0; rc == 0 && i < n; i++)
		if (id[i] >= 0) /* else none is there, or it is not for the job to look at */
			rc = k->take(c, id[i], &found[i], err);
	return rc;
}

/* Every mapped segment must have been found, or it could not be made again. */
static int check_found(const struct capture *c, struct err *err)
{
	for (unsigned i = 0; i < c->tree->n_spaces; i++) {
		const struct space *s = &c->tree->spaces[i];
		bool found = false;

		if (!s->name || strncmp(s->name, "System V shared memory ", 23))
			continue;
		for (unsigned k = 0; k < c->tree->n_shms; k++)
			found |= c->tree->shms[k].space == s->id;
		if (found)
			continue;
		(void)err_set(err, -EOPNOTSUPP,
			      "pid %d: %s belongs to another IPC namespace, or may not be "
			      "looked at; that is not supported",
			      c->subjects[0].process->pid, s->name);
		return err_hint(err, "run ckpt-run inside of that namespace, as its owner");
	}
	return 0;
}

int sysv_capture(struct capture *c, struct err *err)
{
	struct batch *b = c->subjects[0].batch;
	unsigned call[ARRAY_SIZE(kinds)];
	int highest[ARRAY_SIZE(kinds)], rc;

	batch_start(b);
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		(void)ctl(b, &kinds[i], 0, kinds[i].info, batch_out(b, 256), &call[i]);
	rc = batch_run(b, c->subjects[0].pid, err);
	for (unsigned i = 0; rc == 0 && i < ARRAY_SIZE(kinds); i++)
		highest[i] = (int)batch_ret(b, call[i]);
	/* 0 is also what an empty table says */
	for (unsigned i = 0; rc == 0 && i < ARRAY_SIZE(kinds); i++)
		for (int from = 0; rc == 0 && from <= highest[i]; from += PER_BATCH)
			rc = look(c, &kinds[i], from, MIN(highest[i] + 1, from + PER_BATCH), err);
	if (rc == 0)
		rc = check_found(c, err);
	return rc < 0 ? rc : sem_undos_capture(c, err);
}
