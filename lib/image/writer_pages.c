/* SPDX-License-Identifier: BSD-2-Clause */
/* The image writer: how pages come in. The caller's side, until a slot is queued for the workers.
 */
#include "image/writer_int.h"
#include "util/cleanup.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WARM_ADVICE 23 /* MADV_POPULATE_WRITE, Linux 5.14 */

int writer_failure(struct image_writer *w, struct err *err)
{
	int rc;

	if (!atomic_load_explicit(&w->failed, memory_order_relaxed))
		return 0;
	pthread_mutex_lock(&w->lock);
	rc = w->err.code;
	if (err)
		*err = w->err;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* A free slot, empty; NULL with err set once the writer has failed. */
static struct slot *take_slot(struct image_writer *w, struct err *err)
{
	struct slot *s = NULL;

	pthread_mutex_lock(&w->lock);
	while (!w->n_free && !w->failed) {
		if (w->held) {
			w->held = false;
			pthread_cond_broadcast(&w->work_cond);
		}
		/* the output thread may be waiting for a bigger batch that cannot come */
		pthread_cond_signal(&w->done_cond);
		pthread_cond_wait(&w->free_cond, &w->lock);
	}
	if (!w->failed)
		s = w->free[--w->n_free];
	else if (err)
		*err = w->err;
	pthread_mutex_unlock(&w->lock);
	if (s) {
		s->npages = s->n_segs = s->stored_pages = 0;
		s->zero = 0;
		s->done = s->ready = false;
	}
	return s;
}

static void queue_slot(struct image_writer *w, struct slot *s)
{
	pthread_mutex_lock(&w->lock);
	w->ring[w->tail++ % WRITER_SLOTS] = s;
	pthread_cond_signal(&w->work_cond);
	pthread_mutex_unlock(&w->lock);
}

void writer_queue_open(struct image_writer *w)
{
	if (w->open)
		queue_slot(w, w->open);
	w->open = NULL;
}

/* Goes on with the last segment where it can. */
static void add_seg(struct slot *s, uint32_t space, uint32_t kind, uint64_t page, uint64_t npages)
{
	struct seg *last = s->n_segs ? &s->seg[s->n_segs - 1] : NULL;

	if (last && last->space == space && last->kind == kind && last->page + last->npages == page)
		last->npages += npages;
	else
		s->seg[s->n_segs++] = (struct seg){ page, npages, space, kind };
}

static int check_range(struct image_writer *w, uint32_t space, uint64_t page, uint64_t npages,
		       struct err *err)
{
	if (space && page < IMAGE_MAX_PAGE && npages <= IMAGE_MAX_PAGE - page)
		return writer_failure(w, err);
	return err_set(err, -EINVAL, "cannot write '%s': bad page range %#llx+%#llx in space %u",
		       w->path, (unsigned long long)page, (unsigned long long)npages, space);
}

void *image_writer_buffer(struct image_writer *w, struct err *err)
{
	if (!w->lent)
		w->lent = take_slot(w, err);
	return w->lent ? w->lent->data : NULL;
}

int image_writer_submit(struct image_writer *w, uint32_t space, uint64_t page, unsigned npages,
			struct err *err)
{
	struct slot *s = w->lent, *open = w->open;
	int rc;

	if (!s || npages > IMAGE_BLOCK_PAGES)
		return err_set(err, -EINVAL, "cannot write '%s': no buffer was asked for", w->path);
	if (!npages)
		return writer_failure(w, err); /* stays lent for the next time */
	rc = check_range(w, space, page, npages, err);
	if (rc < 0)
		return rc;
	/* scattered pages share a block: the buffer can be lent again at once */
	if (open && npages < IMAGE_BLOCK_PAGES && open->npages + npages <= IMAGE_BLOCK_PAGES &&
	    open->n_segs < WRITER_SEGS) {
		memcpy(open->data + (size_t)open->npages * CKPT_PAGE_SIZE, s->data,
		       (size_t)npages * CKPT_PAGE_SIZE);
		add_seg(open, space, RUN_OF(RUN_HERE, w->generation), page, npages);
		open->npages += npages;
		if (open->npages == IMAGE_BLOCK_PAGES)
			writer_queue_open(w);
		return 0;
	}
	writer_queue_open(w);
	w->lent = NULL;
	s->npages = npages;
	add_seg(s, space, RUN_OF(RUN_HERE, w->generation), page, npages);
	w->open = s;
	if (npages == IMAGE_BLOCK_PAGES)
		writer_queue_open(w);
	return 0;
}

int image_writer_submit_stored(struct image_writer *w, uint32_t space, uint64_t page,
			       unsigned npages, const struct image_stored *how, struct err *err)
{
	struct slot *s = w->lent;
	int rc;

	if (!s || !npages || npages > IMAGE_BLOCK_PAGES || how->stored > BLOCK_BYTES)
		return err_set(err, -EINVAL, "cannot write '%s': no such block", w->path);
	rc = check_range(w, space, page, npages, err);
	if (rc < 0)
		return rc;
	writer_queue_open(w);
	w->lent = NULL;
	s->npages = npages;
	s->ready = true;
	s->from = *how;
	add_seg(s, space, RUN_HERE, page, npages);
	queue_slot(w, s);
	return 0;
}

/* Runs without data do not travel with the slots: there may be far more of them. */
static int note_run(struct image_writer *w, uint32_t space, uint32_t kind, uint64_t page,
		    uint64_t npages, struct err *err)
{
	struct page_run *last = w->n_given ? &w->given[w->n_given - 1] : NULL;

	if (last && last->space == space && last->kind == kind &&
	    last->page + last->npages == page) {
		last->npages += npages;
		return 0;
	}
	if (w->n_given == w->room_given) {
		unsigned room = MAX(w->room_given * 2, 256u);
		struct page_run *bigger =
			room > WRITER_MAX_RUNS ? NULL : realloc(w->given, room * sizeof *bigger);

		if (!bigger)
			return err_nomem(err);
		w->given = bigger;
		w->room_given = room;
	}
	w->given[w->n_given++] =
		(struct page_run){ .space = space, .kind = kind, .page = page, .npages = npages };
	return 0;
}

int image_writer_run(struct image_writer *w, uint32_t space, uint32_t kind, uint64_t page,
		     uint64_t npages, struct err *err)
{
	static const struct id128 none;
	int rc;

	if (!npages)
		return writer_failure(w, err);
	if (kind != RUN_ZERO && !(kind == RUN_NONE && w->generation) &&
	    (kind != RUN_PARENT || !memcmp(&w->params.parent, &none, sizeof none)))
		return err_set(err, -EINVAL, "cannot write '%s': a full image has no parent",
			       w->path);
	rc = check_range(w, space, page, npages, err);
	if (rc < 0)
		return rc;
	return note_run(w, space, RUN_OF(kind, w->generation), page, npages, err);
}

void image_writer_generation(struct image_writer *w)
{
	w->generation++;
}

int image_writer_drain(struct image_writer *w, struct err *err)
{
	writer_queue_open(w);
	pthread_mutex_lock(&w->lock);
	w->draining = true;
	pthread_cond_broadcast(&w->done_cond);
	while (w->head != w->tail && !w->failed)
		pthread_cond_wait(&w->free_cond, &w->lock);
	w->draining = false;
	pthread_mutex_unlock(&w->lock);
	return writer_failure(w, err);
}

void image_writer_warm(struct image_writer *w, uint64_t npages)
{
	uint64_t n = w->params.modest ? WRITER_SLOTS / 4 : WRITER_SLOTS;
	uint64_t blocks = MIN(npages / IMAGE_BLOCK_PAGES + 1, n);

	(void)madvise(w->pool, blocks * BLOCK_BYTES, WARM_ADVICE);
}

static void set_held(struct image_writer *w, bool held)
{
	pthread_mutex_lock(&w->lock);
	w->held = held;
	pthread_cond_broadcast(&w->work_cond);
	pthread_mutex_unlock(&w->lock);
}

void image_writer_hold(struct image_writer *w)
{
	set_held(w, true);
}

void image_writer_go(struct image_writer *w)
{
	set_held(w, false);
}
