/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory and the content of shared spaces. The resolved runs are cut at block boundaries and
 * grouped by block, so that every block of every image is read once; worker threads read, check,
 * decompress and put them into place (sink.c).
 */
#include "restore/sink.h"

#include "util/cleanup.h"
#include "util/fault.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_WORKERS 4

/* Pages of one block that belong together at one place. */
struct piece {
	uint32_t image, block;
	uint32_t in_block, npages;
	const struct sink *sink;
	uint64_t at; /* where in the sink */
};

struct filler {
	struct restoring *r;
	struct piece *pieces;
	size_t n, room;
	size_t next; /* first piece not yet taken by a worker */
	pthread_mutex_t lock;
	struct err err;
	int rc;
};

static int add_piece(struct filler *f, const struct piece *p, struct err *err)
{
	struct piece *more;

	if (f->n == f->room) {
		more = realloc(f->pieces, (f->room ? f->room * 2 : 1024) * sizeof *more);
		if (!more)
			return err_nomem(err);
		f->pieces = more;
		f->room = f->room ? f->room * 2 : 1024;
	}
	f->pieces[f->n++] = *p;
	return 0;
}

static int add_run(struct filler *f, const struct resolved_run *rr, const struct sink *sink,
		   struct err *err)
{
	const struct image_reader *image = resolved_image(f->r->images, rr->image);
	uint32_t block = rr->run.block, in_block = rr->run.block_page;
	uint64_t page = rr->run.page;

	for (uint64_t left = rr->run.npages; left > 0;) {
		struct piece p = { .image = rr->image,
				   .block = block,
				   .in_block = in_block,
				   .sink = sink,
				   .at = page * CKPT_PAGE_SIZE };
		int rc;

		p.npages = (uint32_t)MIN(
			(uint64_t)(image_reader_block_pages(image, block) - in_block), left);
		if (p.npages == 0)
			return err_image(err, -EINVAL,
					 "image '%s': a run of pages leads past its block",
					 image_reader_name(image));
		rc = add_piece(f, &p, err);
		if (rc < 0)
			return rc;
		left -= p.npages;
		page += p.npages;
		block++;
		in_block = 0;
	}
	return 0;
}

/* Zero pages need writing only where a file shows through otherwise. */
static int write_zeros(const struct process *p, const struct page_run *run, const struct sink *sink,
		       struct err *err)
{
	static const uint8_t zero[CKPT_PAGE_SIZE];
	int rc = 0;

	for (unsigned i = 0; p && i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];
		uint64_t first = MAX(run->page, v->start / CKPT_PAGE_SIZE);
		uint64_t end = MIN(run->page + run->npages, v->end / CKPT_PAGE_SIZE);

		if (v->kind != VMA_FILE)
			continue;
		for (; rc == 0 && first < end; first++)
			rc = sink_put(sink, first * CKPT_PAGE_SIZE, zero, sizeof zero, err);
	}
	return rc;
}

static int add_space(struct filler *f, uint32_t space, const struct process *p,
		     const struct sink *sink, struct err *err)
{
	const struct resolved_run *runs;
	unsigned n;

	runs = resolved_runs(f->r->images, space, &n);
	for (unsigned i = 0; i < n; i++) {
		int rc = runs[i].run.kind == RUN_ZERO ? write_zeros(p, &runs[i].run, sink, err)
						      : add_run(f, &runs[i], sink, err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int by_block(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->image != y->image)
		return x->image < y->image ? -1 : 1;
	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->in_block < y->in_block ? -1 : x->in_block > y->in_block;
}

/* Takes the pieces [*first, *end) of the next few blocks, which lie side by side in one image. */
static bool take(struct filler *f, size_t *first, size_t *end)
{
	const struct piece *p;
	bool some;

	(void)pthread_mutex_lock(&f->lock);
	p = &f->pieces[f->next];
	some = f->rc == 0 && f->next < f->n;
	*first = *end = f->next;
	while (some && *end < f->n && f->pieces[*end].image == p->image &&
	       f->pieces[*end].block - p->block < IMAGE_BULK_BLOCKS)
		++*end;
	f->next = *end;
	(void)pthread_mutex_unlock(&f->lock);
	return some;
}

/* The pieces at hand, in the order of their blocks. */
struct stretch {
	const struct piece *next, *end;
};

static int place_block(void *arg, uint32_t block, const uint8_t *pages, struct err *err)
{
	struct stretch *s = arg;
	int rc = 0;

	for (; rc == 0 && s->next < s->end && s->next->block == block; s->next++)
		rc = sink_put(s->next->sink, s->next->at,
			      pages + (size_t)s->next->in_block * CKPT_PAGE_SIZE,
			      (size_t)s->next->npages * CKPT_PAGE_SIZE, err);
	return rc;
}

static int fill_blocks(struct filler *f, size_t first, size_t end, uint8_t *scratch, uint8_t *pages,
		       struct err *err)
{
	struct stretch s = { &f->pieces[first], &f->pieces[end] };
	const struct image_reader *image = resolved_image(f->r->images, s.next->image);
	uint32_t block = s.next->block;

	return image_reader_each(image, block, s.end[-1].block - block + 1, scratch, pages,
				 place_block, &s, err);
}

static void *work(void *arg)
{
	struct filler *f = arg;
	CLEANUP_FREE uint8_t *scratch = aligned_alloc(CKPT_PAGE_SIZE, IMAGE_BULK_SCRATCH);
	CLEANUP_FREE uint8_t *pages = malloc((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
	struct err err = { 0 };
	size_t first, end;
	int rc = scratch && pages ? 0 : err_nomem(&err);

	while (rc == 0 && take(f, &first, &end))
		rc = fill_blocks(f, first, end, scratch, pages, &err);
	if (rc < 0) {
		(void)pthread_mutex_lock(&f->lock);
		if (f->rc == 0) {
			f->rc = rc;
			f->err = err;
		}
		(void)pthread_mutex_unlock(&f->lock);
	}
	return NULL;
}

static int run_workers(struct filler *f, struct err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = 0, want = (unsigned)MAX(1, MIN(cores, MAX_WORKERS));
	pthread_t threads[MAX_WORKERS];
	sigset_t all, old;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (n + 1 < want && pthread_create(&threads[n], NULL, work, f) == 0)
		n++;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)work(f);
	while (n > 0)
		(void)pthread_join(threads[--n], NULL);
	if (f->rc < 0)
		*err = f->err;
	return f->rc;
}

/* Our own copy of the maker's descriptor. */
static int fetch_fd(void *arg, int maker_fd)
{
	const struct restoring *r = arg;

	return sink_fetch_fd(r->maker, maker_fd);
}

static int add_shared(struct filler *f, const struct space *s, int maker_fd, struct sink *sink,
		      struct err *err)
{
	*sink = (struct sink){ .fd = fetch_fd(f->r, maker_fd), .uffd = -1 };
	if (sink->fd < 0)
		return err_set(err, sink->fd, "cannot reach the content of '%s': %m",
			       s->name ? s->name : "");
	if (ftruncate(sink->fd, (off_t)s->size) < 0)
		return err_set(err, -errno, "cannot set the size of '%s': %m",
			       s->name ? s->name : "");
	return add_space(f, s->id, NULL, sink, err);
}

/* Opens a sink for each process and each shared space, and lists what goes there. */
static int add_all(struct filler *f, struct sink *sinks, unsigned *n, struct err *err)
{
	struct restoring *r = f->r;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++) {
		const struct process *p = r->procs[i].state;

		rc = sink_open_process(&sinks[(*n)++], &r->procs[i], err);
		if (rc == 0)
			rc = add_space(f, p->space, p, &sinks[*n - 1], err);
	}
	for (unsigned i = 0; rc == 0 && i < r->tree->n_spaces; i++)
		if (r->tree->spaces[i].kind != SPACE_MM && r->rb.space_fds[i] >= 0)
			rc = add_shared(f, &r->tree->spaces[i], r->rb.space_fds[i], &sinks[(*n)++],
					err);
	return rc;
}

int fill_all(struct restoring *r, struct err *err)
{
	struct filler f = { .r = r, .lock = PTHREAD_MUTEX_INITIALIZER };
	CLEANUP_FREE struct sink *sinks = calloc(r->tree->n_spaces + r->tree->n_processes + 1,
						 sizeof *sinks);
	unsigned n = 0;
	int rc = sinks ? add_all(&f, sinks, &n, err) : err_nomem(err);

	if (rc == 0 && f.n) {
		qsort(f.pieces, f.n, sizeof *f.pieces, by_block);
		for (unsigned i = 0; i < resolved_n_images(r->images); i++)
			image_reader_direct(resolved_image(r->images, i));
		rc = run_workers(&f, err);
	}
	while (n > 0)
		sink_close(&sinks[--n]);
	free(f.pieces);
	if (rc == 0)
		rc = files_seal(&r->rb, fetch_fd, r, err);
	return rc < 0 ? rc : fault_point("restore-filled", err);
}
