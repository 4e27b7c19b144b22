/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory and the content of shared spaces. The resolved runs are cut at block boundaries and
 * grouped by block, so that every block of every image is read once; worker threads read, check,
 * decompress and put them into place (sink.c).
 */
#include "restore/filler.h"
#include "restore/huge.h"
#include "restore/views.h"

#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_WORKERS 4

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
	memcpy(&f->pieces[f->n++], p, sizeof *p);
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

	if (x->later != y->later)
		return x->later ? 1 : -1;
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
	some = f->rc == 0 && f->next < f->end;
	*first = *end = f->next;
	while (some && *end < f->end && f->pieces[*end].image == p->image &&
	       f->pieces[*end].block - p->block < IMAGE_BULK_BLOCKS)
		++*end;
	f->next = *end;
	(void)pthread_mutex_unlock(&f->lock);
	return some;
}

/* The pieces at hand, in the order of their blocks. */
struct stretch {
	struct piece *next, *end;
};

static int place_block(void *arg, uint32_t block, const uint8_t *pages, struct err *err)
{
	struct stretch *s = arg;
	int rc = 0;

	for (; rc == 0 && s->next < s->end && s->next->block == block; s->next++) {
		struct piece *p = s->next;

		rc = sink_put(p->sink, p->at, pages + (size_t)p->in_block * CKPT_PAGE_SIZE,
			      (size_t)p->npages * CKPT_PAGE_SIZE, err);
		if (rc == -ESRCH && p->sink->runs) { /* it has been killed: nobody needs it */
			err_clear(err);
			rc = 0;
		}
		atomic_store(&p->done, rc == 0);
	}
	return rc;
}

int fill_pieces(struct filler *f, struct piece *p, struct piece *end, const struct fill_room *room,
		struct err *err)
{
	struct stretch s = { p, end };

	return image_reader_each(resolved_image(f->r->images, p->image), p->block,
				 end[-1].block - p->block + 1, room->scratch, room->pages,
				 place_block, &s, err);
}

int fill_room_init(struct fill_room *room, struct err *err)
{
	room->scratch = aligned_alloc(CKPT_PAGE_SIZE, IMAGE_BULK_SCRATCH);
	room->pages = malloc((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
	return room->scratch && room->pages ? 0 : err_nomem(err);
}

void fill_room_fini(struct fill_room *room)
{
	free(room->scratch);
	free(room->pages);
}

void fill_work(struct filler *f)
{
	CLEANUP(fill_room_fini) struct fill_room room = { 0 };
	struct err err = { 0 };
	size_t first, end;
	int rc = fill_room_init(&room, &err);

	while (rc == 0 && take(f, &first, &end))
		rc = fill_pieces(f, &f->pieces[first], &f->pieces[end], &room, &err);
	if (rc == 0)
		return;
	(void)pthread_mutex_lock(&f->lock);
	if (f->rc == 0) {
		f->rc = rc;
		f->err = err;
	}
	(void)pthread_mutex_unlock(&f->lock);
}

static void *work(void *arg)
{
	fill_work(arg);
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
	fill_work(f);
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
	int rc = 0;

	*sink = (struct sink){ .fd = fetch_fd(f->r, maker_fd), .uffd = -1, .space = s->id };
	if (sink->fd < 0)
		return err_set(err, sink->fd, "cannot reach the content of '%s': %m",
			       s->name ? s->name : "");
	if (ftruncate(sink->fd, (off_t)s->size) < 0)
		return err_set(err, -errno, "cannot set the size of '%s': %m",
			       s->name ? s->name : "");
	if (f->r->lazy && views_can_wait(f->r->tree, s))
		rc = views_open(sink, s, err);
	return rc < 0 ? rc : add_space(f, s->id, NULL, sink, err);
}

/* Opens a sink for each process and each shared space, and lists what goes there. */
static int add_all(struct filler *f, struct err *err)
{
	struct restoring *r = f->r;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++) {
		const struct process *p = r->procs[i].state;
		const struct resolved_run *runs;
		unsigned n;

		if (r->procs[i].memory != &r->procs[i])
			continue;
		runs = resolved_runs(r->images, p->space, &n);
		rc = huge_prepare(r, &r->procs[i], r->lazy, err);
		if (rc == 0)
			rc = sink_open_process(&f->sinks[f->n_sinks++], &r->procs[i], runs, n,
					       r->lazy, err);
		if (rc == 0)
			rc = huge_keep_small(r, &r->procs[i], &f->sinks[f->n_sinks - 1], err);
		if (rc == 0)
			rc = add_space(f, p->space, p, &f->sinks[f->n_sinks - 1], err);
	}
	for (unsigned i = 0; rc == 0 && i < r->tree->n_spaces; i++)
		if (r->tree->spaces[i].kind != SPACE_MM && r->rb.space_fds[i] >= 0)
			rc = add_shared(f, &r->tree->spaces[i], r->rb.space_fds[i],
					&f->sinks[f->n_sinks++], err);
	if (rc == 0 && r->lazy)
		rc = views_enroll(f, err);
	return rc;
}

void filler_free(struct filler *f)
{
	if (!f)
		return;
	while (f->n_sinks > 0)
		sink_close(&f->sinks[--f->n_sinks]);
	free(f->sinks);
	free(f->pieces);
	(void)pthread_mutex_destroy(&f->lock);
	free(f);
}

/* What --lazy could not leave for later. */
static void say_what_came_first(const struct filler *f, int64_t began_ns)
{
	double ms = (double)(trace_now_ns() - began_ns) / 1e6;
	uint64_t pages = 0, shared = 0;

	for (size_t i = 0; i < f->end; i++) {
		pages += f->pieces[i].npages;
		shared += f->pieces[i].sink->pid ? 0 : f->pieces[i].npages;
	}
	restore_warn(f->r,
		     "filled before the job runs: %llu KiB, of which shared memory and nameless "
		     "files %llu KiB, in %.1f ms",
		     (unsigned long long)pages * CKPT_PAGE_SIZE / 1024,
		     (unsigned long long)shared * CKPT_PAGE_SIZE / 1024, ms);
}

static int fill(struct filler *f, struct err *err)
{
	struct restoring *r = f->r;
	int64_t began_ns = trace_now_ns();
	bool none = false;
	int rc;

	f->sinks = calloc(r->tree->n_spaces + r->tree->n_processes + 1, sizeof *f->sinks);
	rc = f->sinks ? add_all(f, err) : err_nomem(err);
	for (unsigned i = 0; i < f->n_sinks; i++)
		none |= f->sinks[i].bp && f->sinks[i].uffd < 0;
	if (rc == 0 && r->lazy && none)
		restore_warn(r, "--lazy: no userfaultfd can be had here, so all memory is filled "
				"before the job runs");
	if (rc == 0 && r->lazy)
		rc = demand_choose(f, err);
	if (rc < 0 || !f->n)
		return rc;
	qsort(f->pieces, f->n, sizeof *f->pieces, by_block);
	while (f->end < f->n && !f->pieces[f->end].later)
		f->end++;
	for (unsigned i = 0; i < resolved_n_images(r->images); i++)
		image_reader_direct(resolved_image(r->images, i));
	rc = run_workers(f, err);
	if (rc == 0 && r->lazy && r->opts->verbose)
		say_what_came_first(f, began_ns);
	return rc;
}

int fill_all(struct restoring *r, struct err *err)
{
	struct filler *f = calloc(1, sizeof *f);
	int rc;

	if (!f)
		return err_nomem(err);
	f->r = r;
	(void)pthread_mutex_init(&f->lock, NULL);
	rc = fill(f, err);
	if (rc == 0 && f->end < f->n)
		r->filler = f; /* the rest while the job runs */
	else
		filler_free(f);
	if (rc == 0)
		rc = files_seal(&r->rb, fetch_fd, r, err);
	return rc < 0 ? rc : fault_point("restore-filled", err);
}
