/* SPDX-License-Identifier: BSD-2-Clause */
/* What is remembered of a job between its checkpoints. */
#include "dump/internal.h"
#include "dump/tracing.h"
#include "proc/pagemap.h"
#include "proc/probe.h"
#include "util/hash.h"

#include <stdlib.h>
#include <string.h>

uint32_t dump_space_id(void *arg, const char *key)
{
	struct dump_job *job = arg;
	uint64_t hash = hash64(key, strlen(key));
	struct space_key *more;

	for (unsigned i = 0; i < job->n_keys; i++)
		if (job->keys[i].hash == hash && !strcmp(job->keys[i].key, key)) {
			job->keys[i].used = true;
			return job->keys[i].id;
		}
	more = realloc(job->keys, (job->n_keys + 1) * sizeof *more);
	if (!more)
		return 0;
	job->keys = more;
	more[job->n_keys] = (struct space_key){
		.key = strdup(key), .hash = hash, .id = job->next_space, .used = true
	};
	if (!more[job->n_keys].key)
		return 0;
	job->n_keys++;
	return job->next_space++;
}

/* What was not met at this checkpoint has gone: a job that makes processes all day long leaves a
 * key for each. */
void dump_forget_spaces(struct dump_job *job)
{
	unsigned n = 0;

	for (unsigned i = 0; i < job->n_keys; i++) {
		if (!job->keys[i].used) {
			free(job->keys[i].key);
			continue;
		}
		job->keys[n] = job->keys[i];
		job->keys[n++].used = false;
	}
	job->n_keys = n;
}

int dump_job_new(pid_t root, struct chain *chain, const struct settings *settings,
		 struct dump_job **ret, struct err *err)
{
	struct dump_job *job = calloc(1, sizeof *job);
	int rc;

	if (!job)
		return err_nomem(err);
	*job = (struct dump_job){ .root = root,
				  .chain = chain,
				  .settings = settings,
				  .want_full = true,
				  .next_space = 1 };
	/* probes fork a child: not while a job is stopped */
	(void)probe_get(PROBE_PAGEMAP_SCAN);
	(void)proc_pagemap_has_guard();
	job->tracker = tracker_choose(settings->tracker);
	rc = hashes_new(chain_dirfd(chain), &job->hashes, err);
	if (rc < 0) {
		dump_job_free(job);
		return rc;
	}
	*ret = job;
	return 0;
}

void dump_job_free(struct dump_job *job)
{
	if (!job)
		return;
	tracing_free(job->tracing);
	for (unsigned i = 0; i < job->n_keys; i++)
		free(job->keys[i].key);
	free(job->keys);
	free(job->calls);
	free(job->waits);
	hashes_free(job->hashes);
	watches_forget(&job->watches);
	watched_free(job);
	free(job);
}

void dump_job_adopted(struct dump_job *job)
{
	job->adopted = true;
}

void dump_job_want_full(struct dump_job *job)
{
	job->want_full = true;
}

int dump_tracker_check(const char *name, struct err *err)
{
	return tracker_check(name, err);
}
