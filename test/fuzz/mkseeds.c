/* SPDX-License-Identifier: BSD-2-Clause */
/* mkseeds IMAGES-FOLDER TREES-FOLDER: writes the seeds of the corpus: small images and tree
 * sections, checksums 0. */
#include "model.h"

#include "image/record.h"
#include "image/writer.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	unsigned generation, pages;
	uint32_t compress;
} seeds[] = {
	{ "full-raw", 1, 2, COMPRESS_NONE },
	{ "full-lz4", 1, 4, COMPRESS_LZ4 },
	{ "increment-lz4", 2, 4, COMPRESS_LZ4 },
	{ "increment-raw", 4, 2, COMPRESS_NONE },
};

static int write_image(int dirfd, unsigned n, struct err *err)
{
	struct model m = { .pages = seeds[n].pages, .small = true };
	struct image_params params = { .seq = 1, .compress = seeds[n].compress, .threads = 1 };
	unsigned g = seeds[n].generation;
	CLEANUP_FREE uint8_t *page = malloc(CKPT_PAGE_SIZE);
	struct arena *arena = arena_new();
	struct image_writer *w;
	int rc;

	params.state = model_state_id(2);
	if (g > 1)
		params.parent = model_state_id(1);
	rc = image_writer_open(dirfd, seeds[n].name, &params, &w, err);
	if (rc < 0)
		return rc;
	for (uint32_t space = 1; space <= MODEL_SPACES; space++) {
		for (unsigned i = 0; i < m.pages && model_has_space(&m, space, g); i++) {
			uint64_t at = model_page_number(&m, space, i);

			if (i % 4 == 2) {
				rc = image_writer_run(w, space, RUN_ZERO, at, 1, err);
			} else if (i % 2 && g > 1) {
				rc = image_writer_run(w, space, RUN_PARENT, at, 1, err);
			} else {
				/* well compressible, so that LZ4 seeds are small */
				memset(image_writer_buffer(w, err), (int)(space + i),
				       CKPT_PAGE_SIZE);
				rc = image_writer_submit(w, space, at, 1, err);
			}
			if (rc < 0) {
				image_writer_abort(w);
				return rc;
			}
		}
	}
	rc = image_writer_commit(w, model_tree(&m, g, arena), NULL, err);
	arena_free(arena);
	return rc;
}

static int write_tree(int dirfd, unsigned n, struct err *err)
{
	struct model m = { .pages = seeds[n].pages, .small = true };
	CLEANUP_FD int fd =
		openat(dirfd, seeds[n].name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	struct arena *arena = arena_new();
	struct buf b = { 0 };
	int rc = record_encode(&b, &tree_schema, model_tree(&m, seeds[n].generation, arena), err);

	if (rc == 0)
		rc = io_write_full(fd, b.data, b.len);
	buf_fini(&b);
	arena_free(arena);
	return rc;
}

int main(int argc, char **argv)
{
	struct err err = { 0 };
	int rc = 0;

	for (unsigned n = 0; argc == 3 && n < ARRAY_SIZE(seeds) && rc == 0; n++) {
		CLEANUP_FD int images = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		CLEANUP_FD int trees = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		rc = write_image(images, n, &err);
		if (rc == 0)
			rc = write_tree(trees, n, &err);
	}
	if (rc < 0)
		err_print("mkseeds", &err);
	return argc != 3 || rc < 0;
}
