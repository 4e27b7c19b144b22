/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Written pages by asynchronous write-protection: userfaultfd(2) with UFFD_FEATURE_WP_ASYNC, and
 * PAGEMAP_SCAN (Linux 6.7). The kernel takes the protection of a page away at the first write, also
 * at one of its own (read(2) into it); nobody is asked or woken.
 *
 * The userfaultfd must be made by the process whose memory it is about, but may be used by whoever
 * holds it: it is fetched and closed there at once. When we end, the kernel takes all back.
 *
 * A mapping is registered when it is found to hold pages of its own. Until then, and after whatever
 * takes the registration away (mremap, a new mapping in its place, exec, fork), all its pages count
 * as written. Mappings that hold none stay as they are: registered, a program's text would be paged
 * in more slowly.
 */
#include "dump/tracker.h"
#include "dump/uffd_marks.h"
#include "proc/pagemap.h"
#include "util/arena.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/log.h"

#include <fcntl.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOG_ROOM "dump"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
/* Linux 6.4 and 6.7 */
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_WP_ASYNC       (1ull << 15)
/* So many pages are passed by in the time that a call of its own would take. */
#define WORTH_A_CALL (1024ull * CKPT_PAGE_SIZE)

/* --- the descriptor ----------------------------------------------------------------------- */

/* The number that the next descriptor of a stopped process will have. */
static int lowest_free(const struct track_target *t, struct err *err)
{
	struct arena *a = arena_new();
	unsigned n, at = 0;
	int *fds, rc;

	if (!a)
		return err_nomem(err);
	rc = proc_fds(t->proc_dirfd, a, &fds, &n, err);
	while (rc == 0 && at < n && fds[at] == (int)at)
		at++;
	arena_free(a);
	return rc < 0 ? rc : (int)at;
}

/* The stopped process makes it, we take it over, the process closes it: should that not come to
 * pass, it does so by itself. */
static int fetch(const struct track_target *t, int *ret_fd, struct err *err)
{
	const int flags = O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY;
	int number = lowest_free(t, err);
	CLEANUP_FD int fd = -1;
	unsigned call;
	int rc;

	if (number < 0)
		return number;
	rc = batch_undo(t->batch, SYS_close, (uint64_t)number, 0, 0, err);
	if (rc < 0)
		return rc;
	batch_start(t->batch);
	call = batch_call(t->batch, NULL, SYS_userfaultfd, flags);
	rc = batch_run(t->batch, t->pid, err);
	if (rc < 0)
		return rc;
	rc = (int)batch_ret(t->batch, call);
	if (rc < 0) {
		(void)batch_undone(t->batch, NULL);
		return err_set(err, rc, "process %d cannot make a userfaultfd: %m", t->pid);
	}
	number = rc;
	fd = (int)syscall(SYS_pidfd_getfd, t->pidfd, number, 0);
	if (fd < 0)
		return err_set(err, -errno, "cannot fetch a descriptor of process %d: %m", t->pid);
	rc = fault_point("dump-watch", err);
	if (rc < 0)
		return rc;
	batch_start(t->batch);
	(void)batch_call(t->batch, "close a userfaultfd", SYS_close, number);
	rc = batch_run(t->batch, t->pid, err);
	if (rc == 0)
		rc = batch_undone(t->batch, err);
	if (rc == 0)
		*ret_fd = fd_take(&fd);
	return rc;
}

static void uffd_forget(struct watched *w)
{
	if (w->uffd >= 0)
		(void)close(w->uffd);
	w->uffd = -1;
	ranges_fini(&w->ours);
	ranges_fini(&w->unproven);
}

static int attach(const struct track_target *t, struct err *err)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED };
	int rc = fetch(t, &t->w->uffd, err);

	if (rc < 0)
		return rc;
	t->w->ours.excess = RANGES_SHRINK;
	if (ioctl(t->w->uffd, UFFDIO_API, &api) < 0) {
		rc = err_set(err, -errno, "cannot watch the memory of process %d: %m", t->pid);
		uffd_forget(t->w);
	}
	return rc;
}

/* --- registering -------------------------------------------------------------------------- */

static int try_register(struct watched *w, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {
		.range = { .start = start, .len = end - start },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct ranges one = { 0 };
	struct span span = { start, end };

	if (ioctl(w->uffd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	one.v = &span;
	one.n = 1;
	(void)ranges_unite(&w->ours, &one); /* not remembered: asked for again */
	return 0;
}

bool uffd_is_ours(struct watched *w, uint64_t start, uint64_t end)
{
	size_t at = 0;
	bool inside;

	if (w->uffd < 0)
		return false;
	if (ranges_part(&w->ours, &at, start, end, &inside) == end && inside)
		return true;
	/* grown since; another's registration answers EBUSY */
	return try_register(w, start, end) == 0;
}

static bool holds(const struct ranges *fresh, size_t *at, const struct proc_map *m)
{
	bool inside;

	return ranges_part(fresh, at, m->start, m->end, &inside) < m->end || inside;
}

/* Registers the mappings that hold any of the pages: neighbours in one call, unless one of them
 * spoils it. What cannot be watched stays unwatched. -ESRCH: the address space is none any more. */
static int register_maps(const struct track_target *t, const struct ranges *fresh)
{
	size_t at = 0;

	for (unsigned i = 0; i < t->n_maps;) {
		const struct proc_map *first = &t->maps[i];
		unsigned n = 0;

		while (i + n < t->n_maps && track_private(&first[n]) &&
		       holds(fresh, &at, &first[n]) && (!n || first[n].start == first[n - 1].end))
			n++;
		if (n > 1 && try_register(t->w, first->start, first[n - 1].end) == 0) {
			i += n;
			continue;
		}
		for (unsigned k = 0; k < n; k++) {
			int rc = try_register(t->w, first[k].start, first[k].end);

			if (rc == -ESRCH)
				return rc;
			if (rc < 0)
				log_debug("pid %d: mapping at %#llx cannot be watched: %s", t->pid,
					  (unsigned long long)first[k].start, strerror(-rc));
		}
		i += n ? n : 1;
	}
	return 0;
}

/* --- finding ------------------------------------------------------------------------------ */

struct finder {
	const struct track_target *t;
	struct pagemap_scan what;
	struct ranges *into;
	size_t next; /* of t->runs */
};

static int on_region(void *arg, const struct pagemap_region *r, struct err *err)
{
	struct finder *f = arg;

	return ranges_append(f->into, r->start, r->end) < 0 ? err_nomem(err) : 0;
}

/* Only pages of the process's own are of interest: not those of files, the zero page, guards. */
static uint64_t others(bool files)
{
	return (files ? CATEGORY_FILE : 0) | CATEGORY_PFNZERO |
	       (proc_pagemap_has_guard() ? CATEGORY_GUARD : 0);
}

static int query(struct finder *f, uint64_t start, uint64_t end, bool files, pagemap_region_fn each,
		 void *arg, struct err *err)
{
	struct pagemap_scan what = f->what;

	what.category_inverted |= others(files);
	what.category_mask |= others(files);
	what.category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED;
	return proc_pagemap_query(f->t->pagemap_fd, start, end, &what, each, arg, err);
}

static int scan_range(struct finder *f, uint64_t start, uint64_t end, bool files, struct err *err)
{
	return query(f, start, end, files, on_region, f, err);
}

static int scan_stretch(void *arg, unsigned first, unsigned last, bool files, struct err *err)
{
	struct finder *f = arg;

	return scan_range(f, f->t->maps[first].start, f->t->maps[last].end, files, err);
}

static bool has_content(const struct page_class_run *run)
{
	return run->classes & (PAGE_ANON | PAGE_SWAPPED);
}

/* What was seen to have (want), or not (0), a mark. */
static int pick(const struct page_runs *runs, uint32_t mark, uint32_t want, struct ranges *into,
		struct err *err)
{
	for (size_t i = 0; i < runs->n; i++) {
		const struct page_class_run *run = &runs->v[i];

		if (has_content(run) && (run->classes & mark) == want &&
		    ranges_append(into, run->start, run->end) < 0)
			return err_nomem(err);
	}
	return 0;
}

/* What is watched from now on. A run of which only a part is stays unwatched this time. */
static void mark_watched(const struct track_target *t)
{
	size_t at = 0;

	for (size_t i = 0; i < t->runs->n; i++) {
		struct page_class_run *run = &t->runs->v[i];
		bool inside;

		if (has_content(run) &&
		    ranges_part(&t->w->ours, &at, run->start, run->end, &inside) == run->end &&
		    inside)
			run->classes |= PAGE_WATCHED;
	}
}

/* A stretch of which it is known where something was written: only there it is looked again and
 * protected. */
static int protect_stretch(void *arg, unsigned first, unsigned last, bool files, struct err *err)
{
	struct finder *f = arg;
	const struct page_runs *runs = f->t->runs;
	uint64_t start = 0, end = 0;
	int rc = 0;

	while (f->next < runs->n && runs->v[f->next].end <= f->t->maps[first].start)
		f->next++;
	for (; rc == 0 && f->next < runs->n; f->next++) {
		const struct page_class_run *run = &runs->v[f->next];

		if (run->start >= f->t->maps[last].end)
			break;
		if (!has_content(run) || !(run->classes & PAGE_WRITTEN))
			continue;
		if (end && run->start - end > WORTH_A_CALL) {
			rc = scan_range(f, start, end, files, err);
			end = 0;
		}
		start = end ? start : run->start;
		end = run->end;
	}
	return rc == 0 && end ? scan_range(f, start, end, files, err) : rc;
}

static struct finder unwatched(const struct track_target *t, struct ranges *into)
{
	return (struct finder){ .t = t,
				.into = into,
				.what = { .category_inverted = CATEGORY_WPALLOWED,
					  .category_mask = CATEGORY_WPALLOWED,
					  .return_mask = CATEGORY_WPALLOWED } };
}

static int find_unwatched(const struct track_target *t, struct ranges *fresh, struct err *err)
{
	struct finder f = unwatched(t, fresh);

	return track_stretches(t, scan_stretch, &f, err);
}

/* Finds and protects in one. Without the category "present or swapped" it would also protect what
 * is not there (proc/pagemap.h). */
static int find_written(const struct track_target *t, struct ranges *dirty, struct err *err)
{
	struct finder f = { .t = t,
			    .into = dirty,
			    .what = { .flags = SCAN_WP_MATCHING,
				      .category_mask = CATEGORY_WRITTEN,
				      .return_mask = CATEGORY_WRITTEN } };
	int rc = track_stretches(t, t->runs ? protect_stretch : scan_stretch, &f, err);

	return rc < 0 ? rc : fault_point("dump-found", err);
}

static int note(struct watched *w, const struct ranges *some, struct ranges *found, struct err *err)
{
	if (ranges_unite(&w->pending, some) < 0 || (found && ranges_unite(found, some) < 0))
		return err_nomem(err);
	return 0;
}

/* Nothing that the kernel says of this memory is to be believed: it is registered anew. */
static int distrust(struct watched *w)
{
	uffd_forget(w);
	w->all_pending = true;
	return 0;
}

/* What has been registered since the last find may bear marks that mean nothing. */
static int prove(const struct track_target *t, struct err *err)
{
	struct watched *w = t->w;

	if (!w->unproven.n)
		return 0;
	if (uffd_marks_find(t, &w->unproven, err) < 0) {
		err_clear(err);
		return distrust(w);
	}
	ranges_clear(&w->unproven);
	return 0;
}

/* No descriptor left to the process, say: then its pages are read and compared. */
static bool may_do_without(int rc)
{
	return rc == -EMFILE || rc == -ENFILE || rc == -EPERM || rc == -ENOSYS || rc == -EINVAL ||
	       rc == -ENOMEM;
}

/*
 * Puts what is not under watch under watch. Only while the process stands still: a mapping that
 * grew meanwhile would be split, and no mremap goes over two mappings.
 *
 * ours may be that of a program that has been left by exec (-ESRCH).
 */
static int watch_more(const struct track_target *t, struct ranges *found, struct err *err)
{
	CLEANUP(ranges_fini) struct ranges fresh = { 0 };
	struct watched *w = t->w;
	int rc = w->uffd < 0 ? attach(t, err) : 0;

	if (rc < 0)
		return may_do_without(rc) ? 0 : rc;
	rc = t->runs ? pick(t->runs, PAGE_WATCHED, 0, &fresh, err) : find_unwatched(t, &fresh, err);
	if (rc == 0)
		rc = note(w, &fresh, found, err);
	if (rc < 0)
		return rc;
	if (register_maps(t, &fresh) == -ESRCH) {
		uffd_forget(w);
		rc = attach(t, err);
		if (rc < 0)
			return may_do_without(rc) ? 0 : rc;
		(void)register_maps(t, &fresh);
	}
	if (t->runs)
		return uffd_marks_renew(t) < 0 ? distrust(w) : 0;
	return ranges_unite(&w->unproven, &fresh) < 0 ? err_nomem(err) : 0;
}

static int uffd_find(const struct track_target *t, struct ranges *found, struct err *err)
{
	CLEANUP(ranges_fini) struct ranges dirty = { 0 };
	struct watched *w = t->w;
	int rc = t->batch ? watch_more(t, found, err) : 0;

	w->rests = false;
	if (rc == 0)
		rc = prove(t, err);
	if (rc < 0 || w->uffd < 0)
		return rc;
	if (t->runs)
		mark_watched(t);
	if (t->runs && t->last) /* what was seen just now need not be protected */
		rc = pick(t->runs, PAGE_WRITTEN, PAGE_WRITTEN, &dirty, err);
	else
		rc = find_written(t, &dirty, err);
	if (rc == 0)
		rc = note(w, &dirty, found, err);
	/* pages may have been protected that nobody has heard of */
	if (rc < 0)
		w->all_pending = true;
	return rc;
}

static int enough(void *arg, const struct pagemap_region *r, struct err *err)
{
	(void)arg;
	(void)r;
	(void)err;
	return -ECANCELED;
}

/* All of a large mapping, if there is any page in it; of small ones, their pages. */
static int first_stretch(void *arg, unsigned first, unsigned last, bool files, struct err *err)
{
	struct finder *f = arg;
	const struct proc_map *maps = f->t->maps;
	struct finder any = { .t = f->t, .what = f->what };
	int rc = 0;

	any.what.max_pages = 1;
	for (unsigned i = first, n; rc == 0 && i <= last; i += n) {
		bool large = maps[i].end - maps[i].start > WORTH_A_CALL;

		n = 1;
		if (large) {
			rc = query(&any, maps[i].start, maps[i].end, files, enough, NULL, err);
			if (rc != -ECANCELED)
				continue;
			rc = ranges_append(f->into, maps[i].start, maps[i].end) < 0 ? err_nomem(err)
										    : 0;
			continue;
		}
		while (i + n <= last && maps[i + n].end - maps[i + n].start <= WORTH_A_CALL)
			n++;
		rc = scan_range(f, maps[i].start, maps[i + n - 1].end, files, err);
	}
	return rc;
}

/* All is new: which pages there are is not asked while the process stands still. */
static int uffd_attach(const struct track_target *t, struct err *err)
{
	CLEANUP(ranges_fini) struct ranges fresh = { 0 };
	struct finder f = unwatched(t, &fresh);
	int rc = t->w->uffd < 0 ? attach(t, err) : 0;

	if (rc < 0)
		return may_do_without(rc) ? 0 : rc;
	rc = track_stretches(t, first_stretch, &f, err);
	if (rc == 0)
		rc = note(t->w, &fresh, NULL, err);
	if (rc == 0)
		(void)register_maps(t, &fresh);
	if (rc == 0 && ranges_unite(&t->w->unproven, &fresh) < 0)
		rc = err_nomem(err);
	return rc;
}

static bool uffd_is_watched(const struct watched *w, uint32_t marks)
{
	return w->uffd >= 0 && (marks & PAGE_WATCHED);
}

const struct tracker tracker_uffd = {
	.name = "uffd",
	.probe = PROBE_UFFD_WP_ASYNC,
	.live = true,
	.attach = uffd_attach,
	.find = uffd_find,
	.is_watched = uffd_is_watched,
	.rest = uffd_rest,
	.forget = uffd_forget,
};
