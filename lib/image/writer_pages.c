/* SPDX-License-Identifier: BSD-2-Clause */
/* The image writer: how pages come in. The caller's side, until a slot is queued for the workers.
 */
#include "image/writer_int.h"
#include "util/cleanup.h"
#include "util/ending.h"
#include "util/word.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define WARM_ADVICE 23 /* MADV_POPULATE_WRITE, Linux 5.14 */
/* How often a caller for whom somebody stands still looks whether the writing has been stopped. */
#define PATIENCE_MS 50

/* --- slots --------------------------------------------------------------------------------------
 */

/*
 * Will the threads do nothing more? Only where somebody stands still until we are done, from hold
 * to go, is that worth giving up for.
 */
static int has_stalled(const struct image_writer *w, struct err *err)
{
	if (!w->gathering || (!process_is_stopped(w->pid) && ending_of(w->pid, NULL) == ENDING_NOT))
		return 0;
	return err_set(err, -EAGAIN, "cannot write '%s': process %d, which writes it, was stopped",
		       w->path, w->pid);
}

/* The lock, unless who holds it has been stopped. */
static int enter(struct image_writer *w, struct err *err)
{
	struct timespec until;
	int rc;

	if (!w->gathering)
		return -pthread_mutex_lock(&w->lock);
	do {
		(void)clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += PATIENCE_MS * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		rc = pthread_mutex_clocklock(&w->lock, CLOCK_MONOTONIC, &until);
	} while (rc != 0 && has_stalled(w, err) == 0);
	return rc != 0 ? -EAGAIN : 0;
}

/* Under lock: what has been gathered is the workers'. */
static void hand_over(struct image_writer *w)
{
	for (unsigned i = 0; i < w->n_full; i++)
		w->ring[w->tail++ % WRITER_SLOTS] = w->full[i];
	w->n_full = 0;
	w->held = false;
}

/* A free slot, or all that there are from hold to go. */
static int refill(struct image_writer *w, struct err *err)
{
	for (;;) {
		unsigned heard, n;
		int rc = enter(w, err);

		if (rc < 0)
			return rc;
		hand_over(w);
		n = w->gathering ? w->n_free : MIN(w->n_free, 1u);
		w->n_free -= n;
		memcpy(w->mine, w->free + w->n_free, n * sizeof w->mine[0]);
		w->n_mine = n;
		heard = atomic_load(&w->free_bell);
		pthread_mutex_unlock(&w->lock);
		rc = writer_failure(w, err);
		if (n || rc < 0)
			return rc;
		writer_ring(&w->work_bell);
		/* the output thread may be waiting for a bigger batch that cannot come */
		writer_ring(&w->done_bell);
		word_wait(&w->free_bell, heard, w->gathering ? PATIENCE_MS : -1);
		rc = has_stalled(w, err);
		if (rc < 0)
			return rc;
	}
}

/* A free slot, empty; NULL with err set once the writer has failed. */
static struct slot *take_slot(struct image_writer *w, struct err *err)
{
	struct slot *s;

	if (!w->n_mine && refill(w, err) < 0)
		return NULL;
	s = w->mine[--w->n_mine];
	s->npages = s->n_segs = s->stored_pages = 0;
	s->zero = 0;
	s->done = s->ready = false;
	return s;
}

static void queue_slot(struct image_writer *w, struct slot *s)
{
	if (w->gathering) {
		w->full[w->n_full++] = s;
		return;
	}
	pthread_mutex_lock(&w->lock);
	w->ring[w->tail++ % WRITER_SLOTS] = s;
	pthread_mutex_unlock(&w->lock);
	writer_ring(&w->work_bell);
}

void writer_queue_open(struct image_writer *w)
{
	if (w->open)
		queue_slot(w, w->open);
	w->open = NULL;
}

void image_writer_hold(struct image_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->held = true;
	w->gathering = true;
	memcpy(w->mine, w->free, w->n_free * sizeof w->mine[0]);
	w->n_mine = w->n_free;
	w->n_free = 0;
	pthread_mutex_unlock(&w->lock);
}

void image_writer_go(struct image_writer *w)
{
	if (!w->gathering)
		return;
	pthread_mutex_lock(&w->lock);
	hand_over(w);
	memcpy(w->free + w->n_free, w->mine, w->n_mine * sizeof w->mine[0]);
	w->n_free += w->n_mine;
	w->n_mine = 0;
	w->gathering = false;
	pthread_mutex_unlock(&w->lock);
	writer_ring(&w->work_bell);
}

/* --- pages --------------------------------------------------------------------------------------
 */

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
	writer_ring(&w->done_bell);
	while (w->head != w->tail && !w->failed)
		writer_listen(w, &w->free_bell);
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
