/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages given again in later generations: what was given last counts, page by page. */
#include "imgtest.h"

#include "util/arena.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <string.h>

#define PAGES        256u
#define SPACES       3u
#define FIRST(space) ((space) == 1 ? 0x10000u : 0u)

static uint64_t state = 4711;

static unsigned below(unsigned n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(state >> 33) % n;
}

/* What each page should be: a kind, and for RUN_HERE in which generation it was filled. */
struct model {
	uint8_t kind, gen;
};

static void give(struct image_writer *w, uint32_t space, unsigned page, unsigned n, unsigned kind,
		 unsigned gen, struct model *m)
{
	struct err err = { 0 };
	unsigned done = 0;

	while (kind == RUN_HERE && done < n) {
		unsigned len = 1 + below(IMAGE_BLOCK_PAGES), some = MIN(n - done, len);
		uint8_t *buf = image_writer_buffer(w, &err);

		CHECK(buf);
		for (unsigned i = 0; i < some; i++)
			fill_page(buf + (size_t)i * CKPT_PAGE_SIZE,
				  below(9) ? CONTENT_RANDOM : CONTENT_TEXT, space, page + done + i,
				  gen);
		OK(image_writer_submit(w, space, FIRST(space) + page + done, some, &err), &err);
		done += some;
	}
	if (kind != RUN_HERE)
		OK(image_writer_run(w, space, kind, FIRST(space) + page, n, &err), &err);
	for (unsigned i = 0; i < n; i++)
		m[page + i] = (struct model){ (uint8_t)kind, (uint8_t)gen };
}

static void generation(struct image_writer *w, unsigned gen, struct model m[][PAGES])
{
	for (uint32_t space = 1; space <= SPACES; space++) {
		unsigned at = below(40);

		while (at < PAGES) {
			unsigned len = 1 + below(gen ? 30 : 150), kind = below(4);
			unsigned n = MIN(len, PAGES - at);

			if (gen || kind != RUN_NONE)
				give(w, space, at, n, kind, gen, m[space - 1]);
			at += n + below(30);
		}
	}
}

static void check(struct image_reader *r, struct model m[][PAGES], const struct image_totals *t)
{
	uint8_t want[2][CKPT_PAGE_SIZE], got[CKPT_PAGE_SIZE];
	uint64_t n[4] = { 0 };

	for (uint32_t space = 1; space <= SPACES; space++)
		for (unsigned i = 0; i < PAGES; i++) {
			const struct model *x = &m[space - 1][i];

			n[x->kind]++;
			CHECK(read_page(r, space, FIRST(space) + i, got) == x->kind);
			if (x->kind != RUN_HERE)
				continue;
			fill_page(want[0], CONTENT_RANDOM, space, i, x->gen);
			fill_page(want[1], CONTENT_TEXT, space, i, x->gen);
			CHECK(!memcmp(want[0], got, sizeof got) ||
			      !memcmp(want[1], got, sizeof got));
		}
	CHECK(t->pages_written == n[RUN_HERE] && t->pages_zero == n[RUN_ZERO] &&
	      t->pages_parent == n[RUN_PARENT]);
}

static void round_trip(const struct tree *t, unsigned n_generations)
{
	struct image_params params = { .state = test_id(2),
				       .parent = test_id(1),
				       .seq = 2,
				       .compress = below(3),
				       .threads = 2 };
	static struct model m[SPACES][PAGES];
	struct image_totals totals;
	struct image_writer *w;
	struct image_reader *r;
	struct err err = { 0 };

	memset(m, 0, sizeof m);
	OK(image_writer_open(AT_FDCWD, "000002.img", &params, &w, &err), &err);
	for (unsigned gen = 0; gen < n_generations; gen++) {
		if (gen)
			image_writer_generation(w);
		generation(w, gen, m);
	}
	OK(image_writer_commit(w, t, &totals, &err), &err);
	OK(image_reader_open(AT_FDCWD, "000002.img", &r, &err), &err);
	OK(image_reader_verify(r, NULL, NULL, &err), &err);
	check(r, m, &totals);
	image_reader_free(r);
	CHECK(unlink("000002.img") == 0);
}

static void misuse(const struct tree *t)
{
	struct image_params params = { .state = test_id(2), .seq = 2 };
	uint8_t page[CKPT_PAGE_SIZE] = "x";
	struct image_writer *w;
	struct err err = { 0 };

	/* one generation may say "nothing" only of what an earlier one gave */
	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	CHECK(image_writer_run(w, 1, RUN_NONE, FIRST(1), 1, &err) == -EINVAL);
	image_writer_abort(w);

	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	image_writer_generation(w);
	OK(put_page(w, 1, 7, page, &err), &err);
	OK(put_page(w, 1, 9, page, &err), &err);
	OK(put_page(w, 1, 7, page, &err), &err);
	CHECK(image_writer_commit(w, t, NULL, &err) == -EINVAL);
	CHECK_MSG(&err, "given twice");

	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	for (unsigned i = 0; i <= WRITER_GENERATIONS; i++)
		image_writer_generation(w);
	CHECK(image_writer_commit(w, t, NULL, &err) == -E2BIG);
	CHECK_MSG(&err, "generations");
}

int main(void)
{
	struct arena *a = arena_new();
	const struct tree *t = test_tree(a);

	(void)test_dir();
	for (unsigned i = 0; i < 24; i++)
		round_trip(t, 1 + below(6));
	round_trip(t, WRITER_GENERATIONS);
	misuse(t);
	arena_free(a);
	return 0;
}
