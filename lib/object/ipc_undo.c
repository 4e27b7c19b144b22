/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IPC objects outlive processes, so that a restart that fails must take back those that it has made
 * in our namespace. What was there before it began is not touched. (In an IPC namespace of its own
 * they go with it, and none of ours was missing and then there.)
 */
#include "object/mqueues.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

union semun {
	int val;
	struct semid_ds *buf;
};

static bool shm_there(int id)
{
	struct shmid_ds ds;

	return shmctl(id, IPC_STAT, &ds) == 0 || errno == EACCES;
}

static bool sem_there(int id)
{
	struct semid_ds ds;

	return semctl(id, 0, IPC_STAT, (union semun){ .buf = &ds }) >= 0 || errno == EACCES;
}

static bool queue_there(int id)
{
	struct msqid_ds ds;

	return msgctl(id, IPC_STAT, &ds) == 0 || errno == EACCES;
}

static bool mqueue_there(const char *name)
{
	mqd_t q = name ? mq_open(name, O_RDONLY | O_CLOEXEC) : -1;

	if (q >= 0)
		(void)mq_close(q);
	return q >= 0 || errno != ENOENT;
}

/* In the order of the tables: segments, semaphores, queues, files. */
int ipc_note(struct rebuild *rb, struct err *err)
{
	const struct tree *t = rb->tree;
	bool *b;

	if (!ipc_any(t))
		return 0;
	b = arena_array(rb->arena, t->n_shms + t->n_sems + t->n_queues + t->n_files, sizeof *b);
	if (!b)
		return err_nomem(err);
	rb->ipc_there = b;
	for (unsigned i = 0; i < t->n_shms; i++)
		*b++ = shm_there(t->shms[i].id);
	for (unsigned i = 0; i < t->n_sems; i++)
		*b++ = sem_there(t->sems[i].id);
	for (unsigned i = 0; i < t->n_queues; i++)
		*b++ = queue_there(t->queues[i].id);
	for (unsigned i = 0; i < t->n_files; i++)
		*b++ = t->files[i].kind != FILE_MQUEUE || mqueue_of(&t->files[i])->removed ||
		       mqueue_there(t->files[i].path);
	return 0;
}

void ipc_undo(const struct rebuild *rb)
{
	const struct tree *t = rb->tree;
	const bool *b = rb->ipc_there;

	if (!b)
		return;
	for (unsigned i = 0; i < t->n_shms; i++)
		if (!*b++)
			(void)shmctl(t->shms[i].id, IPC_RMID, NULL);
	for (unsigned i = 0; i < t->n_sems; i++)
		if (!*b++)
			(void)semctl(t->sems[i].id, 0, IPC_RMID, (union semun){ 0 });
	for (unsigned i = 0; i < t->n_queues; i++)
		if (!*b++)
			(void)msgctl(t->queues[i].id, IPC_RMID, NULL);
	for (unsigned i = 0; i < t->n_files; i++)
		if (!*b++ && t->files[i].path)
			(void)mq_unlink(t->files[i].path);
}
