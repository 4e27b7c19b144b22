/* SPDX-License-Identifier: BSD-2-Clause */
/* Resolving a state: 60 random increments against a model, broken chains, and the speed of long
 * ones. */
#include "imgtest.h"

#include "image/chain.h"
#include "util/cleanup.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define SPACES     3
#define PAGES      512
#define INCREMENTS 60

/* The model: what each page of the state is, and which increment wrote it. */
struct page_model {
	uint8_t kind; /* 0 absent, RUN_HERE, RUN_ZERO */
	uint8_t how;  /* enum content */
	uint32_t gen;
};

static struct page_model model[SPACES + 1][PAGES];
static uint32_t seed = 42;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

static struct image_writer *begin(struct chain *c, uint32_t seq, uint32_t state, uint32_t parent)
{
	struct image_params params = { .state = test_id(state), .seq = seq, .threads = 2 };
	struct image_writer *w;
	struct err err = { 0 };
	char name[32];

	if (parent)
		params.parent = test_id(parent);
	(void)snprintf(name, sizeof name, "%06u.img", seq);
	OK(image_writer_open(chain_dirfd(c), name, &params, &w, &err), &err);
	return w;
}

static void commit(struct image_writer *w)
{
	struct arena *a = arena_new();
	struct err err = { 0 };

	OK(image_writer_commit(w, test_tree(a), NULL, &err), &err);
	arena_free(a);
}

/* Changes the model's page at random and writes what the image must say of it. */
static void step_page(struct image_writer *w, uint32_t space, uint32_t page, uint32_t gen,
		      bool full)
{
	struct page_model *m = &model[space][page];
	uint8_t data[CKPT_PAGE_SIZE];
	struct err err = { 0 };
	bool written = true;

	switch (rnd(full ? 4 : 20)) {
	case 0:
		*m = (struct page_model){ RUN_HERE, CONTENT_RANDOM, gen };
		break;
	case 1:
		*m = (struct page_model){ RUN_HERE, CONTENT_TEXT, gen };
		break;
	case 2:
		*m = (struct page_model){ RUN_ZERO, CONTENT_ZERO, gen };
		break;
	case 3:
		*m = (struct page_model){ 0 };
		break;
	default:
		written = false;
	}
	if (!m->kind)
		return;
	fill_page(data, (enum content)m->how, space, page, m->gen);
	if (!written)
		OK(image_writer_run(w, space, RUN_PARENT, page, 1, &err), &err);
	else if (m->kind == RUN_ZERO && rnd(2))
		OK(image_writer_run(w, space, RUN_ZERO, page, 1, &err), &err);
	else
		OK(put_page(w, space, page, data, &err), &err);
}

static void step(struct chain *c, uint32_t n)
{
	bool full = n == 1 || n == 40;
	struct image_writer *w = begin(c, n, n, full ? 0 : n - 1);

	for (uint32_t s = 1; s <= SPACES; s++)
		for (uint32_t p = 0; p < (s == 3 ? 256 : PAGES); p++)
			step_page(w, s, p, n, full);
	commit(w);
}

static void check_page(const struct resolved *res, const struct resolved_run *run, uint32_t space,
		       uint64_t page)
{
	static uint8_t buf[IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE], tmp[IMAGE_BLOCK_SCRATCH];
	const struct page_model *m = &model[space][page];
	struct image_reader *r = resolved_image(res, run->image);
	uint8_t want[CKPT_PAGE_SIZE];
	struct err err = { 0 };
	uint32_t block, at;

	CHECK(run->run.kind == m->kind);
	if (m->kind != RUN_HERE)
		return;
	image_reader_seek(r, &run->run, page - run->run.page, &block, &at);
	CHECK(at < image_reader_block_pages(r, block));
	OK(image_reader_block(r, block, buf, tmp, &err), &err);
	fill_page(want, (enum content)m->how, space, page, m->gen);
	CHECK(!memcmp(want, buf + (size_t)at * CKPT_PAGE_SIZE, sizeof want));
}

static void check_state(const struct resolved *res)
{
	for (uint32_t s = 1; s <= SPACES; s++) {
		unsigned n;
		const struct resolved_run *runs = resolved_runs(res, s, &n);
		uint64_t next = 0;

		for (unsigned i = 0; i < n; i++) {
			CHECK(runs[i].run.space == s && runs[i].run.page >= next &&
			      runs[i].run.npages);
			for (; next < runs[i].run.page; next++)
				CHECK(!model[s][next].kind);
			for (; next < runs[i].run.page + runs[i].run.npages; next++)
				check_page(res, &runs[i], s, next);
		}
		for (; next < PAGES; next++)
			CHECK(!model[s][next].kind);
	}
}

static struct resolved *resolve(struct chain *c, const char *name)
{
	struct resolved *res;
	struct err err = { 0 };

	OK(chain_resolve(c, name, &res, &err), &err);
	return res;
}

static void increments(void)
{
	struct chain *c;
	struct resolved *res;
	struct err err = { 0 };
	char name[32];
	unsigned n;

	OK(chain_open("m.ckpt", CHAIN_CREATE, &c, &err), &err);
	for (uint32_t i = 1; i <= INCREMENTS; i++) {
		step(c, i);
		(void)snprintf(name, sizeof name, "%06u.img", i);
		res = resolve(c, name);
		CHECK(resolved_n_images(res) == (i < 40 ? i : i - 39));
		check_state(res);
		CHECK(!resolved_runs(res, 4, &n) && n == 0);
		resolved_free(res);
	}
	OK(resolve_file("m.ckpt/000060.img", &res, &err), &err);
	check_state(res);
	resolved_free(res);
	CHECK(chdir("m.ckpt") == 0);
	OK(resolve_file("000060.img", &res, &err), &err);
	CHECK(chdir("..") == 0);
	check_state(res);
	resolved_free(res);
	/* images are known by their ids: the names do not matter */
	CHECK(rename("m.ckpt/000050.img", "m.ckpt/other.img") == 0);
	res = resolve(c, "000060.img");
	check_state(res);
	resolved_free(res);
	CHECK(unlink("m.ckpt/other.img") == 0);
	CHECK(chain_resolve(c, "000060.img", &res, &err) == -ENOENT &&
	      err.exit_status == EXIT_BAD_IMAGE);
	CHECK_MSG(&err, "image 'm.ckpt/000051.img': its parent (state abcd0000...) is missing");
	chain_free(c);
}

static void refuse(struct chain *c, const char *name, int code, const char *msg)
{
	struct resolved *res;
	struct err err = { 0 };

	CHECK(chain_resolve(c, name, &res, &err) == code && err.exit_status == EXIT_BAD_IMAGE);
	CHECK_MSG(&err, msg);
}

static void broken(void)
{
	uint8_t page[CKPT_PAGE_SIZE] = { 1 };
	struct image_writer *w;
	struct resolved *res;
	struct err err = { 0 };
	struct chain *c;

	OK(chain_open("b.ckpt", CHAIN_CREATE, &c, &err), &err);
	for (uint32_t i = 1; i <= 3; i++) /* 1 -> 3 -> 2 -> 1 */
		commit(begin(c, i, i, i == 1 ? 3 : i - 1));
	refuse(c, "000002.img", -ELOOP, "circle");
	commit(begin(c, 4, 4, 4));
	refuse(c, "000004.img", -ELOOP, "circle");
	commit(begin(c, 5, 5, 3));
	refuse(c, "000005.img", -ELOOP, "circle");

	w = begin(c, 10, 10, 0);
	OK(put_page(w, 1, 100, page, &err), &err);
	OK(put_page(w, 1, 102, page, &err), &err);
	commit(w);
	w = begin(c, 11, 11, 10);
	OK(image_writer_run(w, 1, RUN_PARENT, 100, 3, &err), &err);
	commit(w);
	refuse(c, "000011.img", -EBADMSG,
	       "b.ckpt/000011.img': page 0x65 of space 1 is said to be as in its parent");
	w = begin(c, 12, 12, 10);
	OK(image_writer_run(w, 2, RUN_PARENT, 100, 1, &err), &err);
	commit(w);
	refuse(c, "000012.img", -EBADMSG, "page 0x64 of space 2");
	w = begin(c, 13, 13, 10);
	OK(image_writer_run(w, 1, RUN_PARENT, 102, 2, &err), &err);
	commit(w);
	refuse(c, "000013.img", -EBADMSG, "page 0x67 of space 1");
	/* a parent that is there and damaged says so */
	w = begin(c, 14, 14, 10);
	OK(image_writer_run(w, 1, RUN_PARENT, 102, 1, &err), &err);
	commit(w);
	res = resolve(c, "000014.img");
	resolved_free(res);
	CHECK(truncate("b.ckpt/000010.img", 5000) == 0);
	refuse(c, "000014.img", -EBADMSG,
	       "image 'b.ckpt/000014.img' needs its parent: image 'b.ckpt/000010.img' is "
	       "truncated");
	chain_free(c);
}

/* Of work: how long a busy machine takes for it says nothing. */
static double seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* 100 images of 100,000 runs each, nearly all of which lead to the bottom: must stay far from
 * quadratic. */
static void long_and_scattered(void)
{
	struct image_writer *w;
	struct resolved *res;
	struct err err = { 0 };
	struct chain *c;
	double start;
	unsigned n;

	OK(chain_open("l.ckpt", CHAIN_CREATE, &c, &err), &err);
	w = begin(c, 1, 1, 0);
	for (uint64_t p = 0; p < 200000; p += 2)
		OK(image_writer_run(w, 1, RUN_ZERO, p, 1, &err), &err);
	commit(w);
	for (uint32_t i = 2; i <= 100; i++) {
		w = begin(c, i, i, i - 1);
		for (uint64_t p = 0; p < 200000; p += 2)
			OK(image_writer_run(w, 1, p == i * 20 ? RUN_ZERO : RUN_PARENT, p, 1, &err),
			   &err);
		commit(w);
	}
	start = seconds();
	res = resolve(c, "000100.img");
	CHECK(resolved_runs(res, 1, &n) && n == 100000 && resolved_n_images(res) == 100);
	CHECK(seconds() - start < 20); /* takes well under one; quadratic would take hours */
	resolved_free(res);
	chain_free(c);
}

int main(void)
{
	test_dir();
	increments();
	broken();
	long_and_scattered();
	return 0;
}
