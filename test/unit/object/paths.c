/* SPDX-License-Identifier: BSD-2-Clause */
/* --map: which prefix of a path counts. */
#include "object/object.h"
#include "util/cleanup.h"

#include <string.h>

static const struct path_map maps[] = {
	{ "/data", "/mnt/new" },
	{ "/data/big/", "/scratch/" },
	{ "/data/big/exact", "/x" },
	{ "/", "/ROOT" },
};

static const struct rebuild_opts opts = { .maps = maps, .n_maps = 3 };
static const struct rebuild_opts all_opts = { .maps = maps, .n_maps = 4 };

static const struct {
	const struct rebuild_opts *opts;
	const char *path, *expect;
} cases[] = {
	{ &opts, "/data/f", "/mnt/new/f" },
	{ &opts, "/data", "/mnt/new" },
	{ &opts, "/database/f", "/database/f" },
	{ &opts, "/data/big/f", "/scratch/f" },
	{ &opts, "/data/big", "/scratch" },
	{ &opts, "/data/bigger/f", "/mnt/new/bigger/f" },
	{ &opts, "/data/big/exact", "/x" },
	{ &opts, "/other", "/other" },
	{ &all_opts, "/other/f", "/ROOT/other/f" },
	{ &all_opts, "/data/f", "/mnt/new/f" },
	{ NULL, "/data/f", "/data/f" },
};

int main(void)
{
	struct arena *a = arena_new();
	int bad = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rebuild rb = { .opts = cases[i].opts, .arena = a };
		const char *got = rebuild_path(&rb, cases[i].path);

		if (!strcmp(got, cases[i].expect))
			continue;
		printf("not ok - '%s' became '%s', not '%s'\n", cases[i].path, got,
		       cases[i].expect);
		bad = 1;
	}
	arena_free(a);
	return bad;
}
