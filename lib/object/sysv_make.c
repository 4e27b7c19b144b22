/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * System V IPC objects: restore. Programs know them by their ids, so these must be the same. Who
 * may choose ids (/proc/sys/kernel/shm_next_id and the like) makes them; that is so for root, and
 * in a new IPC namespace. Objects that outlived the job are taken as they are, and get the recorded
 * content, if nobody uses them.
 */
#include "object/kinds.h"

#include "util/fault.h"
#include "util/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHOICES 100 /* of an id, until it is ours */

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

const struct sysv_shm *sysv_shm_of(const struct tree *t, uint32_t space)
{
	for (unsigned i = 0; i < t->n_shms; i++)
		if (t->shms[i].space == space)
			return &t->shms[i];
	return NULL;
}

static bool sysv_any(const struct tree *t)
{
	return t->n_shms || t->n_sems || t->n_queues;
}

bool ipc_any(const struct tree *t)
{
	for (unsigned i = 0; i < t->n_files; i++)
		if (t->files[i].kind == FILE_MQUEUE)
			return true;
	return sysv_any(t);
}

/* --- in the maker ----------------------------------------------------------------------------- */

static int in_use(const char *what, int id, struct err *err)
{
	err_set(err, -EEXIST, "System V %s %d is in use here, or its key is", what, id);
	err_hint(err, "--pids namespace restarts the job in an IPC namespace of its own");
	return -EEXIST;
}

/* The next object gets this id. */
static int choose_id(const char *kind, const char *what, int id, struct err *err)
{
	char path[64], text[16];
	int rc;

	(void)snprintf(path, sizeof path, "/proc/sys/kernel/%s_next_id", kind);
	(void)snprintf(text, sizeof text, "%d", id);
	rc = io_write_file(-1, path, text);
	if (rc < 0) {
		errno = -rc;
		err_set(err, rc, "cannot make System V %s %d again: its id cannot be chosen: %m",
			what, id);
		err_hint(err, "run as root, or where a user namespace can be had");
	}
	return rc;
}

struct ipc_kind {
	const char *name, *what;
	int (*get)(key_t key, size_t size);
	int (*drop)(int id);
};

static int get_shm(key_t key, size_t size)
{
	return shmget(key, size, IPC_CREAT | IPC_EXCL | 0600);
}

static int drop_shm(int id)
{
	return shmctl(id, IPC_RMID, NULL);
}

static int get_sem(key_t key, size_t size)
{
	return semget(key, (int)size, IPC_CREAT | IPC_EXCL | 0600);
}

static int drop_sem(int id)
{
	return semctl(id, 0, IPC_RMID, (union semun){ 0 });
}

static int get_queue(key_t key, size_t size)
{
	(void)size;
	return msgget(key, IPC_CREAT | IPC_EXCL | 0600);
}

static int drop_queue(int id)
{
	return msgctl(id, IPC_RMID, NULL);
}

static const struct ipc_kind shm_kind = { "shm", "shared memory", get_shm, drop_shm };
static const struct ipc_kind sem_kind = { "sem", "semaphores", get_sem, drop_sem };
static const struct ipc_kind queue_kind = { "msg", "message queue", get_queue, drop_queue };

/*
 * The choice holds for whoever makes one next, in the whole namespace: somebody else may be quicker
 * (and has often let go of it a moment later), or choose at the same time.
 */
static int make_again(const struct ipc_kind *k, int id, key_t key, size_t size, struct err *err)
{
	static const struct timespec moment = { .tv_nsec = 1000000 };
	int got = -1;

	for (unsigned tries = 0; tries < CHOICES; tries++) {
		int rc = choose_id(k->name, k->what, id, err);

		if (rc < 0)
			return rc;
		got = k->get(key, size);
		if (got == id)
			return 0;
		if (got < 0 && errno == EEXIST)
			return in_use(k->what, id, err);
		if (got < 0)
			return err_set(err, -errno, "cannot make System V %s %d again: %m", k->what,
				       id);
		(void)k->drop(got);
		(void)nanosleep(&moment, NULL);
	}
	return err_set(err, -EEXIST, "System V %s %d came as %d", k->what, id, got);
}

static int zero_shm(const struct sysv_shm *s, struct err *err)
{
	void *at = shmat(s->id, NULL, 0);

	if (at == (void *)-1)
		return err_set(err, -errno, "cannot attach System V shared memory %d: %m", s->id);
	memset(at, 0, s->size);
	(void)shmdt(at);
	return 0;
}

static int make_shm(const struct sysv_shm *s, struct err *err)
{
	struct shmid_ds ds;

	if (shmctl(s->id, IPC_STAT, &ds) == 0) {
		if (ds.shm_perm.__key != s->key || ds.shm_segsz != s->size || ds.shm_nattch)
			return in_use("shared memory", s->id, err);
		return zero_shm(s, err);
	}
	return make_again(&shm_kind, s->id, s->key, s->size, err);
}

static int make_sem(struct rebuild *rb, const struct sysv_sem *s, struct err *err)
{
	unsigned n = s->values.len / sizeof(unsigned short);
	struct semid_ds ds;
	union semun arg = { .buf = &ds };
	int rc;

	if (semctl(s->id, 0, IPC_STAT, arg) == 0) {
		if (ds.sem_perm.__key != s->key || ds.sem_nsems != n)
			return in_use("semaphores", s->id, err);
	} else {
		rc = make_again(&sem_kind, s->id, s->key, n, err);
		if (rc < 0)
			return rc;
	}
	arg.array = arena_memdup(rb->arena, s->values.data, s->values.len);
	if (!arg.array)
		return err_nomem(err);
	if (semctl(s->id, 0, SETALL, arg) < 0 ||
	    semctl(s->id, 0, IPC_STAT, (union semun){ .buf = &ds }) < 0)
		return err_set(err, -errno, "cannot set System V semaphores %d: %m", s->id);
	ds.sem_perm.uid = s->uid;
	ds.sem_perm.gid = s->gid;
	ds.sem_perm.mode = (unsigned short)s->mode;
	if (semctl(s->id, 0, IPC_SET, (union semun){ .buf = &ds }) < 0)
		return err_set(err, -errno, "cannot set the owner of System V semaphores %d: %m",
			       s->id);
	return 0;
}

static int put_messages(struct rebuild *rb, const struct sysv_msg *q, struct err *err)
{
	for (unsigned i = 0; i < q->n_messages; i++) {
		const struct sysv_message *m = &q->messages[i];
		struct msgbuf *buf = arena_alloc(rb->arena, sizeof *buf + m->data.len);

		if (!buf)
			return err_nomem(err);
		buf->mtype = m->type;
		memcpy(buf->mtext, m->data.data, m->data.len);
		if (msgsnd(q->id, buf, m->data.len, IPC_NOWAIT) < 0)
			return err_set(err, -errno,
				       "cannot put a message of %u bytes into System V message "
				       "queue %d: %m",
				       m->data.len, q->id);
	}
	return 0;
}

static int make_queue(struct rebuild *rb, const struct sysv_msg *q, struct err *err)
{
	char *drop = arena_alloc(rb->arena, 65536);
	struct msqid_ds ds;
	int rc = 0;

	if (!drop)
		return err_nomem(err);
	if (msgctl(q->id, IPC_STAT, &ds) == 0) {
		if (ds.msg_perm.__key != q->key)
			return in_use("message queue", q->id, err);
		/* what it holds now is of a time that has not been */
		while (msgrcv(q->id, drop, 65536 - 8, 0, IPC_NOWAIT | MSG_NOERROR) >= 0)
			;
	} else {
		rc = make_again(&queue_kind, q->id, q->key, 0, err);
	}
	if (rc == 0)
		rc = put_messages(rb, q, err);
	if (rc < 0 || msgctl(q->id, IPC_STAT, &ds) < 0)
		return rc;
	ds.msg_perm.uid = q->uid;
	ds.msg_perm.gid = q->gid;
	ds.msg_perm.mode = (unsigned short)q->mode;
	if (ds.msg_qbytes < q->max_bytes || q->max_bytes)
		ds.msg_qbytes = q->max_bytes;
	if (msgctl(q->id, IPC_SET, &ds) < 0)
		return err_set(err, -errno,
			       "cannot set the limits of System V message queue %d: %m", q->id);
	return 0;
}

int sysv_make(struct rebuild *rb, struct err *err)
{
	const struct tree *t = rb->tree;
	int rc = sysv_any(t) ? fault_point("sysv_make", err) : 0;

	for (unsigned i = 0; rc == 0 && i < t->n_shms; i++)
		rc = make_shm(&t->shms[i], err);
	for (unsigned i = 0; rc == 0 && i < t->n_sems; i++)
		rc = make_sem(rb, &t->sems[i], err);
	for (unsigned i = 0; rc == 0 && i < t->n_queues; i++)
		rc = make_queue(rb, &t->queues[i], err);
	return rc;
}

/* --- remote ----------------------------------------------------------------------------------- */

/* From the file that was filled with it into the segment, which the process has at `to`. */
static int copy_content(int from, int mem, uint64_t to, uint64_t size, struct err *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(1 << 20);
	off_t at = 0, end;

	if (!buf)
		return err_nomem(err);
	while ((at = lseek(from, at, SEEK_DATA)) >= 0 && (uint64_t)at < size) {
		end = lseek(from, at, SEEK_HOLE);
		while (at < end) {
			size_t len = MIN((size_t)(end - at), (size_t)1 << 20);

			if (pread(from, buf, len, at) != (ssize_t)len ||
			    pwrite(mem, buf, len, (off_t)to + at) != (ssize_t)len)
				return err_set(err, -EIO, "cannot fill System V shared memory: %m");
			at += (off_t)len;
		}
	}
	return 0;
}

static int fill_shm(const struct rebuild *rb, const struct sysv_shm *s, int from, int mem,
		    struct batch *b, pid_t tid, struct err *err)
{
	unsigned call;
	int64_t at;
	int rc;

	(void)rb;
	batch_start(b);
	call = batch_call(b, "attach System V shared memory", SYS_shmat, s->id, 0, 0);
	rc = batch_run(b, tid, err);
	if (rc < 0)
		return rc;
	at = batch_ret(b, call);
	rc = copy_content(from, mem, (uint64_t)at, s->size, err);
	batch_start(b);
	(void)batch_call(b, "detach System V shared memory", SYS_shmdt, at);
	return rc < 0 ? rc : batch_run(b, tid, err);
}

/* Owner, mode; those that were removed go as soon as nobody has them attached. */
static int finish_shm(const struct sysv_shm *s, struct batch *b, pid_t tid, struct err *err)
{
	struct shmid_ds ds = { .shm_perm = { .uid = s->uid, .gid = s->gid } };

	ds.shm_perm.mode = (unsigned short)s->mode;
	batch_start(b);
	(void)batch_call(b, "set the owner of System V shared memory", SYS_shmctl, s->id, IPC_SET,
			 batch_in(b, &ds, sizeof ds));
	if (s->removed)
		(void)batch_call(b, "remove System V shared memory", SYS_shmctl, s->id, IPC_RMID,
				 0);
	return batch_run(b, tid, err);
}

int sysv_put(struct rebuild *rb, int (*get_fd)(void *arg, int maker_fd), void *arg, struct batch *b,
	     pid_t tid, struct err *err)
{
	CLEANUP_FD int mem = -1;
	char path[48];
	int rc = 0;

	if (!rb->tree->n_shms)
		return 0;
	(void)snprintf(path, sizeof path, "/proc/%d/mem", tid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	if (mem < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	for (unsigned i = 0; rc == 0 && i < rb->tree->n_shms; i++) {
		const struct sysv_shm *s = &rb->tree->shms[i];
		int space = space_index(rb->tree, s->space);
		CLEANUP_FD int from = space < 0 ? -1 : get_fd(arg, rb->space_fds[space]);

		if (from < 0)
			return err_set(err, -EINVAL, "no content for System V shared memory %d",
				       s->id);
		rc = fill_shm(rb, s, from, mem, b, tid, err);
		if (rc == 0)
			rc = finish_shm(s, b, tid, err);
	}
	return rc;
}
