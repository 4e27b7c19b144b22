/* SPDX-License-Identifier: BSD-2-Clause */
/* The writer's workers: take zero pages out of a slot, compress what is worth it, checksum the
 * result. */
#include "image/writer_int.h"

#include "util/cleanup.h"
#include "util/fault.h"
#include "util/hash.h"

#include <lz4.h>
#include <string.h>

/* COMPRESS_AUTO: LZ4 must save a sixteenth, and a sample must promise at least a thirty-second. */
#define AUTO_SHIFT         4
#define SAMPLE_SHIFT       5
#define SAMPLE_PIECES      4
#define SAMPLE_PIECE_BYTES 2048

static bool page_is_zero(const uint8_t *page)
{
	const uint64_t *p = (const uint64_t *)(const void *)page;

	for (unsigned i = 0; i < CKPT_PAGE_SIZE / 8; i += 8)
		if (p[i] | p[i + 1] | p[i + 2] | p[i + 3] | p[i + 4] | p[i + 5] | p[i + 6] |
		    p[i + 7])
			return false;
	return true;
}

static void drop_zero_pages(struct slot *s)
{
	unsigned kept = 0;

	s->zero = 0;
	for (unsigned i = 0; i < s->npages; i++) {
		const uint8_t *page = s->data + (size_t)i * CKPT_PAGE_SIZE;

		if (page_is_zero(page)) {
			s->zero |= (uint64_t)1 << i;
			continue;
		}
		if (kept != i)
			memcpy(s->data + (size_t)kept * CKPT_PAGE_SIZE, page, CKPT_PAGE_SIZE);
		kept++;
	}
	s->stored_pages = kept;
}

/*
 * Random data costs LZ4 as much time as the disk needs to write it raw. A few pieces, spread over
 * the block, tell at a thirtieth of that price whether it is worth trying.
 */
static bool worth_trying(const struct slot *s, uint8_t *scratch)
{
	uint8_t sample[SAMPLE_PIECES * SAMPLE_PIECE_BYTES];
	size_t raw = (size_t)s->stored_pages * CKPT_PAGE_SIZE;
	int n;

	if (raw <= 2 * sizeof sample)
		return true;
	for (size_t i = 0; i < SAMPLE_PIECES; i++) {
		size_t at = (raw / SAMPLE_PIECES * i) & ~(size_t)7;

		memcpy(sample + i * SAMPLE_PIECE_BYTES, s->data + at, SAMPLE_PIECE_BYTES);
	}
	n = LZ4_compress_default((const char *)sample, (char *)scratch, sizeof sample,
				 (int)(sizeof sample - (sizeof sample >> SAMPLE_SHIFT)));
	return n > 0;
}

void writer_prepare(struct slot *s, uint32_t compress, uint8_t *scratch)
{
	size_t raw, limit;
	int n = 0;

	drop_zero_pages(s);
	raw = (size_t)s->stored_pages * CKPT_PAGE_SIZE;
	s->codec = BLOCK_RAW;
	s->stored = (uint32_t)raw;
	if (!raw)
		return;
	limit = compress == COMPRESS_AUTO ? raw - (raw >> AUTO_SHIFT) : raw - 1;
	if (compress == COMPRESS_LZ4 || (compress == COMPRESS_AUTO && worth_trying(s, scratch)))
		n = LZ4_compress_default((const char *)s->data, (char *)scratch, (int)raw,
					 (int)limit);
	if (n > 0) {
		memcpy(s->data, scratch, (size_t)n);
		s->codec = BLOCK_LZ4;
		s->stored = (uint32_t)n;
	}
	s->sum = hash64(s->data, s->stored);
}

int writer_check_stored(struct slot *s, struct err *err)
{
	s->zero = 0;
	s->stored_pages = s->npages;
	s->codec = s->from.codec;
	s->stored = s->from.stored;
	s->sum = hash64(s->data, s->stored);
	return s->sum == s->from.sum ? 0 : s->from.damaged(s->from.arg, s->from.block, err);
}

void *writer_worker(void *arg)
{
	struct image_writer *w = arg;
	CLEANUP_FREE uint8_t *scratch = malloc(BLOCK_BYTES);
	struct err err = { 0 };

	if (!scratch) {
		err_nomem(&err);
		writer_fail(w, &err);
		return NULL;
	}
	writer_enroll(w);
	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct slot *s;
		int rc;

		while ((w->held || w->next_work == w->tail) && !w->finishing && !w->stop &&
		       !w->failed)
			writer_listen(w, &w->work_bell);
		if (w->stop || w->failed || w->next_work == w->tail)
			break;
		s = w->ring[w->next_work++ % WRITER_SLOTS];
		rc = fault_point("image-worker", &err);
		pthread_mutex_unlock(&w->lock);
		if (rc == 0 && !s->ready)
			writer_prepare(s, w->params.compress, scratch);
		else if (rc == 0)
			rc = writer_check_stored(s, &err);
		if (rc < 0)
			writer_fail(w, &err);
		pthread_mutex_lock(&w->lock);
		s->done = true;
		writer_ring(&w->done_bell);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}
