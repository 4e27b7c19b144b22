/* SPDX-License-Identifier: BSD-2-Clause */
/* What is remembered of a job between its checkpoints. */
#include "dump/internal.h"
#include "proc/pagemap.h"
#include "proc/probe.h"

#include <stdlib.h>
#include <string.h>

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
	for (unsigned i = 0; i < job->n_keys; i++)
		free(job->keys[i].key);
	free(job->keys);
	free(job->calls);
	free(job->waits);
	hashes_free(job->hashes);
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
