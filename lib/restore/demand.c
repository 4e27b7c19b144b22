/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that comes while its process runs. Its fresh mappings are registered with a userfaultfd: a
 * thread that touches a missing page waits until the page is put there. Worker threads go through
 * the images meanwhile, in the order of the file. Nothing is ever put over a page that is there, so
 * that it does not matter who comes first.
 */
#include "restore/demand.h"

#include "proc/probe.h"
#include "util/cleanup.h"
#include "util/fault.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/user.h>

#define MAX_WORKERS 4
#define PAGE_BITS   (~(uint64_t)(CKPT_PAGE_SIZE - 1)) /* of an address, its page's */

struct demand {
	struct filler *f;
	const struct sink *sink;
	struct piece **by_at; /* the process's */
	size_t n;
	struct fill_room room;
	pthread_t workers[MAX_WORKERS];
	unsigned n_workers;
	atomic_uint working;
	int done_fd;
};

/* --- what must be there from the start -----------------------------------------------------------
 */

static bool all_fresh(const struct sink *s, uint64_t at, uint64_t end)
{
	for (unsigned i = sink_find_fresh(s, at); at < end; at = s->fresh[i++].end)
		if (i == s->n_fresh || s->fresh[i].start > at)
			return false;
	return true;
}

/* While the list is still as it was made: in the order of the addresses. */
static struct piece *listed_at(struct filler *f, uint64_t at)
{
	size_t lo = 0, hi = f->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct piece *p = &f->pieces[mid];

		if (p->sink != &f->sinks[0] || p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE > at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < f->n && f->pieces[lo].sink == &f->sinks[0] && f->pieces[lo].at <= at
		       ? &f->pieces[lo]
		       : NULL;
}

static int want_now(struct filler *f, uint64_t addr, struct err *err)
{
	const struct sink *s = &f->sinks[0];
	uint64_t at = addr & PAGE_BITS;
	struct piece *p = listed_at(f, at);
	int rc = 0;

	if (p)
		p->later = false;
	else if (all_fresh(s, at, at + CKPT_PAGE_SIZE))
		rc = sink_zero(s, at, CKPT_PAGE_SIZE);
	return rc < 0 ? err_set(err, rc, "cannot fill the job's memory at %#llx: %m",
				(unsigned long long)at)
		      : 0;
}

/* Where the kernel writes by itself or we do, and where the threads go on. */
static int want_for_thread(struct filler *f, const struct thread *t, struct err *err)
{
	struct user_regs_struct gp;
	uint64_t addrs[7];
	int rc = 0;

	memcpy(&gp, t->gregs.data, sizeof gp);
	addrs[0] = t->rseq_ptr;
	addrs[1] = t->rseq_ptr + t->rseq_len;
	addrs[2] = t->clear_child_tid;
	addrs[3] = t->robust_list;
	addrs[4] = gp.rsp;
	addrs[5] = gp.rip;
	addrs[6] = gp.fs_base;
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(addrs); i++)
		if (addrs[i])
			rc = want_now(f, addrs[i], err);
	return rc;
}

int demand_choose(struct filler *f, struct err *err)
{
	const struct build_process *bp = &f->r->procs[0];
	const struct sink *s = &f->sinks[0];
	int rc = 0;

	for (size_t i = 0; i < f->n && f->pieces[i].sink == s; i++) {
		struct piece *p = &f->pieces[i];

		p->later = all_fresh(s, p->at, p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE);
	}
	for (unsigned i = 0; rc == 0 && i < bp->state->n_threads; i++)
		rc = want_for_thread(f, &bp->state->threads[i], err);
	/* these are there, but not yet with their content */
	for (unsigned i = 0; rc == 0 && i < bp->n_touched; i++)
		rc = want_now(f, bp->touched[i], err);
	return rc;
}

/* --- from then on --------------------------------------------------------------------------------
 */

static int by_address(const void *a, const void *b)
{
	const struct piece *x = *(struct piece *const *)a, *y = *(struct piece *const *)b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static int make_index(struct demand *d, struct err *err)
{
	d->by_at = calloc(d->f->n, sizeof(struct piece *));
	if (!d->by_at)
		return err_nomem(err);
	for (size_t i = 0; i < d->f->n; i++)
		if (d->f->pieces[i].sink == d->sink)
			d->by_at[d->n++] = &d->f->pieces[i];
	qsort(d->by_at, d->n, sizeof(struct piece *), by_address);
	return 0;
}

static void *work(void *arg)
{
	struct demand *d = arg;

	fill_work(d->f);
	if (atomic_fetch_sub(&d->working, 1) == 1)
		(void)eventfd_write(d->done_fd, 1);
	return NULL;
}

int demand_hurry(struct demand *d, struct err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned want = (unsigned)MAX(1, MIN(cores, MAX_WORKERS));
	int rc = 0;

	if (d->f->end == d->f->n)
		return 0;
	d->f->end = d->f->n;
	atomic_store(&d->working, want);
	for (; rc == 0 && d->n_workers < want; d->n_workers += rc == 0)
		rc = -pthread_create(&d->workers[d->n_workers], NULL, work, d);
	if (d->n_workers == 0)
		return err_set(err, rc, "cannot start a thread: %m");
	/* with fewer than wanted it goes on */
	if (d->n_workers < want &&
	    atomic_fetch_sub(&d->working, want - d->n_workers) == want - d->n_workers)
		(void)eventfd_write(d->done_fd, 1);
	return 0;
}

int demand_new(struct filler *f, struct demand **ret, struct err *err)
{
	struct demand *d = calloc(1, sizeof *d);
	int rc;

	if (!d) {
		filler_free(f);
		return err_nomem(err);
	}
	d->f = f;
	d->sink = &f->sinks[0];
	f->sinks[0].runs = true;
	d->done_fd = eventfd(0, EFD_CLOEXEC);
	rc = d->done_fd < 0 ? err_set(err, -errno, "cannot make an eventfd: %m") : 0;
	if (rc == 0)
		rc = make_index(d, err);
	if (rc == 0)
		rc = fill_room_init(&d->room, err);
	if (rc == 0)
		rc = fault_point("lazy-begin", err);
	if (rc == 0 && !probe_without("background"))
		rc = demand_hurry(d, err);
	if (rc < 0)
		demand_free(d);
	else
		*ret = d;
	return rc;
}

void demand_free(struct demand *d)
{
	if (!d)
		return;
	(void)pthread_mutex_lock(&d->f->lock);
	d->f->end = d->f->next; /* nothing more to take */
	(void)pthread_mutex_unlock(&d->f->lock);
	while (d->n_workers > 0)
		(void)pthread_join(d->workers[--d->n_workers], NULL);
	fill_room_fini(&d->room);
	filler_free(d->f);
	free(d->by_at);
	if (d->done_fd >= 0)
		(void)close(d->done_fd);
	free(d);
}

int demand_done_fd(const struct demand *d)
{
	return d->done_fd;
}

int demand_fault_fd(const struct demand *d)
{
	return d->sink->uffd;
}

/* The first piece that ends after the address. */
static struct piece *piece_after(const struct demand *d, uint64_t at)
{
	size_t lo = 0, hi = d->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct piece *p = d->by_at[mid];

		if (p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE > at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < d->n ? d->by_at[lo] : NULL;
}

/* [at, end) lies in fresh memory. */
static int provide(struct demand *d, uint64_t at, uint64_t end, struct err *err)
{
	while (at < end) {
		struct piece *p = piece_after(d, at);
		uint64_t next;
		int rc = 0;

		if (p && p->at <= at) {
			next = p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE;
			if (!atomic_load(&p->done))
				rc = fill_pieces(d->f, p, p + 1, &d->room, err);
		} else {
			next = p ? MIN(p->at, end) : end;
			rc = sink_zero(d->sink, at, next - at);
			if (rc < 0)
				err_set(err, rc, "cannot fill the job's memory at %#llx: %m",
					(unsigned long long)at);
		}
		if (rc < 0)
			return rc;
		at = next;
	}
	return 0;
}

int demand_answer(struct demand *d, struct err *err)
{
	struct uffd_msg msg;
	int rc = 0;

	while (rc == 0 && read(d->sink->uffd, &msg, sizeof msg) == (ssize_t)sizeof msg) {
		uint64_t at = msg.arg.pagefault.address & PAGE_BITS;

		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		rc = provide(d, at, at + CKPT_PAGE_SIZE, err);
		if (rc == 0) /* it may have been there before the question came */
			sink_wake(d->sink, at, CKPT_PAGE_SIZE);
	}
	return rc;
}

bool demand_concerns(const struct demand *d, struct range range)
{
	unsigned i = sink_find_fresh(d->sink, range.start);

	return range.start < range.end && i < d->sink->n_fresh &&
	       d->sink->fresh[i].start < range.end;
}

int demand_range(struct demand *d, struct range range, struct err *err)
{
	const struct sink *s = d->sink;
	int rc = 0;

	for (unsigned i = sink_find_fresh(s, range.start);
	     rc == 0 && i < s->n_fresh && s->fresh[i].start < range.end; i++) {
		uint64_t from = MAX(range.start & PAGE_BITS, s->fresh[i].start);
		uint64_t end = MIN((range.end + ~PAGE_BITS) & PAGE_BITS, s->fresh[i].end);

		rc = provide(d, from, end, err);
	}
	return rc;
}

int demand_end(struct demand *d, struct err *err)
{
	while (d->n_workers > 0)
		(void)pthread_join(d->workers[--d->n_workers], NULL);
	if (d->f->rc < 0) {
		*err = d->f->err;
		return d->f->rc;
	}
	/* closing it also wakes whoever waits */
	sink_close(&d->f->sinks[0]);
	return fault_point("lazy-end", err);
}
