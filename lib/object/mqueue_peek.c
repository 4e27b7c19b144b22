/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The messages in a POSIX message queue: capture.
 *
 * They can be looked at only by taking them out. So the job does that, in one batch, which puts all
 * of them back before it ends, whatever becomes of us meanwhile:
 *
 *	mq_timedreceive		n times: length is what it returns, priority it writes
 *	process_vm_readv	of itself: copies lengths and priorities to where ...
 *	mq_timedsend		n times: ... these calls have their arguments
 *
 * Sent in the order in which they were received, they lie as they did. Who waits for messages, or
 * for room, has been taken off the queue by being stopped, and stays so until they are back, even
 * if we vanish (live_hold). Somebody outside of the job could see it empty, or fill it; so a queue
 * that is open there is not looked into, nor one of whose messages somebody wants to be told
 *(mq_notify), since putting back the first would tell him. Such queues must be empty: the
 * checkpoint is tried again.
 */
#include "inject/live.h"
#include "object/mqueues.h"
#include "object/socket.h"
#include "proc/probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_MESSAGES 300
#define PUT_TRIES    200 /* 10 ms apart */
/* Whoever waits changes it, whatever user the process may have become. */
#define SEMAPHORE_MODE 0222

struct iov {
	uint64_t base, len;
};

/* --- others ----------------------------------------------------------------------------------- */

static bool of_the_job(const struct capture *c, pid_t pid)
{
	for (unsigned i = 0; i < c->n_subjects; i++)
		if (c->subjects[i].status.tgid == pid)
			return true;
	/* ckpt-run and its tracer have our duplicates */
	return pid == getpid() || pid == getppid() ||
	       syscall(SYS_kcmp, syscall(SYS_gettid), pid, KCMP_FILES, 0, 0) == 0;
}

static bool has_open(pid_t pid, const struct stat *queue)
{
	char path[32];
	CLEANUP_DIR DIR *d = NULL;
	const struct dirent *e;
	struct stat st;

	(void)snprintf(path, sizeof path, "/proc/%d/fd", pid);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && fstatat(dirfd(d), e->d_name, &st, 0) == 0 &&
		    same_inode(&st, queue))
			return true;
	return false;
}

/* A process outside of the job that has the queue open, as far as we may look; 0: none. */
static pid_t outsider(const struct capture *c, const struct stat *queue)
{
	CLEANUP_DIR DIR *d = opendir("/proc");
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid > 0 && !of_the_job(c, pid) && has_open(pid, queue))
			return pid;
	}
	return 0;
}

/* --- the job's own hands ---------------------------------------------------------------------- */

/*
 * A descriptor in the job for both directions, and proof that a process may read its own memory
 * there. ret_own: it is ours, and the job closes it should we vanish.
 */
static int get_ready(const struct open_file *of, int *ret_fd, bool *ret_own, struct err *err)
{
	const struct subject *s = of->subject;
	const uint64_t token = 0x746e696f706b6368ULL;
	bool own = (of->flags & O_ACCMODE) != O_RDWR;
	unsigned copied, opened = 0;
	struct iov from, to;
	char path[32];
	int rc;

	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", of->fd);
	batch_start(s->batch);
	from = (struct iov){ batch_in(s->batch, &token, sizeof token), sizeof token };
	to = (struct iov){ batch_out(s->batch, sizeof token), sizeof token };
	copied = batch_call(s->batch, NULL, SYS_process_vm_readv, s->status.ns_pid,
			    batch_in(s->batch, &to, sizeof to), 1,
			    batch_in(s->batch, &from, sizeof from), 1, 0);
	if (own)
		opened = batch_call(s->batch, NULL, SYS_open,
				    batch_in(s->batch, path, strlen(path) + 1),
				    O_RDWR | O_NONBLOCK | O_CLOEXEC);
	rc = batch_run(s->batch, s->pid, err);
	if (rc < 0)
		return rc;
	*ret_own = own && batch_ret(s->batch, opened) >= 0;
	*ret_fd = own ? (int)batch_ret(s->batch, opened) : of->fd;
	if (*ret_own)
		rc = batch_undo(s->batch, SYS_close, (uint64_t)*ret_fd, 0, 0, err);
	if (rc == 0 && (*ret_fd < 0 || batch_ret(s->batch, copied) != sizeof token ||
			memcmp(batch_result(s->batch, to.base), &token, sizeof token)))
		rc = -EOPNOTSUPP;
	return rc;
}

static int give_back(const struct subject *s, int fd, struct err *err)
{
	int rc;

	batch_start(s->batch);
	(void)batch_call(s->batch, NULL, SYS_close, fd);
	rc = batch_run(s->batch, s->pid, err);
	return rc < 0 ? rc : batch_undone(s->batch, err);
}

/* Once more those that did not go in: somebody was quicker, and has filled the queue. */
static int put_again(const struct subject *s, int fd, const struct mqueue_message *m,
		     struct err *err)
{
	const struct timespec past = { 0 }, pause = { .tv_nsec = 10000000 };

	for (int i = 0; i < PUT_TRIES; i++) {
		unsigned call;
		uint64_t data;
		int rc;

		batch_start(s->batch);
		data = batch_in(s->batch, m->data.data, m->data.len);
		call = batch_call(s->batch, NULL, SYS_mq_timedsend, fd, data, m->data.len,
				  m->priority, batch_in(s->batch, &past, sizeof past));
		rc = batch_run(s->batch, s->pid, err);
		if (rc < 0 || batch_ret(s->batch, call) >= 0)
			return rc;
		(void)nanosleep(&pause, NULL);
	}
	return err_set(err, -EIO,
		       "pid %d: somebody outside the job has filled its message queue: a message "
		       "is lost",
		       s->process->pid);
}

struct turn {
	unsigned n, receive, send; /* the first call of each */
	uint64_t data, priorities;
};

/* Adds the calls that take n messages out and put them back. */
static void add_turn(struct batch *b, pid_t pid, int fd, size_t size, unsigned n, struct turn *t)
{
	const struct timespec past = { 0 }, pause = { .tv_nsec = 200000000 };
	uint64_t when = batch_in(b, &past, sizeof past);
	struct iov from[2 * MAX_MESSAGES], to[2 * MAX_MESSAGES];

	*t = (struct turn){ .n = n, .receive = 0 };
	t->send = n + 1 + probe_without("haste");
	t->data = batch_out(b, n * size);
	t->priorities = batch_out(b, n * sizeof(uint64_t));
	for (unsigned i = 0; i < n; i++) {
		uint64_t priority = t->priorities + i * sizeof(uint64_t);

		(void)batch_call(b, NULL, SYS_mq_timedreceive, fd, t->data + i * size, size,
				 priority, when);
		from[2 * i] = (struct iov){ batch_ret_address(b, t->receive + i), 8 };
		to[2 * i] = (struct iov){ batch_arg_address(b, t->send + i, 2), 8 };
		from[2 * i + 1] = (struct iov){ priority, 8 };
		to[2 * i + 1] = (struct iov){ batch_arg_address(b, t->send + i, 3), 8 };
	}
	if (probe_without("haste"))
		(void)batch_call(b, NULL, SYS_ppoll, 0, 0, batch_in(b, &pause, sizeof pause), 0, 0,
				 fd); /* for a test to see */
	(void)batch_call(b, NULL, SYS_process_vm_readv, pid, batch_in(b, to, 2 * n * sizeof to[0]),
			 2 * n, batch_in(b, from, 2 * n * sizeof from[0]), 2 * n, 0);
	for (unsigned i = 0; i < n; i++)
		(void)batch_call(b, NULL, SYS_mq_timedsend, fd, t->data + i * size, 0, 0, when);
}

static int keep(struct capture *c, const struct subject *s, const struct turn *t, size_t size,
		struct file_mqueue *d, bool *sent, struct err *err)
{
	for (unsigned i = 0; i < t->n; i++) {
		int64_t len = batch_ret(s->batch, t->receive + i);
		struct mqueue_message *m;

		if (len < 0 || (uint64_t)len > size)
			continue; /* somebody took it */
		m = arena_push(c->arena, &d->messages, &d->n_messages, sizeof *m);
		if (!m)
			return err_nomem(err);
		memcpy(&m->priority, batch_result(s->batch, t->priorities + i * sizeof(uint64_t)),
		       sizeof m->priority);
		if (len && !blob_put(c->arena, &m->data, batch_result(s->batch, t->data + i * size),
				     (size_t)len))
			return err_nomem(err);
		sent[d->n_messages - 1] = batch_ret(s->batch, t->send + i) == 0;
	}
	return 0;
}

/* --- the others ------------------------------------------------------------------------------- */

/*
 * Should we vanish while the messages are out, nobody of the job goes on before they are in again:
 * everybody waits for these semaphores to be removed, and s, which puts the messages back, does
 * that next. ret_set: removed already where this fails.
 */
static int make_semaphores(const struct subject *s, int *ret_set, struct err *err)
{
	unsigned call;
	struct iov from, to;
	/* -1 until there are any */
	int rc = batch_undo(s->batch, SYS_semctl, (uint64_t)-1, 0, IPC_RMID, err);

	if (rc < 0)
		return rc;
	batch_start(s->batch);
	call = batch_call(s->batch, NULL, SYS_semget, IPC_PRIVATE, 1, SEMAPHORE_MODE);
	from = (struct iov){ batch_ret_address(s->batch, call), 8 };
	to = (struct iov){ batch_undo_address(s->batch), 8 };
	(void)batch_call(s->batch, NULL, SYS_process_vm_readv, s->status.ns_pid,
			 batch_in(s->batch, &to, sizeof to), 1,
			 batch_in(s->batch, &from, sizeof from), 1, 0);
	rc = batch_run(s->batch, s->pid, err);
	if (rc == 0)
		rc = (int)batch_ret(s->batch, call);
	if (rc < 0) {
		(void)batch_undone(s->batch, NULL);
		return rc;
	}
	*ret_set = rc;
	return 0;
}

static int hold_others(struct capture *c, const struct subject *s, int set, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < c->n_subjects; i++)
		if (c->subjects[i].remote)
			rc = live_hold(c->subjects[i].remote, set, &c->subjects[i] == s, err);
	return rc;
}

/* Whoever is left removes the semaphores. */
static int remove_semaphores(const struct capture *c, const struct subject *s, int set,
			     struct err *err)
{
	int rc = -ESRCH;

	for (unsigned i = 0; rc < 0 && i <= c->n_subjects; i++) {
		const struct subject *by = i == 0 ? s : &c->subjects[i - 1];

		if (!by->remote)
			continue;
		batch_start(by->batch);
		(void)batch_call(by->batch, NULL, SYS_semctl, set, 0, IPC_RMID);
		rc = batch_run(by->batch, by->pid, i == 0 ? err : NULL);
	}
	return rc < 0 ? rc : batch_undone(s->batch, err);
}

static int release_others(const struct capture *c, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < c->n_subjects; i++)
		if (c->subjects[i].remote) {
			int one = live_release(c->subjects[i].remote, rc < 0 ? NULL : err);

			rc = rc < 0 ? rc : one;
		}
	return rc;
}

/* --- all of it -------------------------------------------------------------------------------- */

static int not_now(const struct open_file *of, struct err *err, const char *why)
{
	return fd_error(of, err, -EAGAIN,
			"the POSIX message queue '%s' holds messages, which cannot be looked at: "
			"%s",
			of->link, why);
}

static int take_turn(struct capture *c, const struct open_file *of, int fd, unsigned n,
		     struct file_mqueue *d, struct err *err)
{
	const struct subject *s = of->subject;
	bool sent[MAX_MESSAGES];
	struct turn t;
	int rc;

	batch_start(s->batch);
	add_turn(s->batch, s->status.ns_pid, fd, d->message_size, n, &t);
	rc = batch_run(s->batch, s->pid, err);
	if (rc == 0)
		rc = keep(c, s, &t, d->message_size, d, sent, err);
	for (unsigned i = 0; rc == 0 && i < d->n_messages; i++)
		if (!sent[i])
			rc = put_again(s, fd, &d->messages[i], err);
	return rc;
}

static int take_turn_alone(struct capture *c, const struct open_file *of, int fd, unsigned n,
			   struct file_mqueue *d, struct err *err)
{
	const struct subject *s = of->subject;
	int set, rc, end;
	char why[64];

	rc = make_semaphores(s, &set, err);
	if (rc == -ENOSPC || rc == -ENOSYS || rc == -EPERM) {
		(void)snprintf(why, sizeof why, "the job cannot make a semaphore: %s",
			       strerrordesc_np(-rc));
		return not_now(of, err, why);
	}
	if (rc < 0)
		return rc;
	rc = hold_others(c, s, set, err);
	if (rc == 0)
		rc = take_turn(c, of, fd, n, d, err);
	end = remove_semaphores(c, s, set, rc < 0 ? NULL : err);
	rc = rc < 0 ? rc : end;
	end = release_others(c, rc < 0 ? NULL : err);
	return rc < 0 ? rc : end;
}

int mqueue_peek(struct capture *c, const struct open_file *of, struct file_mqueue *d, unsigned n,
		struct err *err)
{
	size_t room = n * (d->message_size + 8 + 4 * sizeof(struct iov)) + 4096;
	char why[64];
	bool own = false;
	pid_t other;
	int fd, rc;

	if (d->notify_pid)
		return not_now(of, err, "somebody is to be told of the next (mq_notify)");
	if (n > MAX_MESSAGES || d->message_size > BATCH_DATA || room > BATCH_DATA)
		return not_now(of, err, "there may be more than 190 KiB of them");
	other = outsider(c, &of->st);
	if (other) {
		(void)snprintf(why, sizeof why, "process %d outside the job has it open", other);
		return not_now(of, err, why);
	}
	if (of->carrier >= 0)
		return not_now(of, err, "it is on its way in a socket");
	rc = get_ready(of, &fd, &own, err);
	if (rc == 0)
		rc = take_turn_alone(c, of, fd, n, d, err);
	else if (rc == -EOPNOTSUPP)
		rc = not_now(of, err, "the job may not open it, or not read its own memory");
	if (own) {
		int closed = give_back(of->subject, fd, rc < 0 ? NULL : err);

		rc = rc < 0 ? rc : closed;
	}
	return rc;
}
