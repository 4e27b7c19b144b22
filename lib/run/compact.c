/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction. The oldest state that is to be kept may stand on many increments that nobody will ask
 * for by themselves. When those take more room than a full image of it would, they are merged into
 * one (image/merge.h), as ckpt-merge --at does: killed at any instant that leaves a chain that
 * restarts. To wait for that much bounds the cost: no byte that a checkpoint wrote is written more
 * than about once again.
 *
 * It is done by a thread that looks at the chain through an object of its own, and steps back
 * behind the job. The checkpoint thread goes on meanwhile; all that both do to the chain is to
 * remove images that nothing needs, and neither minds if the other was first.
 */
#include "run/compact.h"

#include "image/merge.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define LOG_ROOM "run"
/* Fewer are not worth an fsync of their own. */
#define MIN_INCREMENTS 8

struct compactor {
	char *path;
	const struct settings *settings;
	pthread_t thread;
	bool started; /* the thread is there to be joined */
	atomic_bool busy;
	volatile sig_atomic_t stop;
	uint64_t seq;   /* what to merge */
	struct err err; /* the thread's until it is not busy any more */
};

static const struct id128 none;

static const struct chain_entry *find_state(const struct chain *c, const struct id128 *state)
{
	for (unsigned i = 0; i < chain_count(c); i++)
		if (chain_entry(c, i)->readable &&
		    !memcmp(&chain_entry(c, i)->state, state, sizeof *state))
			return chain_entry(c, i);
	return NULL;
}

/* The oldest state that is to be kept. */
static const struct chain_entry *oldest_kept(const struct chain *c, unsigned keep)
{
	const struct chain_entry *oldest = NULL;

	for (unsigned i = chain_count(c); i-- > 0 && keep;)
		if (chain_entry(c, i)->complete) {
			oldest = chain_entry(c, i);
			keep--;
		}
	return oldest;
}

uint64_t compact_choose(const struct chain *chain, unsigned keep)
{
	const struct chain_entry *into = oldest_kept(chain, MAX(keep, 1u)), *e = into;
	uint64_t bytes = 0;
	unsigned n = 0;

	for (; e && memcmp(&e->parent, &none, sizeof none) && n < chain_count(chain); n++) {
		bytes += e->file_bytes;
		e = find_state(chain, &e->parent);
	}
	return e && n >= MIN_INCREMENTS && bytes >= e->file_bytes ? into->seq : 0;
}

static void free_chain(struct chain **c)
{
	chain_free(*c);
}

static void free_resolved(struct resolved **r)
{
	resolved_free(*r);
}

static int write_full(struct compactor *c, struct chain *chain, const char *name, struct err *err)
{
	CLEANUP(free_resolved) struct resolved *r = NULL;
	const struct merge_progress progress = { .stop = &c->stop };
	struct image_params params;
	struct image_writer *w;
	int rc = chain_resolve(chain, name, &r, err);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < resolved_n_images(r); i++)
		image_reader_direct(resolved_image(r, i));
	merge_params(r, &params);
	params.compress = c->settings->compress;
	params.direct = params.modest = 1;
	rc = image_writer_open(chain_dirfd(chain), name, &params, &w, err);
	if (rc < 0)
		return rc;
	image_writer_background(w);
	return merge_write(r, w, &progress, NULL, err);
}

static int compact(struct compactor *c, struct err *err)
{
	CLEANUP(free_chain) struct chain *chain = NULL;
	const struct chain_entry *e;
	unsigned removed = 0;
	char name[32];
	int rc = fault_point("compact-begin", err);

	if (rc == 0)
		rc = chain_open(c->path, CHAIN_READ, &chain, err);
	if (rc == 0)
		rc = chain_scan(chain, err);
	if (rc < 0)
		return rc;
	e = chain_find(chain, c->seq);
	if (!e || !e->complete)
		return 0; /* superseded since */
	memcpy(name, e->name, sizeof name);
	rc = write_full(c, chain, name, err);
	if (rc == 0)
		rc = fault_point("compact-tidy", err);
	if (rc == 0)
		rc = chain_scan(chain, err);
	if (rc == 0)
		rc = merge_tidy(chain, c->seq, &removed, err);
	log_debug("compacted into %s: %d, %u removed", name, rc, removed);
	return rc;
}

static void *thread_main(void *arg)
{
	struct compactor *c = arg;
	int rc;

	io_step_back(gettid());
	rc = compact(c, &c->err);
	if (rc == 0 || c->stop)
		err_clear(&c->err);
	atomic_store(&c->busy, false);
	return NULL;
}

int compactor_new(const struct chain *chain, const struct settings *settings,
		  struct compactor **ret, struct err *err)
{
	struct compactor *c = calloc(1, sizeof *c);

	if (c)
		c->path = strdup(chain_path(chain));
	if (!c || !c->path) {
		free(c);
		return err_nomem(err);
	}
	c->settings = settings;
	*ret = c;
	return 0;
}

static void join(struct compactor *c)
{
	if (c->started)
		(void)pthread_join(c->thread, NULL);
	c->started = false;
}

void compactor_consider(struct compactor *c, const struct chain *chain, struct err *ret_trouble)
{
	if (atomic_load(&c->busy))
		return;
	join(c);
	if (c->err.code < 0)
		*ret_trouble = c->err;
	err_clear(&c->err);
	c->seq = compact_choose(chain, c->settings->keep);
	if (!c->seq)
		return;
	atomic_store(&c->busy, true);
	c->started = pthread_create(&c->thread, NULL, thread_main, c) == 0;
	atomic_store(&c->busy, c->started);
}

void compactor_free(struct compactor *c)
{
	if (!c)
		return;
	c->stop = 1;
	join(c);
	free(c->path);
	free(c);
}
