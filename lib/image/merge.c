/* SPDX-License-Identifier: BSD-2-Clause */
/* Merge: copies a resolved state page by page into a new full image; block cache; removal of what
 * it replaces. */
#include "image/merge.h"

#include "util/cleanup.h"
#include "util/fault.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A block of fewer pages is not worth one of its own. */
#define PASS_ON_PAGES (IMAGE_BLOCK_PAGES / 2)

/*
 * Why a kill at any instant leaves a chain that restarts:
 *
 *  1. The merged image is written under a temporary name and synced; the chain is as before. (The
 * next writer of the chain removes a leftover.)
 *  2. rename() puts it in the place of image N, atomically. It holds the same state under the same
 * state id, so the images after N fit it as they fitted the old one, and those before N are still
 * whole.
 *  3. The folder is synced: whatever is removed from now on, N is on disk as a full image.
 *  4. The images before N go newest first. An image's parents are older than itself, so each that
 * is still there has all of its own: even --at an old number works until that number is gone.
 */

/* --- blocks, decompressed once -------------------------------------------------------------------
 */

/*
 * Within a space each image's blocks are in the order of its pages, so one block of each image is
 * all that a walk along the pages needs. With more images than slots the slots are shared.
 */
struct slot {
	unsigned image;
	uint32_t block;
	uint8_t *data; /* NULL: never used */
};

struct copy {
	const struct resolved *r;
	uint32_t compress; /* enum compress_mode */
	struct image_writer *w;
	struct slot *slots;
	unsigned n_slots;
	uint8_t *scratch;
	struct image_window window;
	/* the writer's outstanding buffer: pages [page, page + n) of the space */
	uint8_t *buffer;
	uint32_t space;
	uint64_t page;
	unsigned n;
};

static void copy_fini(struct copy *c)
{
	for (unsigned i = 0; i < c->n_slots && c->slots; i++)
		free(c->slots[i].data);
	free(c->slots);
	free(c->scratch);
	free(c->window.scratch);
}

static int copy_init(struct copy *c, const struct resolved *r, struct image_writer *w,
		     struct err *err)
{
	*c = (struct copy){ .r = r, .w = w, .compress = image_writer_params(w)->compress };
	c->n_slots = MIN(resolved_n_images(r), (unsigned)MERGE_BLOCKS_MAX);
	c->slots = calloc(c->n_slots, sizeof *c->slots);
	c->scratch = malloc(IMAGE_BLOCK_SCRATCH);
	c->window.scratch = aligned_alloc(CKPT_PAGE_SIZE, IMAGE_BULK_SCRATCH);
	return c->slots && c->scratch && c->window.scratch ? 0 : err_nomem(err);
}

static int get_block(struct copy *c, unsigned image, uint32_t block, const uint8_t **ret,
		     struct err *err)
{
	struct slot *s = &c->slots[image % c->n_slots];
	int rc;

	if (!s->data || s->image != image || s->block != block) {
		if (!s->data) {
			s->data = malloc((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
			if (!s->data)
				return err_nomem(err);
		}
		s->image = UINT32_MAX;
		rc = image_reader_block(resolved_image(c->r, image), block, s->data, c->scratch,
					err);
		if (rc < 0)
			return rc;
		s->image = image;
		s->block = block;
	}
	*ret = s->data;
	return 0;
}

/* --- pages ---------------------------------------------------------------------------------------
 */

static int flush_buffer(struct copy *c, struct err *err)
{
	int rc = 0;

	if (c->buffer)
		rc = image_writer_submit(c->w, c->space, c->page, c->n, err);
	c->buffer = NULL;
	c->n = 0;
	return rc;
}

/* Adds npages that lie together in memory; starts a new buffer where they do not continue the old
 * one. */
static int add_pages(struct copy *c, uint32_t space, uint64_t page, const uint8_t *data,
		     unsigned npages, struct err *err)
{
	int rc;

	while (npages > 0) {
		unsigned n;

		if (c->buffer &&
		    (c->n == IMAGE_BLOCK_PAGES || c->space != space || c->page + c->n != page)) {
			rc = flush_buffer(c, err);
			if (rc < 0)
				return rc;
		}
		if (!c->buffer) {
			c->buffer = image_writer_buffer(c->w, err);
			if (!c->buffer)
				return err ? err->code : -EIO;
			c->space = space;
			c->page = page;
		}
		n = MIN(npages, IMAGE_BLOCK_PAGES - c->n);
		memcpy(c->buffer + (size_t)c->n * CKPT_PAGE_SIZE, data, (size_t)n * CKPT_PAGE_SIZE);
		c->n += n;
		data += (size_t)n * CKPT_PAGE_SIZE;
		page += n;
		npages -= n;
	}
	return 0;
}

static int damaged(const void *reader, uint32_t block, struct err *err)
{
	return image_reader_block_damaged(reader, block, err);
}

/*
 * A block all of whose pages belong here, in their order, is passed on as it is stored: it is
 * neither decompressed nor compressed again.
 */
static int copy_stored(struct copy *c, const struct image_reader *reader, uint32_t space,
		       uint64_t page, uint32_t block, uint32_t ahead, struct err *err)
{
	struct image_stored how = { .damaged = damaged, .arg = reader, .block = block };
	uint64_t offset;
	uint8_t *to;
	int rc = flush_buffer(c, err);

	if (rc < 0)
		return rc;
	to = image_writer_buffer(c->w, err);
	if (!to)
		return err ? err->code : -EIO;
	image_reader_block_where(reader, block, &offset, &how.stored, &how.codec);
	how.sum = image_reader_block_sum(reader, block);
	rc = image_reader_stored(reader, block, ahead, &c->window, to, err);
	if (rc == 0)
		rc = image_writer_submit_stored(c->w, space, page,
						image_reader_block_pages(reader, block), &how, err);
	return rc;
}

static bool may_pass_on(const struct copy *c, const struct image_reader *reader, uint32_t block)
{
	uint64_t offset;
	uint32_t stored;
	enum block_codec codec;

	/* small ones are gathered into bigger ones, and --compress is obeyed */
	image_reader_block_where(reader, block, &offset, &stored, &codec);
	return image_reader_block_pages(reader, block) >= PASS_ON_PAGES &&
	       stored <= IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE &&
	       (c->compress == COMPRESS_AUTO ||
		(c->compress == COMPRESS_NONE) == (codec == BLOCK_RAW));
}

static int copy_run(struct copy *c, const struct resolved_run *run,
		    const struct merge_progress *progress, struct err *err)
{
	struct image_reader *reader = resolved_image(c->r, run->image);
	uint32_t block = run->run.block;
	unsigned first = run->run.block_page;
	uint64_t page = run->run.page, left = run->run.npages;
	int rc;

	for (; left > 0; block++, first = 0) {
		const uint8_t *data = NULL;
		unsigned n;

		if (progress && progress->stop && *progress->stop)
			return err_set(err, -EINTR, "interrupted");
		n = image_reader_block_pages(reader, block);
		if (first == 0 && n <= left && may_pass_on(c, reader, block)) {
			rc = copy_stored(c, reader, run->run.space, page, block,
					 (uint32_t)MIN(left / IMAGE_BLOCK_PAGES, 16u), err);
			if (rc < 0)
				return rc;
			page += n;
			left -= n;
			continue;
		}
		rc = get_block(c, run->image, block, &data, err);
		if (rc < 0)
			return rc;
		n = (unsigned)MIN((uint64_t)(image_reader_block_pages(reader, block) - first),
				  left);
		rc = add_pages(c, run->run.space, page, data + (size_t)first * CKPT_PAGE_SIZE, n,
			       err);
		if (rc < 0)
			return rc;
		page += n;
		left -= n;
	}
	return 0;
}

static int copy_space(struct copy *c, uint32_t space, const struct merge_progress *progress,
		      struct err *err)
{
	const struct resolved_run *runs;
	unsigned n;
	int rc;

	runs = resolved_runs(c->r, space, &n);
	for (unsigned i = 0; i < n; i++) {
		if (runs[i].run.kind == RUN_HERE) {
			rc = copy_run(c, &runs[i], progress, err);
		} else {
			rc = flush_buffer(c, err);
			if (rc == 0)
				rc = image_writer_run(c->w, space, RUN_ZERO, runs[i].run.page,
						      runs[i].run.npages, err);
		}
		if (rc < 0)
			return rc;
	}
	return flush_buffer(c, err);
}

/* --- the whole -----------------------------------------------------------------------------------
 */

static int by_id(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int copy_spaces(const struct resolved *r, struct image_writer *w, const struct tree *tree,
		       const struct merge_progress *progress, struct err *err)
{
	CLEANUP(copy_fini) struct copy c = { 0 };
	CLEANUP_FREE uint32_t *ids = calloc(tree->n_spaces + 1, sizeof *ids);
	int rc;

	if (!ids)
		return err_nomem(err);
	for (unsigned i = 0; i < tree->n_spaces; i++)
		ids[i] = tree->spaces[i].id;
	qsort(ids, tree->n_spaces, sizeof *ids, by_id);
	rc = copy_init(&c, r, w, err);
	for (unsigned i = 0; i < tree->n_spaces && rc == 0; i++)
		rc = copy_space(&c, ids[i], progress, err);
	return rc;
}

static void free_arena(struct arena **a)
{
	arena_free(*a);
}

void merge_params(const struct resolved *r, struct image_params *ret)
{
	const struct image_info *info = image_reader_info(resolved_image(r, 0));

	*ret = (struct image_params){ .state = info->state, .seq = info->seq };
}

int merge_write(const struct resolved *r, struct image_writer *w,
		const struct merge_progress *progress, struct image_totals *ret_totals,
		struct err *err)
{
	CLEANUP(free_arena) struct arena *arena = arena_new();
	struct tree *tree;
	int rc;

	rc = arena ? image_reader_tree(resolved_image(r, 0), arena, &tree, err) : err_nomem(err);
	if (rc == 0)
		rc = copy_spaces(r, w, tree, progress, err);
	if (rc == 0)
		rc = fault_point("merge-written", err);
	if (rc < 0) {
		image_writer_abort(w);
		return rc;
	}
	return image_writer_commit(w, tree, ret_totals, err);
}

/* --- tidying -------------------------------------------------------------------------------------
 */

struct state_index {
	struct id128 state;
	unsigned entry;
};

static int by_state(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct id128));
}

/* Marks what the images after seq need, directly or not; the walk ends at seq, which is full. */
static void mark_needed(const struct chain *c, const struct state_index *index, unsigned n,
			uint64_t seq, uint8_t *needed)
{
	for (unsigned i = 0; i < chain_count(c); i++) {
		const struct chain_entry *e = chain_entry(c, i);

		if (e->seq <= seq || !e->readable)
			continue;
		for (unsigned at = i; !needed[at];) {
			const struct state_index *parent;

			needed[at] = 1;
			if (chain_entry(c, at)->seq == seq)
				break;
			parent = bsearch(&chain_entry(c, at)->parent, index, n, sizeof *index,
					 by_state);
			if (!parent)
				break;
			at = parent->entry;
		}
	}
}

static int remove_image(struct chain *c, const struct chain_entry *e, struct err *err)
{
	int rc = fault_point("merge-remove", err);

	if (rc < 0)
		return rc;
	if (unlinkat(chain_dirfd(c), e->name, 0) < 0 && errno != ENOENT)
		return err_set(err, -errno, "cannot remove '%s/%s': %m", chain_path(c), e->name);
	return 0;
}

int merge_tidy(struct chain *c, uint64_t seq, unsigned *ret_removed, struct err *err)
{
	unsigned n = chain_count(c), n_index = 0, removed = 0;
	CLEANUP_FREE struct state_index *index = calloc(n + 1, sizeof *index);
	CLEANUP_FREE uint8_t *needed = calloc(n + 1, 1);
	int rc;

	if (!index || !needed)
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++)
		if (chain_entry(c, i)->readable)
			index[n_index++] = (struct state_index){ chain_entry(c, i)->state, i };
	qsort(index, n_index, sizeof *index, by_state);
	mark_needed(c, index, n_index, seq, needed);
	/* An image that cannot be read stays: what it was is for its owner to say, and no state
	 * depends on it. */
	for (unsigned i = n; i-- > 0;) {
		const struct chain_entry *e = chain_entry(c, i);

		if (e->seq >= seq || needed[i] || !e->readable)
			continue;
		rc = remove_image(c, e, err);
		if (rc < 0)
			return rc;
		removed++;
	}
	if (removed > 0 && fsync(chain_dirfd(c)) < 0)
		return err_set(err, -errno, "cannot sync folder '%s': %m", chain_path(c));
	if (ret_removed)
		*ret_removed = removed;
	return 0;
}
