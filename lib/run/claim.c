/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking a chain for a new job: what is in it already decides. */
#include "run/claim.h"

#include "util/cleanup.h"

#include <fcntl.h>

static int empty_chain(struct claim *c, bool late, struct err *err)
{
	int rc;

	c->replace = late && chain_count(c->chain) > 0;
	if (c->replace)
		return 0;
	/* images first: a chain that is cut short by a crash here is still a finished one */
	rc = chain_clear(c->chain, err);
	if (rc == 0)
		rc = chain_clear_finished(c->chain, err);
	return rc < 0 ? rc : chain_scan(c->chain, err);
}

int claim_chain(struct claim *c, const char *dir, bool overwrite, bool late, struct err *err)
{
	char how[64];
	int rc;

	*c = (struct claim){ .created = faccessat(AT_FDCWD, dir, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
					errno == ENOENT };
	rc = chain_open(dir, CHAIN_CREATE, &c->chain, err);
	if (rc < 0) {
		c->chain = NULL;
		return rc;
	}
	rc = chain_scan(c->chain, err);
	if (rc < 0)
		return rc;
	if (chain_count(c->chain) && !overwrite && !chain_finished(c->chain, how)) {
		rc = err_set(err, -EEXIST, "chain '%s' holds a job that has not finished", dir);
		err_hint(err, "'ckpt-restart %s' goes on with it, --overwrite starts over", dir);
		return rc;
	}
	return empty_chain(c, late, err);
}

static void remove_if_empty(struct claim *c)
{
	struct err ignored;

	if (!c->created || chain_scan(c->chain, &ignored) < 0 || chain_count(c->chain))
		return;
	/* fails, and rightly, when anything but our lock file is in it */
	(void)unlinkat(chain_dirfd(c->chain), "lock", 0);
	(void)rmdir(chain_path(c->chain));
}

void claim_release(struct claim *c)
{
	if (!c->chain)
		return;
	remove_if_empty(c);
	chain_free(c->chain);
	c->chain = NULL;
}
