/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz target: the tree section alone: decoding, invariants, every form of output, and encoding
 * again. */
#include "target.h"

#include "image/check.h"
#include "image/json.h"
#include "image/record.h"
#include "image/text.h"

#include <stdlib.h>
#include <string.h>

static void show(const struct tree *tree)
{
	static const struct image_info info = { .version = 1 };
	static const struct page_run runs[] = {
		{ .space = 1, .kind = RUN_HERE, .page = 0x400, .npages = 3 },
		{ .space = 3, .kind = RUN_PARENT, .page = 0, .npages = 1000 },
	};
	struct image_view v = {
		.name = "fuzz", .info = &info, .tree = tree, .runs = runs, .n_runs = 2
	};
	static FILE *f;

	if (!f)
		f = fopen("/dev/null", "w");
	text_summary(f, &v, 0);
	text_processes(f, &v);
	text_threads(f, &v);
	text_segments(f, &v);
	text_files(f, &v);
	json_print(f, NULL, &v);
}

/* What was decoded and is encoded again decodes to the same: nothing is read that is not written,
 * or otherwise. */
static void encode_again(const struct tree *tree)
{
	struct arena *arena = arena_new();
	struct buf first = { 0 }, second = { 0 };
	void *again = NULL;

	if (record_encode(&first, &tree_schema, tree, NULL) < 0 ||
	    record_decode(first.data, first.len, &tree_schema, arena, &again, NULL) < 0 ||
	    record_encode(&second, &tree_schema, again, NULL) < 0 || first.len != second.len ||
	    memcmp(first.data, second.data, first.len) != 0)
		abort();
	buf_fini(&first);
	buf_fini(&second);
	arena_free(arena);
}

unsigned long fuzz_accepted;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = arena_new();
	struct err err = { 0 };
	void *tree = NULL;

	if (record_decode(data, size, &tree_schema, arena, &tree, &err) == 0) {
		encode_again(tree);
		if (tree_check(tree, &err) == 0) {
			show(tree);
			fuzz_accepted++;
		}
	}
	if (err.code && !err.msg[0])
		abort(); /* a failure must say something */
	arena_free(arena);
	return 0;
}
