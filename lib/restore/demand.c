/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that comes while its processes run. Its fresh mappings are registered with a userfaultfd,
 * one for each memory: a thread that touches a missing page waits until the page is put there.
 * Worker threads go through the images meanwhile, in the order of the file. Nothing is ever put
 * over a page that is there, so that it does not matter who comes first.
 *
 * Shared memory (views.c) is a memory of its own, which processes see parts of: who asks for a page
 * there waits at the userfaultfd of his process, and is woken there.
 */
#include "restore/demand.h"
#include "restore/huge.h"
#include "restore/views.h"

#include "proc/pagemap.h"
#include "proc/probe.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/user.h>

#define MAX_WORKERS 4
#define PAGE_BITS   (~(uint64_t)(CKPT_PAGE_SIZE - 1)) /* of an address, its page's */

struct memory {
	struct sink *sink;
	struct piece **by_at;
	size_t n;
};

struct demand {
	struct filler *f;
	struct memory *memories; /* parallel to the filler's sinks */
	unsigned n_memories;     /* those of processes, which come first */
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

/* While the list is still as it was made: sink by sink, in the order of the addresses. */
static struct piece *listed_at(struct filler *f, const struct sink *s, uint64_t at)
{
	size_t lo = 0, hi = f->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct piece *p = &f->pieces[mid];

		if (p->sink > s ||
		    (p->sink == s && p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE > at))
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < f->n && f->pieces[lo].sink == s && f->pieces[lo].at <= at ? &f->pieces[lo]
									      : NULL;
}

static int want_now(struct filler *f, const struct sink *s, uint64_t addr, struct err *err)
{
	uint64_t at = addr & PAGE_BITS;
	struct piece *p = listed_at(f, s, at);
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
static int want_for_thread(struct filler *f, const struct sink *s, const struct thread *t,
			   struct err *err)
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
			rc = want_now(f, s, addrs[i], err);
	return rc;
}

/*
 * Beside a page that was touched before the userfaultfd was there the kernel may have brought more:
 * a whole huge page at once, or khugepaged has made it one since. These are there, empty, and
 * nothing would ever be put over them once the process runs.
 */
static int want_beside(struct filler *f, const struct sink *s, int pagemap_fd, uint64_t at,
		       struct err *err)
{
	uint64_t there[HUGE_PAGE / CKPT_PAGE_SIZE], first = at & ~(HUGE_PAGE - 1);
	int rc = 0;

	if (io_pread_full(pagemap_fd, there, sizeof there,
			  first / CKPT_PAGE_SIZE * sizeof there[0]) != (ssize_t)sizeof there)
		return err_set(err, -EIO, "cannot read the page map of process %d", s->pid);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(there); i++)
		if (there[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED))
			rc = want_now(f, s, first + i * CKPT_PAGE_SIZE, err);
	return rc;
}

/* What was touched is there, but not yet with its content. */
static int want_touched(struct filler *f, const struct sink *s, const struct build_process *bp,
			struct err *err)
{
	CLEANUP_FD int fd = -1;
	uint64_t last = UINT64_MAX;
	char path[48];
	int rc = 0;

	if (!bp->n_touched)
		return 0;
	(void)snprintf(path, sizeof path, "/proc/%d/pagemap", bp->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	for (unsigned i = 0; rc == 0 && i < bp->n_touched; i++) {
		rc = want_now(f, s, bp->touched[i], err);
		if (rc == 0 && bp->touched[i] / HUGE_PAGE != last)
			rc = want_beside(f, s, fd, bp->touched[i], err);
		last = bp->touched[i] / HUGE_PAGE;
	}
	return rc;
}

static int want_for_process(struct filler *f, const struct sink *s, const struct build_process *bp,
			    struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < bp->state->n_threads; i++)
		rc = want_for_thread(f, s, &bp->state->threads[i], err);
	return rc < 0 ? rc : want_touched(f, s, bp, err);
}

int demand_choose(struct filler *f, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < f->n; i++) {
		struct piece *p = &f->pieces[i];

		p->later = (p->sink->bp || p->sink->base) && !p->sink->now &&
			   all_fresh(p->sink, p->at, p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE);
	}
	for (unsigned k = 0; rc == 0 && k < f->n_sinks; k++)
		for (unsigned i = 0; rc == 0 && i < f->r->tree->n_processes; i++)
			if (f->sinks[k].bp && f->r->procs[i].memory == f->sinks[k].bp)
				rc = want_for_process(f, &f->sinks[k], &f->r->procs[i], err);
	return rc;
}

/* --- from then on --------------------------------------------------------------------------------
 */

static int by_address(const void *a, const void *b)
{
	const struct piece *x = *(struct piece *const *)a, *y = *(struct piece *const *)b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static int make_index(struct memory *m, const struct filler *f, struct err *err)
{
	m->by_at = calloc(f->n + 1, sizeof(struct piece *));
	if (!m->by_at)
		return err_nomem(err);
	for (size_t i = 0; i < f->n; i++)
		if (f->pieces[i].sink == m->sink)
			m->by_at[m->n++] = &f->pieces[i];
	qsort(m->by_at, m->n, sizeof(struct piece *), by_address);
	return 0;
}

static int take_memories(struct demand *d, struct err *err)
{
	int rc = 0;

	d->memories = calloc(d->f->n_sinks + (size_t)1, sizeof *d->memories);
	if (!d->memories)
		return err_nomem(err);
	for (unsigned i = 0; rc == 0 && i < d->f->n_sinks; i++) {
		struct memory *m = &d->memories[i];

		m->sink = &d->f->sinks[i];
		d->n_memories += m->sink->bp != NULL;
		m->sink->runs = true;
		if (m->sink->bp || m->sink->base)
			rc = make_index(m, d->f, err);
	}
	return rc;
}

static void *work(void *arg)
{
	struct demand *d = arg;

	fill_work(d->f);
	if (atomic_fetch_sub(&d->working, 1) == 1) {
		huge_fill_zeros(d->f);
		(void)eventfd_write(d->done_fd, 1);
	}
	return NULL;
}

int demand_hurry(struct demand *d, struct err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned want = (unsigned)MAX(1, MIN(cores, MAX_WORKERS));
	sigset_t all, old;
	int rc = 0;

	if (d->f->end == d->f->n)
		return 0;
	d->f->end = d->f->n;
	atomic_store(&d->working, want);
	/* none of them may take the SIGCHLD that lazy.c waits for */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	for (; rc == 0 && d->n_workers < want; d->n_workers += rc == 0)
		rc = -pthread_create(&d->workers[d->n_workers], NULL, work, d);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
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
	d->done_fd = eventfd(0, EFD_CLOEXEC);
	rc = d->done_fd < 0 ? err_set(err, -errno, "cannot make an eventfd: %m") : 0;
	if (rc == 0)
		rc = take_memories(d, err);
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
	unsigned n;

	if (!d)
		return;
	n = d->f->n_sinks;
	(void)pthread_mutex_lock(&d->f->lock);
	d->f->end = d->f->next; /* nothing more to take */
	(void)pthread_mutex_unlock(&d->f->lock);
	while (d->n_workers > 0)
		(void)pthread_join(d->workers[--d->n_workers], NULL);
	fill_room_fini(&d->room);
	filler_free(d->f);
	for (unsigned i = 0; d->memories && i < n; i++)
		free(d->memories[i].by_at);
	free(d->memories);
	if (d->done_fd >= 0)
		(void)close(d->done_fd);
	free(d);
}

int demand_done_fd(const struct demand *d)
{
	return d->done_fd;
}

unsigned demand_count(const struct demand *d)
{
	return d->n_memories;
}

unsigned demand_of(const struct demand *d, const struct build_process *bp)
{
	unsigned i = 0;

	while (i < d->n_memories && d->memories[i].sink->bp != bp->memory)
		i++;
	return i;
}

int demand_fault_fd(const struct demand *d, unsigned which)
{
	return d->memories[which].sink->uffd;
}

/* The first piece that ends after the address. */
static struct piece *piece_after(const struct memory *m, uint64_t at)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct piece *p = m->by_at[mid];

		if (p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE > at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < m->n ? m->by_at[lo] : NULL;
}

/* [at, end) lies in fresh memory. */
static int provide(struct demand *d, const struct memory *m, uint64_t at, uint64_t end,
		   struct err *err)
{
	while (at < end) {
		struct piece *p = piece_after(m, at);
		uint64_t next;
		int rc = 0;

		if (p && p->at <= at) {
			next = p->at + (uint64_t)p->npages * CKPT_PAGE_SIZE;
			if (!atomic_load(&p->done))
				rc = fill_pieces(d->f, p, p + 1, &d->room, err);
		} else {
			next = p ? MIN(p->at, end) : end;
			rc = sink_zero(m->sink, at, next - at);
			if (rc == -ESRCH) /* it has just been killed */
				return 0;
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

/* [at, end) lies in the view. What lies beyond the end of the shared memory is not there ever. */
static int provide_shared(struct demand *d, const struct view *v, uint64_t at, uint64_t end,
			  struct err *err)
{
	uint64_t from = at - v->at.start + v->offset;
	uint64_t to = MIN(end - v->at.start + v->offset, v->of->fresh[0].end);

	return from < to ? provide(d, &d->memories[v->of - d->f->sinks], from, to, err) : 0;
}

static const struct view *view_of(const struct sink *s, uint64_t at)
{
	unsigned i = views_find(s, at);

	return i < s->n_views && s->views[i].at.start <= at ? &s->views[i] : NULL;
}

int demand_answer(struct demand *d, unsigned which, struct err *err)
{
	const struct memory *m = &d->memories[which];
	struct uffd_msg msg;
	int rc = 0;

	while (rc == 0 && read(m->sink->uffd, &msg, sizeof msg) == (ssize_t)sizeof msg) {
		uint64_t at = msg.arg.pagefault.address & PAGE_BITS;
		const struct view *v = view_of(m->sink, at);

		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		rc = v ? provide_shared(d, v, at, at + CKPT_PAGE_SIZE, err)
		       : provide(d, m, at, at + CKPT_PAGE_SIZE, err);
		if (rc == 0) /* it may have been there before the question came */
			sink_wake(m->sink, at, CKPT_PAGE_SIZE);
	}
	return rc;
}

bool demand_concerns(const struct demand *d, unsigned which, struct range range)
{
	const struct sink *s = d->memories[which].sink;
	unsigned i = sink_find_fresh(s, range.start), j = views_find(s, range.start);

	return range.start < range.end && ((i < s->n_fresh && s->fresh[i].start < range.end) ||
					   (j < s->n_views && s->views[j].at.start < range.end));
}

int demand_range(struct demand *d, unsigned which, struct range range, struct err *err)
{
	const struct memory *m = &d->memories[which];
	const struct sink *s = m->sink;
	int rc = 0;

	for (unsigned i = sink_find_fresh(s, range.start);
	     rc == 0 && i < s->n_fresh && s->fresh[i].start < range.end; i++) {
		uint64_t from = MAX(range.start & PAGE_BITS, s->fresh[i].start);
		uint64_t end = MIN((range.end + ~PAGE_BITS) & PAGE_BITS, s->fresh[i].end);

		rc = provide(d, m, from, end, err);
	}
	for (unsigned i = views_find(s, range.start);
	     rc == 0 && i < s->n_views && s->views[i].at.start < range.end; i++) {
		const struct view *v = &s->views[i];

		rc = provide_shared(d, v, MAX(range.start & PAGE_BITS, v->at.start),
				    MIN((range.end + ~PAGE_BITS) & PAGE_BITS, v->at.end), err);
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
	for (unsigned i = 0; i < d->f->n_sinks; i++)
		sink_close(&d->f->sinks[i]);
	return fault_point("lazy-end", err);
}
