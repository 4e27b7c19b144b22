/* SPDX-License-Identifier: BSD-2-Clause */
/* The writer's output thread: places blocks and notes runs in order, then sections, directory,
 * trailer, durability. */
#include "image/writer_int.h"

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/hash.h"

#include <fcntl.h>
#include <string.h>

/* Slots written at a time: 4 MiB raw. Waiting for half of that keeps writes big when the disk is
 * the faster one. */
#define BATCH_MAX 16
#define BATCH_MIN 8

/* --- what each page is ---------------------------------------------------------------------------
 */

static void count_pages(struct image_writer *w, uint32_t kind, uint64_t npages)
{
	if (kind == RUN_HERE)
		w->totals.pages_written += npages;
	else if (kind == RUN_ZERO)
		w->totals.pages_zero += npages;
	else
		w->totals.pages_parent += npages;
}

/* Goes on with the last run, or begins one. ordinal: of the first page among all stored pages
 * (RUN_HERE). */
static int add_run(struct image_writer *w, const struct page_run *run, uint64_t ordinal,
		   struct err *err)
{
	struct page_run *last = w->n_runs ? &w->runs[w->n_runs - 1] : NULL;
	bool here = RUN_KIND(run->kind) == RUN_HERE;

	if (last && last->space == run->space && last->kind == run->kind &&
	    last->page + last->npages == run->page && (!here || w->run_end == ordinal)) {
		last->npages += run->npages;
		w->run_end = ordinal + run->npages;
		return 0;
	}
	if (last && (run->space < last->space ||
		     (run->space == last->space && run->page < last->page + last->npages)))
		w->unsorted = true;
	if (w->n_runs == w->room_runs) {
		unsigned room = MAX(w->room_runs * 2, 256u);
		struct page_run *bigger;

		if (room > WRITER_MAX_RUNS)
			return err_set(err, -E2BIG, "cannot write '%s': memory is too fragmented",
				       w->path);
		bigger = realloc(w->runs, room * sizeof *bigger);
		if (!bigger)
			return err_nomem(err);
		w->runs = bigger;
		w->room_runs = room;
	}
	w->runs[w->n_runs++] = *run;
	w->run_end = ordinal + run->npages;
	return 0;
}

/* Splits a stretch of the slot's pages (from data page *at on) into zero and stored ones. */
static int add_stretch(struct image_writer *w, const struct slot *s, const struct seg *seg,
		       unsigned *at, unsigned *stored, struct err *err)
{
	uint64_t done = 0;

	while (done < seg->npages) {
		bool zero = s->zero >> *at & 1;
		struct page_run run = { .space = seg->space, .page = seg->page + done };
		int rc;

		while (done < seg->npages && (s->zero >> *at & 1) == zero) {
			run.npages++;
			done++;
			(*at)++;
		}
		run.kind = RUN_OF(zero ? RUN_ZERO : RUN_HERE, RUN_GENERATION(seg->kind));
		if (!zero) {
			run.block = w->n_blocks;
			run.block_page = *stored;
			*stored += (unsigned)run.npages;
		}
		rc = add_run(w, &run, w->ordinal + run.block_page, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int add_slot_runs(struct image_writer *w, const struct slot *s, struct err *err)
{
	unsigned at = 0, stored = 0;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < s->n_segs; i++)
		rc = add_stretch(w, s, &s->seg[i], &at, &stored, err);
	return rc;
}

/* --- blocks --------------------------------------------------------------------------------------
 */

static int put_block(struct image_writer *w, const struct slot *s, struct err *err)
{
	uint8_t *entry = buf_add(&w->blocks, IMAGE_BLOCK_ENTRY_BYTES);
	int rc;

	if (!entry)
		return err_nomem(err);
	rc = s->codec == BLOCK_RAW ? out_align(&w->out, IMAGE_RAW_ALIGN, err) : 0;
	if (rc < 0)
		return rc;
	put_le64(entry, w->out.pos);
	put_le32(entry + 8, s->stored);
	put_le16(entry + 12, (uint16_t)s->stored_pages);
	entry[14] = (uint8_t)s->codec;
	entry[15] = 0;
	put_le64(entry + 16, s->sum);
	w->n_blocks++;
	w->ordinal += s->stored_pages;
	w->totals.bytes_raw += (uint64_t)s->stored_pages * CKPT_PAGE_SIZE;
	return s->codec == BLOCK_RAW ? out_pages(&w->out, s->data, s->stored, err)
				     : out_bytes(&w->out, s->data, s->stored, err);
}

static int put_batch(struct image_writer *w, struct slot *const *batch, unsigned n, struct err *err)
{
	bool borrowed = false; /* the output stage refers to a slot's memory */

	for (unsigned i = 0; i < n; i++) {
		int rc = add_slot_runs(w, batch[i], err);

		if (rc == 0 && batch[i]->stored_pages) {
			rc = put_block(w, batch[i], err);
			borrowed |= batch[i]->codec == BLOCK_RAW;
		}
		if (rc < 0)
			return rc;
	}
	return borrowed ? out_flush(&w->out, false, err) : 0;
}

/* Ready slots at the head of the ring; 0 = none will come. Called and returns with the lock held.
 */
static unsigned next_batch(struct image_writer *w, struct slot **batch)
{
	for (;;) {
		unsigned n = 0;

		while (n < BATCH_MAX && w->head + n < w->tail &&
		       w->ring[(w->head + n) % WRITER_SLOTS]->done) {
			batch[n] = w->ring[(w->head + n) % WRITER_SLOTS];
			n++;
		}
		if (w->stop || w->failed)
			return 0;
		if (n >= BATCH_MIN ||
		    (n && (w->finishing || w->draining || (!w->n_free && !w->held))))
			return n;
		if (w->finishing && w->head == w->tail)
			return 0;
		writer_listen(w, &w->done_bell);
	}
}

/* --- the end of the file -------------------------------------------------------------------------
 */

static int by_space_page(const void *a, const void *b)
{
	const struct page_run *x = a, *y = b;

	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	return x->page < y->page ? -1 : x->page > y->page;
}

static int given_twice(const struct image_writer *w, const struct page_run *run, struct err *err)
{
	return err_set(err, -EINVAL, "cannot write '%s': page %#llx of space %u given twice",
		       w->path, (unsigned long long)run->page, run->space);
}

static int sort_runs(struct image_writer *w, struct err *err)
{
	unsigned n = 0;

	if (!w->unsorted)
		return 0;
	qsort(w->runs, w->n_runs, sizeof w->runs[0], by_space_page);
	for (unsigned i = 0; i < w->n_runs; i++) {
		const struct page_run *run = &w->runs[i];
		struct page_run *last = n ? &w->runs[n - 1] : NULL;

		if (last && last->space == run->space && last->page + last->npages > run->page)
			return given_twice(w, run, err);
		if (last && last->space == run->space && last->kind == run->kind &&
		    run->kind != RUN_HERE && last->page + last->npages == run->page)
			last->npages += run->npages;
		else
			w->runs[n++] = *run;
	}
	w->n_runs = n;
	return 0;
}

/* What the caller has said of pages without data. */
static int take_given(struct image_writer *w, struct err *err)
{
	struct page_run *all;

	if (!w->n_given)
		return 0;
	all = realloc(w->runs, ((size_t)w->n_runs + w->n_given) * sizeof *all);
	if (!all)
		return err_nomem(err);
	memcpy(all + w->n_runs, w->given, w->n_given * sizeof *all);
	w->runs = all;
	w->n_runs += w->n_given;
	w->unsorted = true;
	free(w->given);
	w->given = NULL;
	w->n_given = 0;
	return 0;
}

/* Of several generations what counts, in order. */
static int settle_runs(struct image_writer *w, struct err *err)
{
	struct page_run twice;
	int rc;

	if (w->generation >= WRITER_GENERATIONS)
		return err_set(err, -E2BIG, "cannot write '%s': too many generations", w->path);
	rc = take_given(w, err);
	if (rc < 0)
		return rc;
	if (w->generation == 0) {
		rc = sort_runs(w, err);
	} else {
		rc = overlay_runs(&w->runs, &w->n_runs, w->blocks.data, w->n_blocks, &twice);
		if (rc == -EEXIST)
			rc = given_twice(w, &twice, err);
		else if (rc < 0)
			rc = err_nomem(err);
	}
	for (unsigned i = 0; rc == 0 && i < w->n_runs; i++)
		count_pages(w, w->runs[i].kind, w->runs[i].npages);
	return rc;
}

_Static_assert(sizeof(struct page_run) == IMAGE_RUN_ENTRY_BYTES, "runs are encoded in place");

/* In place, since there may be millions: the array is bytes afterwards. */
static const uint8_t *encode_runs(struct image_writer *w)
{
	for (unsigned i = 0; i < w->n_runs; i++) {
		struct page_run run = w->runs[i];
		uint8_t *p = (uint8_t *)&w->runs[i];

		put_le32(p, run.space);
		put_le32(p + 4, run.kind);
		put_le64(p + 8, run.page);
		put_le64(p + 16, run.npages);
		put_le32(p + 24, run.block);
		put_le32(p + 28, run.block_page);
	}
	return (const uint8_t *)w->runs;
}

static int add_entry(struct buf *dir, uint32_t type, uint64_t offset, uint64_t len, uint64_t sum,
		     struct err *err)
{
	uint8_t *entry = buf_add(dir, IMAGE_DIR_ENTRY_BYTES);

	if (!entry)
		return err_nomem(err);
	put_le32(entry, type);
	put_le16(entry + 4, 1); /* section version */
	put_le16(entry + 6, IMAGE_SECTION_REQUIRED);
	put_le64(entry + 8, offset);
	put_le64(entry + 16, len);
	put_le64(entry + 24, sum);
	return 0;
}

static int put_section(struct image_writer *w, struct buf *dir, uint32_t type, const uint8_t *p,
		       size_t len, struct err *err)
{
	int rc = out_align(&w->out, IMAGE_SECTION_ALIGN, err);

	if (rc == 0)
		rc = add_entry(dir, type, w->out.pos, len, hash64(p, len), err);
	return rc < 0 ? rc : out_bytes(&w->out, p, len, err);
}

struct tree_out {
	struct out *out;
	struct hash64 *hash;
};

static int put_piece(void *arg, const void *p, size_t len, struct err *err)
{
	struct tree_out *t = arg;

	hash64_add(t->hash, p, len);
	return out_bytes(t->out, p, len, err);
}

/* In pieces: of a job of a thousand processes it is some MiB. */
static int put_tree(struct image_writer *w, struct buf *dir, struct err *err)
{
	struct tree_out t = { .out = &w->out };
	int rc = out_align(&w->out, IMAGE_SECTION_ALIGN, err);
	uint64_t offset = w->out.pos, sum;

	if (rc < 0)
		return rc;
	t.hash = hash64_begin();
	if (!t.hash)
		return err_nomem(err);
	rc = record_encode_to(&tree_schema, w->tree, put_piece, &t, err);
	sum = hash64_end(t.hash);
	return rc < 0 ? rc : add_entry(dir, SECTION_TREE, offset, w->out.pos - offset, sum, err);
}

static int put_trailer(struct image_writer *w, const struct buf *dir, struct err *err)
{
	uint8_t t[IMAGE_TRAILER_BYTES];
	int rc = out_align(&w->out, IMAGE_SECTION_ALIGN, err);

	if (rc < 0)
		return rc;
	put_le64(t, w->out.pos);
	put_le64(t + 8, dir->len);
	put_le64(t + 16, hash64(dir->data, dir->len));
	put_le64(t + 24, w->out.pos + dir->len + sizeof t);
	memcpy(t + 32, w->params.state.b, 16);
	put_le64(t + 48, hash64(t, 48));
	memcpy(t + 56, IMAGE_END_MAGIC, 8);
	rc = out_bytes(&w->out, dir->data, dir->len, err);
	if (rc < 0)
		return rc;
	rc = fault_point("image-trailer", err);
	if (rc < 0)
		return err_wrap(err, rc, "cannot write '%s'", w->path);
	rc = out_bytes(&w->out, t, sizeof t, err);
	return rc < 0 ? rc : out_flush(&w->out, true, err);
}

static int put_end(struct image_writer *w, struct err *err)
{
	CLEANUP(buf_fini) struct buf dir = { 0 };
	int rc = settle_runs(w, err);

	if (rc == 0)
		rc = put_tree(w, &dir, err);
	if (rc == 0)
		rc = put_section(w, &dir, SECTION_BLOCKS, w->blocks.data, w->blocks.len, err);
	if (rc == 0)
		rc = put_section(w, &dir, SECTION_RUNS, encode_runs(w), w->n_runs * sizeof *w->runs,
				 err);
	if (rc == 0)
		rc = put_trailer(w, &dir, err);
	w->totals.bytes_stored = w->out.pos;
	return rc;
}

/* The file, then its name, then the folder that holds the name: only after the last step does the
 * image exist. */
static int make_durable(struct image_writer *w, struct err *err)
{
	int rc = fault_point("image-fsync", err);

	if (rc < 0)
		return err_wrap(err, rc, "cannot sync '%s'", w->path);
	if (fsync(w->fd) < 0)
		return err_set(err, -errno, "cannot sync '%s': %m", w->path);
	rc = fault_point("image-rename", err);
	if (rc < 0)
		return err_wrap(err, rc, "cannot rename '%s'", w->path);
	if (renameat(w->dir, w->tmp_name, w->dir, w->name) < 0)
		return err_set(err, -errno, "cannot rename '%s': %m", w->path);
	free(w->tmp_name);
	w->tmp_name = NULL;
	rc = fault_point("image-dirsync", err);
	if (rc < 0)
		return err_wrap(err, rc, "cannot sync the directory of '%s'", w->path);
	if (fsync(w->dir) < 0)
		return err_set(err, -errno, "cannot sync the directory of '%s': %m", w->path);
	return 0;
}

void *writer_output(void *arg)
{
	struct image_writer *w = arg;
	struct slot *batch[BATCH_MAX];
	struct err err = { 0 };
	unsigned n;
	int rc = 0;

	writer_enroll(w);
	pthread_mutex_lock(&w->lock);
	while (rc == 0 && (n = next_batch(w, batch)) > 0) {
		pthread_mutex_unlock(&w->lock);
		rc = put_batch(w, batch, n, &err);
		pthread_mutex_lock(&w->lock);
		w->head += n;
		for (unsigned i = 0; i < n; i++)
			w->free[w->n_free++] = batch[i];
		writer_ring(&w->free_bell);
	}
	if (w->stop || w->failed)
		rc = rc < 0 ? rc : -ECANCELED;
	pthread_mutex_unlock(&w->lock);
	if (rc == 0) {
		rc = put_end(w, &err);
		if (rc == 0 && w->name)
			rc = make_durable(w, &err);
	}
	if (rc < 0 && err.code)
		writer_fail(w, &err);
	return NULL;
}
