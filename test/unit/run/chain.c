/* SPDX-License-Identifier: BSD-2-Clause */
/* Chains: claimed for a new job, thinned out after a checkpoint, picked from for a restart. */
#include "../check.h"
#include "fake.h"

#include "run/attempt.h"
#include "run/claim.h"
#include "run/pick.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

static const struct settings defaults = {
	.full_every = 4, .incremental = 1, .keep = 2, .tracker = (char *)"auto"
};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* Takes n checkpoints through the checkpoint thread. */
static void take(struct chain *c, unsigned n, bool full, bool replace)
{
	struct checkpointer *cp;
	struct attempt a;
	struct err err = { 0 };

	fake.want_full = false;
	fake.since_full = 0;
	CHECK(checkpointer_new(getpid(), c, &defaults, full, &cp, &err) == 0);
	if (replace)
		checkpointer_replace(cp);
	for (unsigned i = 0; i < n; i++) {
		checkpointer_start(cp, 0);
		checkpointer_take(cp, &a);
		CHECK_STR(a.err.msg, "");
		CHECK_INT(a.rc, 0);
		CHECK_INT(a.retain.code, 0);
	}
	checkpointer_free(cp);
	CHECK(fake.want_full == full);
}

static void damage(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0 && pwrite(fd, "XX", 2, 2) == 2);
	(void)close(fd);
}

static void test_retention(void)
{
	struct claim c;
	struct err err = { 0 };

	CHECK(claim_chain(&c, "r", false, false, &err) == 0);
	take(c.chain, 4, false, false);
	CHECK(exists("r/000001.img") && exists("r/000004.img"));
	/* the state before is still the old family's: all of it is needed */
	take(c.chain, 1, true, false);
	CHECK(exists("r/000001.img") && exists("r/000005.img"));
	take(c.chain, 1, true, false);
	CHECK(!exists("r/000001.img") && !exists("r/000004.img") && exists("r/000005.img") &&
	      exists("r/000006.img"));
	claim_release(&c);
	CHECK(exists("r/000006.img"));
}

static void test_claim(void)
{
	struct claim c, other;
	struct err err = { 0 };

	/* nothing came of it: nothing is left */
	CHECK(claim_chain(&c, "x", false, false, &err) == 0 && c.created);
	CHECK(claim_chain(&other, "x", false, false, &err) == -EBUSY);
	CHECK_HAS(err.msg, "chain 'x' is in use by");
	claim_release(&other);
	CHECK(exists("x"));
	claim_release(&c);
	CHECK(!exists("x"));
	/* but a directory that was there stays */
	CHECK(mkdir("y", 0700) == 0 && claim_chain(&c, "y", false, false, &err) == 0 && !c.created);
	take(c.chain, 3, false, false);
	claim_release(&c);
	CHECK(exists("y/000003.img"));
	/* unfinished */
	CHECK(claim_chain(&c, "y", false, false, &err) == -EEXIST);
	CHECK_STR(err.msg, "chain 'y' holds a job that has not finished");
	CHECK_STR(err.hint, "'ckpt-restart y' goes on with it, --overwrite starts over");
	claim_release(&c);
	CHECK(exists("y/000003.img"));
	/* started over, but not before there is something new */
	CHECK(claim_chain(&c, "y", true, true, &err) == 0 && c.replace);
	CHECK(exists("y/000003.img"));
	take(c.chain, 1, false, true);
	CHECK(!exists("y/000003.img") && exists("y/000004.img"));
	CHECK(chain_set_finished(c.chain, "exit 0", &err) == 0);
	claim_release(&c);
	/* finished: free for the next */
	CHECK(claim_chain(&c, "y", false, false, &err) == 0 && !c.replace);
	CHECK(!exists("y/000004.img") && !exists("y/finished"));
	take(c.chain, 1, false, false);
	claim_release(&c);
	CHECK(claim_chain(&c, "y", true, false, &err) == 0 && !exists("y/000001.img"));
	claim_release(&c);
	CHECK(claim_chain(&c, "no/such/place", false, false, &err) == -ENOENT && !c.chain);
	claim_release(&c);
}

static char warnings[4096];

static void note(void *arg, const char *msg)
{
	(void)arg;
	(void)strncat(strncat(warnings, msg, sizeof warnings / 2), "\n", 2);
}

static void expect_pick(const char *path, struct pick_opts o, uint64_t seq)
{
	struct err err = { 0 };
	struct pick p;

	warnings[0] = '\0';
	o.warn = note;
	if (pick_open(&p, path, &o, &err) < 0 || pick_take(&p, &o, &err) < 0) {
		fprintf(stderr, "%s: %s\n", path, err.msg);
		exit(1);
	}
	CHECK_INT(p.seq, seq);
	CHECK_INT(p.tree->processes[0].pid, 9);
	pick_fini(&p);
}

static void expect_refusal(const char *path, struct pick_opts o, int status, const char *msg)
{
	struct err err = { 0 };
	struct pick p;
	int rc;

	warnings[0] = '\0';
	o.warn = note;
	rc = pick_open(&p, path, &o, &err);
	if (rc == 0)
		rc = pick_take(&p, &o, &err);
	CHECK(rc < 0);
	CHECK_HAS(err.msg, msg);
	CHECK_INT(err.exit_status, status);
	pick_fini(&p);
}

static void test_pick(void)
{
	const struct pick_opts newest = { .at = -1 }, second = { .at = 2 }, ninth = { .at = 9 };
	const struct pick_opts force = { .at = -1, .force = true },
			       trust = { .at = -1, .trust = true };
	struct claim c;
	struct err err = { 0 };

	expect_refusal("p", newest, 0, "cannot open 'p'");
	CHECK(mkdir("p", 0700) == 0);
	expect_refusal("p", newest, EXIT_BAD_IMAGE, "holds no image: no checkpoint was taken");
	fake.n_steps = 0;
	CHECK(claim_chain(&c, "p", false, false, &err) == 0);
	take(c.chain, 4, false, false);
	expect_refusal("p", newest, 0, "in use by");
	claim_release(&c);
	expect_pick("p", newest, 4);
	expect_pick("p", second, 2);
	expect_pick("p/000003.img", newest, 3);
	expect_refusal("p", ninth, EXIT_BAD_IMAGE, "chain 'p' holds no image with number 9");
	expect_refusal("p/000003.img", second, 0, "--at goes with a chain");

	/* by itself, away from its chain */
	CHECK(mkdir("alone", 0700) == 0 && link("p/000001.img", "alone/000001.img") == 0);
	expect_pick("alone/000001.img", newest, 1);
	CHECK(link("p/000002.img", "orphan.img") == 0);
	expect_refusal("orphan.img", newest, EXIT_BAD_IMAGE, "");

	/* finished */
	CHECK(claim_chain(&c, "p", true, true, &err) == 0 &&
	      chain_set_finished(c.chain, "exit 3", &err) == 0);
	claim_release(&c);
	expect_refusal("p", newest, 0, "the job in 'p' has finished (exit 3)");
	expect_pick("p", second, 2);
	expect_pick("p", force, 4);
	CHECK(unlink("p/finished") == 0);

	/* others could have written it */
	CHECK(chmod("p/000001.img", 0620) == 0);
	expect_refusal("p", newest, 0, "can be written by its group");
	expect_pick("p", trust, 4);
	CHECK(chmod("p/000001.img", 0600) == 0 && chmod("p", 0777) == 0);
	expect_refusal("p", newest, 0, "can be written by everybody");
	CHECK(chmod("p", 0700) == 0);

	/* damaged: the newest complete one, and a word on the others */
	damage("p/000004.img");
	expect_pick("p", newest, 3);
	CHECK_HAS(warnings, "image 'p/000004.img' is passed over: ");
	expect_refusal("p", (struct pick_opts){ .at = 4 }, EXIT_BAD_IMAGE,
		       "cannot restart image 4 of chain 'p'");
	CHECK(unlink("p/000002.img") == 0);
	expect_pick("p", newest, 1);
	CHECK_HAS(warnings, "image 'p/000003.img' is passed over: ");
	damage("p/000001.img");
	expect_refusal("p", newest, EXIT_BAD_IMAGE, "cannot restart image 4 of chain 'p': ");
}

/* Pages turned out bad: the one before is next. */
static void test_fall_back(void)
{
	const struct pick_opts o = { .at = -1, .warn = note };
	struct err err = { 0 };
	struct claim c;
	struct pick p;

	CHECK(claim_chain(&c, "f", false, false, &err) == 0);
	take(c.chain, 2, false, false);
	claim_release(&c);
	CHECK(pick_open(&p, "f", &o, &err) == 0 && pick_take(&p, &o, &err) == 0 && p.seq == 2);
	CHECK(pick_take(&p, &o, &err) == 0 && p.seq == 1);
	CHECK(pick_take(&p, &o, &err) < 0);
	CHECK_INT(err.exit_status, EXIT_BAD_IMAGE);
	CHECK_HAS(err.msg, "holds no other image");
	pick_fini(&p);
}

int main(void)
{
	char dir[] = "/tmp/runchain.XXXXXX";

	(void)umask(022);
	CHECK(mkdtemp(dir) && chdir(dir) == 0);
	(void)alarm(100);
	test_retention();
	test_claim();
	test_pick();
	test_fall_back();
	CHECK(chdir("/") == 0);
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
