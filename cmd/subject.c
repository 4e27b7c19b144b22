/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening what ckpt-inspect and ckpt-merge are given: a chain or one image. */
#include "subject.h"

#include "filter/sandbox.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

const char *subject_operand(const struct options *o)
{
	if (o->n_operands == 0)
		options_misuse(o, "which CHAIN or IMAGE?");
	if (o->n_operands > 1)
		options_misuse(o, "unexpected argument '%s'", o->operands[1]);
	return o->operands[0];
}

static int pick_entry(struct subject *s, int64_t at, struct err *err)
{
	s->entry = at < 0 ? chain_newest(s->chain) : chain_find(s->chain, (uint64_t)at);
	if (at >= 0 && !s->entry)
		return err_set(err, -ENOENT, "chain '%s' has no image number %" PRId64, s->path,
			       at);
	if (s->entry)
		(void)snprintf(s->name, sizeof s->name, "%s/%s", s->path, s->entry->name);
	return 0;
}

/* All images of a long chain are open at the same time. */
static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int subject_open(struct subject *s, const char *path, enum chain_mode mode, int64_t at,
		 struct err *err)
{
	struct stat st;
	int rc;

	*s = (struct subject){ .path = path };
	raise_fd_limit();
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	if (!S_ISDIR(st.st_mode)) {
		if (at >= 0)
			return err_set(err, -ENOTDIR,
				       "--at needs a chain, and '%s' is not a folder", path);
		(void)snprintf(s->name, sizeof s->name, "%s", path);
		return 0;
	}
	rc = chain_open(path, mode, &s->chain, err);
	if (rc == 0)
		rc = chain_scan(s->chain, err);
	return rc < 0 ? rc : pick_entry(s, at, err);
}

void subject_fini(struct subject *s)
{
	chain_free(s->chain);
	s->chain = NULL;
}

int subject_no_image(const struct subject *s, struct err *err)
{
	return err_image(err, -ENOENT, "chain '%s' holds no complete image", s->path);
}

int subject_hint_emfile(int rc, struct err *err)
{
	if (rc == -EMFILE)
		err_hint(err, "a chain needs a descriptor for each of its images: raise ulimit -n");
	return rc;
}

int subject_resolve(const struct subject *s, struct resolved **ret, struct err *err)
{
	if (!s->chain)
		return subject_hint_emfile(resolve_file(s->path, ret, err), err);
	if (!s->entry)
		return subject_no_image(s, err);
	return subject_hint_emfile(chain_resolve(s->chain, s->entry->name, ret, err), err);
}

void subject_sandbox(const struct options *o, int profile)
{
	struct err err = { 0 };

	if (sandbox_enter((enum sandbox_profile)profile, &err) < 0 && o->verbose)
		fprintf(stderr, "%s: going on without a sandbox: %s\n", o->spec->program, err.msg);
}
