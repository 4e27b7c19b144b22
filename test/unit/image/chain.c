/* SPDX-License-Identifier: BSD-2-Clause */
/* Chains: lock, finished mark, scan, completeness, retention, clearing, and who may own what is
 * restarted. */
#include "imgtest.h"

#include "image/chain.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* An image of one page; parent 0 = full. */
static void add_image(struct chain *c, uint64_t seq, uint32_t state, uint32_t parent)
{
	struct image_params params = { .state = test_id(state), .seq = seq, .threads = 1 };
	uint8_t page[CKPT_PAGE_SIZE];
	struct arena *a = arena_new();
	struct image_writer *w;
	struct err err = { 0 };
	char name[32];

	if (parent)
		params.parent = test_id(parent);
	(void)snprintf(name, sizeof name, "%06llu.img", (unsigned long long)seq);
	OK(image_writer_open(chain_dirfd(c), name, &params, &w, &err), &err);
	fill_page(page, CONTENT_RANDOM, 1, 0x10000, (uint32_t)seq);
	OK(put_page(w, 1, 0x10000, page, &err), &err);
	OK(image_writer_commit(w, test_tree(a), NULL, &err), &err);
	arena_free(a);
}

static struct chain *open_chain(const char *dir, enum chain_mode mode)
{
	struct err err = { 0 };
	struct chain *c;

	OK(chain_open(dir, mode, &c, &err), &err);
	return c;
}

static void scan(struct chain *c)
{
	struct err err = { 0 };

	OK(chain_scan(c, &err), &err);
}

/* "1 2! 4-": complete, readable but incomplete (!), not readable (-). */
static void check_list(struct chain *c, const char *want)
{
	char have[256] = "";

	scan(c);
	for (unsigned i = 0; i < chain_count(c); i++) {
		const struct chain_entry *e = chain_entry(c, i);
		size_t n = strlen(have);

		CHECK(e->complete || e->why.msg[0]);
		(void)snprintf(have + n, sizeof have - n, "%s%llu%s", n ? " " : "",
			       (unsigned long long)e->seq,
			       e->complete   ? ""
			       : e->readable ? "!"
					     : "-");
	}
	if (strcmp(have, want))
		test_fail(__FILE__, __LINE__, want, have);
}

static void locking(void)
{
	struct chain *c = open_chain("a.ckpt", CHAIN_CREATE), *d;
	struct err err = { 0 };
	char want[64];
	struct stat st;
	int status;
	pid_t pid;

	CHECK(stat("a.ckpt", &st) == 0 && (st.st_mode & 07777) == 0700);
	CHECK(stat("a.ckpt/lock", &st) == 0 && (st.st_mode & 07777) == 0600);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		OK(chain_open("a.ckpt", CHAIN_READ, &d, &err), &err);
		if (chain_open("a.ckpt", CHAIN_WRITE, &d, &err) != -EBUSY)
			_exit(1);
		(void)snprintf(want, sizeof want, "chain 'a.ckpt' is in use by %s (pid %d)",
			       program_invocation_short_name, getppid());
		CHECK_MSG(&err, want);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	/* what a killed writer left goes, what is not ours stays */
	spill("a.ckpt/.000009.img.tmp", "x", 1);
	spill("a.ckpt/notes", "x", 1);
	chain_free(c);
	c = open_chain("a.ckpt", CHAIN_CREATE);
	CHECK(access("a.ckpt/.000009.img.tmp", F_OK) < 0 && access("a.ckpt/notes", F_OK) == 0);
	chain_free(c);

	CHECK(chain_open("none.ckpt", CHAIN_WRITE, &c, &err) == -ENOENT);
	CHECK_MSG(&err, "cannot open chain 'none.ckpt'");
	CHECK(chain_open("a.ckpt/notes", CHAIN_CREATE, &c, &err) == -ENOTDIR);
	CHECK(chain_open("no/where.ckpt", CHAIN_CREATE, &c, &err) == -ENOENT);
	CHECK_MSG(&err, "cannot create chain 'no/where.ckpt'");
	CHECK(symlink("notes", "a.ckpt/000001.img") == 0); /* never followed */
	c = open_chain("a.ckpt", CHAIN_READ);
	check_list(c, "1-");
	chain_free(c);
}

/* Who takes the lock is killed; one that it started lets go of the lock a moment later. */
static void locking_after_a_kill(void)
{
	struct chain *c;
	siginfo_t info;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		(void)open_chain("k.ckpt", CHAIN_CREATE);
		if (!fork())
			(void)usleep(200000);
		else
			(void)raise(SIGKILL);
		_exit(0);
	}
	CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
	c = open_chain("k.ckpt", CHAIN_CREATE); /* not "is in use" */
	chain_free(c);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

static void finished(void)
{
	struct chain *c = open_chain("f.ckpt", CHAIN_CREATE);
	struct err err = { 0 };
	char how[64];

	CHECK(!chain_finished(c, how));
	OK(chain_set_finished(c, "exit 3", &err), &err);
	CHECK(chain_finished(c, how) == 1 && !strcmp(how, "exit 3"));
	OK(chain_set_finished(c, "signal 9", &err), &err);
	CHECK(chain_finished(c, how) == 1 && !strcmp(how, "signal 9"));
	OK(chain_clear_finished(c, &err), &err);
	OK(chain_clear_finished(c, &err), &err);
	CHECK(!chain_finished(c, how));
	chain_free(c);
}

static void completeness(void)
{
	struct chain *c = open_chain("c.ckpt", CHAIN_CREATE);
	struct err err = { 0 };
	char buf[4];
	int fd;

	scan(c);
	CHECK(chain_next_seq(c) == 1 && !chain_newest(c) && chain_count(c) == 0);
	add_image(c, 1, 11, 0);
	add_image(c, 2, 12, 11);
	add_image(c, 3, 13, 12);
	add_image(c, 5, 15, 14); /* parent missing */
	add_image(c, 6, 16, 15);
	add_image(c, 7, 17, 18); /* a circle */
	add_image(c, 8, 18, 17);
	add_image(c, 9, 19, 18);  /* and one that leads into it */
	add_image(c, 10, 20, 20); /* its own parent */
	check_list(c, "1 2 3 5! 6! 7! 8! 9! 10!");
	CHECK(chain_newest(c)->seq == 3 && chain_next_seq(c) == 11);
	CHECK_MSG(&chain_find(c, 5)->why, "000005.img': its parent is missing");
	CHECK_MSG(&chain_find(c, 6)->why, "its parent 000005.img is not complete");
	CHECK_MSG(&chain_find(c, 8)->why, "circle");
	CHECK(!chain_find(c, 4));
	/* the missing one comes; the same scan object sees it, and damage that came since */
	add_image(c, 4, 14, 13);
	check_list(c, "1 2 3 4 5 6 7! 8! 9! 10!");
	CHECK(chain_newest(c)->seq == 6);
	fd = openat(chain_dirfd(c), "000004.img", O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0 && pread(fd, buf, 1, 20) == 1);
	buf[0] ^= 1;
	CHECK(pwrite(fd, buf, 1, 20) == 1 && close(fd) == 0);
	check_list(c, "1 2 3 4- 5! 6! 7! 8! 9! 10!");
	CHECK_MSG(&chain_find(c, 4)->why, "c.ckpt/000004.img': header at offset 0 is damaged");
	OK(chain_clear(c, &err), &err);
	check_list(c, "");
	CHECK(chain_next_seq(c) == 1);
	chain_free(c);
}

static void retention(void)
{
	struct chain *c = open_chain("r.ckpt", CHAIN_CREATE);
	struct err err = { 0 };

	add_image(c, 1, 1, 0);
	add_image(c, 2, 2, 1);
	add_image(c, 3, 3, 0);
	add_image(c, 4, 4, 3);
	OK(chain_retain(c, 3, &err), &err); /* 2 needs 1 */
	check_list(c, "1 2 3 4");
	OK(chain_retain(c, 2, &err), &err);
	check_list(c, "3 4");
	add_image(c, 5, 5, 4);
	add_image(c, 6, 6, 0);
	add_image(c, 7, 7, 77); /* not complete: counts for nothing, and goes */
	OK(chain_retain(c, 5, &err), &err);
	check_list(c, "3 4 5 6 7!"); /* fewer states than to keep: nothing is removed */
	spill("r.ckpt/000002.img", "CKPTIMG\ndamaged", 15);
	OK(chain_retain(c, 2, &err), &err);
	check_list(c, "2- 3 4 5 6");
	OK(chain_retain(c, 0, &err), &err); /* the newest is never removed */
	check_list(c, "2- 6");
	CHECK(chain_next_seq(c) == 8);
	/* two images of one state, as a killed merge leaves them: the full one is the parent, the
	 * other goes in time */
	add_image(c, 8, 8, 6);
	add_image(c, 9, 8, 0);
	add_image(c, 10, 10, 8);
	OK(chain_retain(c, 1, &err), &err);
	check_list(c, "2- 9 10");
	chain_free(c);
}

static void owner(void)
{
	struct err err = { 0 };
	int fd = open("owned", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	OK(chain_check_owner(fd, "owned", &err), &err);
	CHECK(fchmod(fd, 0644) == 0);
	OK(chain_check_owner(fd, "owned", &err), &err);
	CHECK(fchmod(fd, 0620) == 0 && chain_check_owner(fd, "owned", &err) == -EPERM);
	CHECK_MSG(&err, "'owned' can be written by its group");
	CHECK(strstr(err.hint, "--trust"));
	CHECK(fchmod(fd, 0602) == 0 && chain_check_owner(fd, "owned", &err) == -EPERM);
	CHECK_MSG(&err, "'owned' can be written by everybody");
	CHECK(fchmod(fd, 0600) == 0);
	if (geteuid() == 0) { /* only root can give a file away */
		CHECK(fchown(fd, 12345, 0) == 0 && chain_check_owner(fd, "owned", &err) == -EPERM);
		CHECK_MSG(&err, "belongs to another user (uid 12345)");
	}
	close(fd);
}

/* A long chain, and what came to it since the last scan. */
static void long_chain(void)
{
	struct chain *c = open_chain("s.ckpt", CHAIN_CREATE);

	for (uint32_t i = 1; i <= 200; i++)
		add_image(c, i, i, i - 1);
	scan(c);
	CHECK(chain_count(c) == 200 && chain_newest(c)->seq == 200);
	add_image(c, 201, 201, 200);
	scan(c);
	CHECK(chain_count(c) == 201 && chain_newest(c)->seq == 201);
	CHECK(unlink("s.ckpt/000100.img") == 0);
	scan(c);
	CHECK(chain_newest(c)->seq == 99 && chain_find(c, 101)->readable &&
	      !chain_find(c, 201)->complete);
	chain_free(c);
}

int main(void)
{
	test_dir();
	locking();
	locking_after_a_kill();
	finished();
	completeness();
	retention();
	owner();
	long_chain();
	return 0;
}
