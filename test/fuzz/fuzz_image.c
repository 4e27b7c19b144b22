/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz target: a whole image: opening, every block, verify, every form of output, resolving and
 * merging. */
#include "target.h"

#include "image/json.h"
#include "image/merge.h"
#include "image/page.h"
#include "image/text.h"
#include "model.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static FILE *null_file;
static struct chain *chain;

static void remove_chain(void)
{
	(void)chain_clear(chain, NULL);
	(void)unlinkat(chain_dirfd(chain), "lock", 0);
	(void)rmdir(chain_path(chain));
}

/* A chain in memory whose first image is a real one; each input is tried as its second. */
static void set_up(void)
{
	static char dir[] = "/dev/shm/ckpt-fuzz-XXXXXX", other[] = "/tmp/ckpt-fuzz-XXXXXX";
	struct model m = { .pages = 4, .small = true };
	struct image_params params = { .state = model_state_id(1), .seq = 1, .threads = 1 };
	struct arena *arena = arena_new();
	struct image_writer *w;
	const char *path = mkdtemp(dir) ?: mkdtemp(other);

	null_file = fopen("/dev/null", "w");
	if (!null_file || !path || chain_open(path, CHAIN_CREATE, &chain, NULL) < 0 ||
	    image_writer_open(chain_dirfd(chain), "000001.img", &params, &w, NULL) < 0)
		abort();
	for (uint32_t space = 1; space <= MODEL_SPACES; space++)
		for (unsigned i = 0; i < m.pages; i++) {
			model_content(space, i, 1, image_writer_buffer(w, NULL));
			(void)image_writer_submit(w, space, model_page_number(&m, space, i), 1,
						  NULL);
		}
	if (image_writer_commit(w, model_tree(&m, 2, arena), NULL, NULL) < 0)
		abort();
	arena_free(arena);
	(void)atexit(remove_chain);
}

static void show(struct image_reader *r, const struct tree *tree)
{
	struct image_view v = { .name = "fuzz", .info = image_reader_info(r), .tree = tree };

	v.runs = image_reader_runs(r, &v.n_runs);
	text_summary(null_file, &v, 0);
	text_processes(null_file, &v);
	text_threads(null_file, &v);
	text_segments(null_file, &v);
	text_files(null_file, &v);
	json_print(null_file, NULL, &v);
}

static void read_all(struct image_reader *r)
{
	static uint8_t block[IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE], scratch[IMAGE_BLOCK_SCRATCH];
	unsigned n;
	const struct page_run *runs = image_reader_runs(r, &n);

	for (uint32_t i = 0; i < image_reader_info(r)->n_blocks; i++)
		(void)image_reader_block(r, i, block, scratch, NULL);
	for (unsigned i = 0; i < n; i++) {
		uint32_t at, page;

		if (runs[i].kind != RUN_HERE)
			continue;
		image_reader_seek(r, &runs[i], runs[i].npages - 1, &at, &page);
		if (at >= image_reader_info(r)->n_blocks || page >= image_reader_block_pages(r, at))
			abort();
	}
	(void)image_reader_verify(r, NULL, NULL, NULL);
}

/* The merged form of whatever resolves must itself be an image that holds what it says. */
static void merge(const struct resolved *r)
{
	static const struct merge_progress progress;
	struct image_params params;
	struct image_writer *w;
	CLEANUP_FD int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	merge_params(r, &params);
	params.threads = 1;
	if (image_writer_open(fd, NULL, &params, &w, NULL) < 0)
		abort();
	(void)merge_write(r, w, &progress, NULL, NULL);
}

/* Files and threads are slow: only some inputs get there, always the same ones. */
static bool chosen(const uint8_t *data, size_t size, uint32_t one_in)
{
	uint32_t sum = 2166136261u;

	for (size_t i = 0; i < size; i++)
		sum = (sum ^ data[i]) * 16777619u;
	return (sum >> 8) % one_in == 0;
}

static void resolve(const uint8_t *data, size_t size, const struct tree *tree)
{
	CLEANUP_FD int fd = openat(chain_dirfd(chain), "000002.img",
				   O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct resolved *r = NULL;
	uint8_t page[CKPT_PAGE_SIZE];

	if (fd < 0 || io_write_full(fd, data, size) < 0 || chain_scan(chain, NULL) < 0)
		abort();
	if (chain_resolve(chain, "000002.img", &r, NULL) < 0)
		return;
	for (unsigned i = 0; tree && i < tree->n_processes; i++)
		for (unsigned k = 0; k < tree->processes[i].n_vmas; k++)
			(void)page_read(r, tree, tree->processes[i].pid,
					tree->processes[i].vmas[k].start, page, NULL);
	if (chosen(data, size, 32))
		merge(r);
	resolved_free(r);
}

unsigned long fuzz_accepted;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_reader *r = NULL;
	struct arena *arena;
	struct tree *tree = NULL;
	struct err err = { 0 };

	if (!chain)
		set_up();
	if (image_reader_open_mem(data, size, &r, &err) < 0) {
		if (!err.msg[0] || err.exit_status != EXIT_BAD_IMAGE)
			abort(); /* a bad image must be called one, with a reason */
		return 0;
	}
	arena = arena_new();
	read_all(r);
	if (image_reader_tree(r, arena, &tree, &err) == 0) {
		show(r, tree);
		fuzz_accepted++;
	}
	if (chosen(data, size, 8))
		resolve(data, size, tree);
	arena_free(arena);
	image_reader_free(r);
	return 0;
}
