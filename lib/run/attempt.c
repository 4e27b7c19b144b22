/* SPDX-License-Identifier: BSD-2-Clause */
/* The checkpoint thread: takes checkpoints one after the other, while the supervisor goes on
 * listening. */
#include "run/attempt.h"

#include "run/compact.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

struct checkpointer {
	pid_t root;
	struct chain *chain;
	const struct settings *settings;
	bool full, replace, adopts;
	struct dump_job *job; /* the thread's */
	struct compactor *compactor;
	int done_fd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wanted;
	bool start, stop;       /* under the lock */
	unsigned flags;         /* handed over with start */
	struct attempt outcome; /* handed back through done_fd */
};

/* Made on first use: what it may have to do to the job must be done by this thread. */
static int need_job(struct checkpointer *c, struct err *err)
{
	int rc;

	if (c->job)
		return 0;
	rc = dump_job_new(c->root, c->chain, c->settings, &c->job, err);
	if (rc == 0 && c->full)
		dump_job_want_full(c->job);
	if (rc == 0 && c->adopts)
		dump_job_adopted(c->job);
	return rc;
}

/* What none of the last `keep` states needs goes. Only after a new image is durable, never instead
 * of one. */
static void retain(struct checkpointer *c, struct attempt *a)
{
	int rc = 0;

	if (c->replace)
		rc = chain_clear_finished(c->chain, &a->retain);
	if (rc == 0)
		rc = chain_scan(c->chain, &a->retain);
	if (rc ==
	    0) /* the new job's first image is full: it needs nothing of what was there before */
		rc = chain_retain(c->chain, c->replace ? 1 : c->settings->keep, &a->retain);
	if (rc == 0)
		c->replace = false;
	if (rc == 0)
		compactor_consider(c->compactor, c->chain, &a->retain);
	if (rc < 0 && a->retain.code >= 0)
		a->retain.code = rc;
}

static uint64_t cpu_of(int who)
{
	struct rusage u;

	if (getrusage(who, &u) < 0)
		return 0;
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

/* Ours, and that of the tracer and of snapshots, which are reaped during an attempt. */
static uint64_t cpu_so_far(void)
{
	return cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN);
}

/* The limits of this system, where nothing better was said. */
static void hint_at_limits(struct err *err)
{
	if (err->code == -EMFILE)
		(void)err_hint(err, "raise the limit of open files, ulimit -n");
	else if (err->code == -ENOMEM)
		(void)err_hint(err,
			       "is there a limit of memory? ulimit -v, or the control group's");
}

static void run_attempt(struct checkpointer *c)
{
	struct attempt *a = &c->outcome;
	uint64_t before = cpu_so_far();

	memset(a, 0, sizeof *a);
	a->rc = need_job(c, &a->err);
	if (a->rc == 0)
		a->rc = dump_checkpoint(c->job, c->flags, &a->result, &a->err);
	a->cpu_ns = cpu_so_far() - before;
	if (a->rc == 0)
		retain(c, a);
	else
		hint_at_limits(&a->err);
}

static void *main_loop(void *arg)
{
	struct checkpointer *c = arg;
	const uint64_t one = 1;

	for (;;) {
		bool stop;

		(void)pthread_mutex_lock(&c->lock);
		while (!c->start && !c->stop)
			(void)pthread_cond_wait(&c->wanted, &c->lock);
		stop = c->stop;
		c->start = false;
		(void)pthread_mutex_unlock(&c->lock);
		if (stop)
			break;
		run_attempt(c);
		(void)io_write_full(c->done_fd, &one, sizeof one);
	}
	dump_job_free(c->job);
	return NULL;
}

/* A soft limit is the job's, which has been started with it; our own work may go up to the hard
 * one. */
static void raise_own_limits(void)
{
	static const int which[] = { RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_DATA };
	struct rlimit lim;

	for (size_t i = 0; i < ARRAY_SIZE(which); i++) {
		if (getrlimit(which[i], &lim) < 0)
			continue;
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(which[i], &lim);
	}
}

int checkpointer_new(pid_t root, struct chain *chain, const struct settings *settings, bool full,
		     struct checkpointer **ret, struct err *err)
{
	struct checkpointer *c = calloc(1, sizeof *c);
	int rc;

	if (!c)
		return err_nomem(err);
	c->root = root;
	c->chain = chain;
	c->settings = settings;
	c->full = full;
	raise_own_limits();
	rc = compactor_new(chain, settings, &c->compactor, err);
	c->done_fd = rc < 0 ? -1 : eventfd(0, EFD_CLOEXEC);
	if (c->done_fd < 0) {
		rc = rc < 0 ? rc : err_set(err, -errno, "cannot make an eventfd: %m");
		compactor_free(c->compactor);
		free(c);
		return rc;
	}
	/*
	 * An arena for each of a checkpoint's threads: when we are killed, one of them may be in
	 * the middle of malloc, and the tracer, which has our memory and lives on to put the job
	 * back as it was, would wait for that lock. A threshold that grows with what was freed
	 * would keep more memory than the work needs.
	 */
	(void)mallopt(M_ARENA_MAX, 64);
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->wanted, NULL);
	rc = -pthread_create(&c->thread, NULL, main_loop, c);
	if (rc < 0) {
		err_set(err, rc, "cannot start the checkpoint thread: %m");
		(void)close(c->done_fd);
		compactor_free(c->compactor);
		free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void checkpointer_replace(struct checkpointer *c)
{
	c->replace = true;
}

void checkpointer_adopts(struct checkpointer *c)
{
	c->adopts = true;
}

int checkpointer_fd(const struct checkpointer *c)
{
	return c->done_fd;
}

static void tell(struct checkpointer *c, bool *what, unsigned flags)
{
	(void)pthread_mutex_lock(&c->lock);
	c->flags = flags;
	*what = true;
	(void)pthread_cond_signal(&c->wanted);
	(void)pthread_mutex_unlock(&c->lock);
}

void checkpointer_start(struct checkpointer *c, unsigned flags)
{
	tell(c, &c->start, flags);
}

void checkpointer_take(struct checkpointer *c, struct attempt *ret)
{
	uint64_t count;

	/* the read orders the thread's writes to outcome before ours of it */
	(void)io_read_full(c->done_fd, &count, sizeof count);
	*ret = c->outcome;
}

void checkpointer_free(struct checkpointer *c)
{
	if (!c)
		return;
	tell(c, &c->stop, 0);
	(void)pthread_join(c->thread, NULL);
	compactor_free(c->compactor);
	(void)pthread_cond_destroy(&c->wanted);
	(void)pthread_mutex_destroy(&c->lock);
	(void)close(c->done_fd);
	free(c);
}
