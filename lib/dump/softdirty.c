/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Written pages by the soft-dirty bit: bit 55 of /proc/PID/pagemap, reset by writing 4 to
 * /proc/PID/clear_refs (Documentation/admin-guide/mm/soft-dirty.rst). The bits can only be read and
 * then reset, so the process must stand still in between.
 *
 * New and moved mappings count as written by themselves, also after exec. A page that a fork's
 * child inherits does not: of a process that is met for the first time, nothing is believed.
 *
 * The zero page takes the place of a page that was given up, by a mere read, without any bit; dump/
 * scan.c has such pages looked at.
 */
#include "dump/tracker.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"

#include <fcntl.h>

static int on_run(void *arg, const struct page_class_run *run, struct err *err)
{
	struct ranges *dirty = arg;

	if (!(run->classes & PAGE_SOFTDIRTY))
		return 0;
	return ranges_append(dirty, run->start, run->end) < 0 ? err_nomem(err) : 0;
}

static int clear(const struct track_target *t, struct err *err)
{
	CLEANUP_FD int fd = openat(t->proc_dirfd, "clear_refs", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || io_write_full(fd, "4", 1) < 0)
		return err_set(err, -errno, "cannot write '/proc/%d/clear_refs': %m", t->pid);
	return fault_point("dump-found", err);
}

static int softdirty_find(const struct track_target *t, struct ranges *found, struct err *err)
{
	CLEANUP(ranges_fini) struct ranges dirty = { 0 };
	struct watched *w = t->w;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && w->cleared && i < t->n_maps; i++)
		if (track_private(&t->maps[i]) && (t->maps[i].rss_bytes || t->maps[i].swap_bytes))
			rc = proc_pagemap_scan_marked(t->pagemap_fd, t->maps[i].start,
						      t->maps[i].end, LOOK_SOFT, on_run, &dirty,
						      err);
	if (rc < 0)
		return rc;
	if (ranges_unite(&w->pending, &dirty) < 0 || (found && ranges_unite(found, &dirty) < 0))
		return err_nomem(err);
	if (!w->cleared)
		w->all_pending = true;
	w->cleared = true;
	return clear(t, err);
}

static int softdirty_attach(const struct track_target *t, struct err *err)
{
	(void)t;
	(void)err;
	return 0;
}

static bool softdirty_is_watched(const struct watched *w, uint32_t marks)
{
	(void)marks;
	return w->cleared;
}

static void softdirty_forget(struct watched *w)
{
	w->cleared = false;
}

const struct tracker tracker_softdirty = {
	.name = "softdirty",
	.probe = PROBE_SOFT_DIRTY,
	.soft = true,
	.attach = softdirty_attach,
	.find = softdirty_find,
	.is_watched = softdirty_is_watched,
	.forget = softdirty_forget,
};
