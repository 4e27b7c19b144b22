/* SPDX-License-Identifier: BSD-2-Clause */
/* mkimage: writes chains of the invented job (model.h), and compares a chain or image with what it
 * must hold. */
#include "model.h"

#include "image/chain.h"
#include "image/writer.h"
#include "util/cleanup.h"
#include "util/parse.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

static const char usage[] = "usage: mkimage make CHAIN IMAGES PAGES [auto|lz4|none]   a full image "
			    "and increments, PAGES in each space\n"
			    "       mkimage branch CHAIN NUMBER PARENT PAGES         image NUMBER "
			    "as an increment on image PARENT\n"
			    "       mkimage check CHAIN|IMAGE NUMBER PAGES            the state of "
			    "image NUMBER is as it was made\n";

static int fail(const struct err *err)
{
	err_print("mkimage", err);
	return 1;
}

static int to_int(const char *s, int max)
{
	int64_t n;

	if (parse_int(s, 0, max, &n) == 0)
		return (int)n;
	fprintf(stderr, "mkimage: not a number: %s\n%s", s, usage);
	exit(2);
}

/* --- making --------------------------------------------------------------------------------------
 */

static int write_page(struct image_writer *w, const struct model *m, uint32_t space, unsigned index,
		      unsigned g, unsigned parent, struct err *err)
{
	uint64_t page = model_page_number(m, space, index);
	unsigned since;
	enum model_page what = model_page(m, space, index, g, &since);
	uint8_t *buffer;

	if (what == PAGE_ABSENT)
		return 0;
	if (since <= parent)
		return image_writer_run(w, space, RUN_PARENT, page, 1, err);
	if (what == PAGE_ZERO && index % 2)
		return image_writer_run(w, space, RUN_ZERO, page, 1, err);
	buffer = image_writer_buffer(w, err);
	if (!buffer)
		return err->code;
	if (what == PAGE_ZERO)
		memset(buffer, 0, CKPT_PAGE_SIZE); /* for the writer to find out */
	else
		model_content(space, index, since, buffer);
	return image_writer_submit(w, space, page, 1, err);
}

static int write_image(struct chain *c, const struct model *m, unsigned g, unsigned parent,
		       uint32_t compress, struct err *err)
{
	struct image_params params = {
		.state = model_state_id(g), .seq = g, .compress = compress, .threads = 2
	};
	struct arena *arena = arena_new();
	struct tree *tree = arena ? model_tree(m, g, arena) : NULL;
	struct image_writer *w;
	char name[32];
	int rc;

	if (parent > 0)
		params.parent = model_state_id(parent);
	(void)snprintf(name, sizeof name, "%06u.img", g);
	rc = tree ? image_writer_open(chain_dirfd(c), name, &params, &w, err) : err_nomem(err);
	if (rc < 0) {
		arena_free(arena);
		return rc;
	}
	for (uint32_t space = 1; space <= MODEL_SPACES && rc == 0; space++)
		for (unsigned i = 0; model_has_space(m, space, g) && i < m->pages && rc == 0; i++)
			rc = write_page(w, m, space, i, g, parent, err);
	if (rc < 0)
		image_writer_abort(w);
	else
		rc = image_writer_commit(w, tree, NULL, err);
	arena_free(arena);
	return rc;
}

static int make(const char *dir, unsigned images, unsigned pages, uint32_t compress)
{
	struct model m = { .pages = pages };
	struct err err = { 0 };
	struct chain *c = NULL;
	int rc = chain_open(dir, CHAIN_CREATE, &c, &err);

	for (unsigned g = 1; g <= images && rc == 0; g++)
		rc = write_image(c, &m, g, g - 1, compress, &err);
	chain_free(c);
	return rc < 0 ? fail(&err) : 0;
}

static int branch(const char *dir, unsigned g, unsigned parent, unsigned pages)
{
	struct model m = { .pages = pages };
	struct err err = { 0 };
	struct chain *c = NULL;
	int rc = chain_open(dir, CHAIN_WRITE, &c, &err);

	if (rc == 0)
		rc = write_image(c, &m, g, parent, COMPRESS_AUTO, &err);
	chain_free(c);
	return rc < 0 ? fail(&err) : 0;
}

/* --- checking ------------------------------------------------------------------------------------
 */

static int check_page(const struct resolved *r, const struct model *m, uint32_t space,
		      unsigned index, unsigned g, const struct resolved_run *run, struct err *err)
{
	static uint8_t block[IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE], scratch[IMAGE_BLOCK_SCRATCH],
		want[CKPT_PAGE_SIZE];
	uint64_t page = model_page_number(m, space, index);
	unsigned since;
	enum model_page what = model_page(m, space, index, g, &since);
	const struct image_reader *reader;
	uint32_t n, at;
	int rc;

	if (what != (!run ? PAGE_ABSENT : run->run.kind == RUN_ZERO ? PAGE_ZERO : PAGE_DATA))
		return err_set(err, -EINVAL, "space %u page %" PRIu64 ": not of the right kind",
			       space, page);
	if (what != PAGE_DATA)
		return 0;
	reader = resolved_image(r, run->image);
	image_reader_seek(reader, &run->run, page - run->run.page, &n, &at);
	rc = image_reader_block(reader, n, block, scratch, err);
	if (rc < 0)
		return rc;
	model_content(space, index, since, want);
	if (memcmp(block + (size_t)at * CKPT_PAGE_SIZE, want, sizeof want) != 0)
		return err_set(err, -EINVAL, "space %u page %" PRIu64 ": wrong content", space,
			       page);
	return 0;
}

static int check_space(const struct resolved *r, const struct model *m, uint32_t space, unsigned g,
		       struct err *err)
{
	unsigned n, at = 0, pages = model_has_space(m, space, g) ? m->pages : 0;
	const struct resolved_run *runs = resolved_runs(r, space, &n);
	uint64_t seen = 0, total = 0;
	int rc = 0;

	for (unsigned i = 0; i < n; i++)
		total += runs[i].run.npages;
	for (unsigned i = 0; i < pages && rc == 0; i++) {
		uint64_t page = model_page_number(m, space, i);

		while (at < n && runs[at].run.page + runs[at].run.npages <= page)
			at++;
		if (at < n && runs[at].run.page <= page) {
			rc = check_page(r, m, space, i, g, &runs[at], err);
			seen++;
		} else {
			rc = check_page(r, m, space, i, g, NULL, err);
		}
	}
	if (rc == 0 && seen != total)
		rc = err_set(err, -EINVAL, "space %u has %" PRIu64 " pages more than it should",
			     space, total - seen);
	return rc;
}

static int check(const char *path, unsigned g, unsigned pages)
{
	struct id128 id = model_state_id(g);
	struct model m = { .pages = pages };
	struct chain *c = NULL;
	struct resolved *r = NULL;
	struct err err = { 0 };
	struct stat st;
	char name[32];
	int rc;

	(void)snprintf(name, sizeof name, "%06u.img", g);
	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
		rc = resolve_file(path, &r, &err);
	} else {
		rc = chain_open(path, CHAIN_READ, &c, &err);
		if (rc == 0)
			rc = chain_scan(c, &err);
		if (rc == 0)
			rc = chain_resolve(c, name, &r, &err);
	}
	if (rc == 0 && memcmp(&image_reader_info(resolved_image(r, 0))->state, &id, sizeof id) != 0)
		rc = err_set(&err, -EINVAL, "not the state of generation %u", g);
	for (uint32_t space = 1; space <= MODEL_SPACES && rc == 0; space++)
		rc = check_space(r, &m, space, g, &err);
	if (rc == 0)
		printf("good: %u images\n", resolved_n_images(r));
	resolved_free(r);
	chain_free(c);
	return rc < 0 ? fail(&err) : 0;
}

int main(int argc, char **argv)
{
	static const char *const compress[] = { "auto", "lz4", "none" };
	uint32_t mode = COMPRESS_AUTO;

	if (argc == 5 && !strcmp(argv[1], "check"))
		return check(argv[2], (unsigned)to_int(argv[3], 999999),
			     (unsigned)to_int(argv[4], 1 << 24));
	if ((argc == 5 || argc == 6) && !strcmp(argv[1], "make")) {
		for (uint32_t i = 0; argc == 6 && i < ARRAY_SIZE(compress); i++)
			if (!strcmp(argv[5], compress[i]))
				mode = i;
		return make(argv[2], (unsigned)to_int(argv[3], 999999),
			    (unsigned)to_int(argv[4], 1 << 24), mode);
	}
	if (argc == 6 && !strcmp(argv[1], "branch"))
		return branch(argv[2], (unsigned)to_int(argv[3], 999999),
			      (unsigned)to_int(argv[4], 999999),
			      (unsigned)to_int(argv[5], 1 << 24));
	fputs(usage, stderr);
	return 2;
}
