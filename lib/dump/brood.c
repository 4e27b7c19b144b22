/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * While processes are being stopped, the children of those that are: each of its threads has a list
 * of its own in /proc, which takes as long to read as the thread takes to be stopped. So somebody
 * else reads them, on another CPU (dump/scout.h).
 */
#include "dump/internal.h"
#include "proc/probe.h"
#include "util/cleanup.h"

#include <unistd.h>

/* For fewer processes it is not worth the waking (CKPT_WITHOUT=worth_asking: it is). */
#define BROOD_LEAST 8u
#define BROOD_MOST  4096u

struct brood {
	struct scout *scout;
	struct freeze_reader reader;
	atomic_uint n;
	pid_t pids[BROOD_MOST];
	unsigned at[BROOD_MOST]; /* of process number i; 0: nobody looks, else a task + 1 */
};

static int run(void *arg, unsigned i, struct arena *a, void **ret, struct err *err)
{
	const struct brood *b = arg;
	struct pid_list *l = arena_alloc(a, sizeof *l);
	CLEANUP_FD int dirfd = -1;
	int rc = l ? proc_open_pid(b->pids[i], &dirfd, err) : err_nomem(err);

	if (rc == 0)
		rc = proc_children(dirfd, a, &l->pids, &l->n, err);
	if (rc == 0)
		*ret = l;
	return rc;
}

static void look(void *arg, unsigned i, pid_t pid)
{
	struct brood *b = arg;
	unsigned n = atomic_load(&b->n);

	if (i >= BROOD_MOST || n == BROOD_MOST)
		return;
	b->pids[n] = pid;
	b->at[i] = n + 1;
	atomic_store(&b->n, n + 1);
}

static const struct pid_list *take(void *arg, unsigned i)
{
	struct brood *b = arg;

	return i < BROOD_MOST && b->at[i] ? scout_take(b->scout, b->at[i] - 1) : NULL;
}

void brood_new(struct dumper *d)
{
	struct brood *b;

	if ((d->job->last_processes < BROOD_LEAST && !probe_without("worth_asking")) ||
	    sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return;
	b = calloc(1, sizeof *b);
	if (!b)
		return;
	b->scout = scout_new(0);
	b->reader = (struct freeze_reader){ .look = look, .take = take, .arg = b };
	d->brood = b;
	if (b->scout)
		d->freeze.reader = &b->reader;
}

void brood_begin(struct dumper *d)
{
	struct brood *b = d->brood;

	if (b)
		scout_begin(b->scout, &(struct scout_work){ .n = BROOD_MOST,
							    .run = run,
							    .arg = b,
							    .there = &b->n,
							    .apart = true });
}

void brood_end(struct dumper *d)
{
	if (d->brood)
		scout_stop(d->brood->scout);
}

void brood_free(struct dumper *d)
{
	if (d->brood)
		(void)scout_free(d->brood->scout);
	free(d->brood);
	d->brood = NULL;
}
