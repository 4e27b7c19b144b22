/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of trackers, best first, and what they share. */
#include "dump/tracker.h"

#include "util/cleanup.h"

#include <stdlib.h>
#include <string.h>

/* So much memory is worth a call of its own. */
#define LARGE_BYTES (1u << 20)

static const struct tracker *const trackers[] = { &tracker_uffd, &tracker_softdirty,
						  &tracker_hash };

/* The probe that says no, PROBE_COUNT: none does. */
static enum probe_id obstacle(const struct tracker *t)
{
	if (t->probe != PROBE_COUNT && !probe_get(t->probe)->ok)
		return t->probe;
	/* a live one scans, and where there is no scanning smaps must be read at every stop */
	if (t->live && !probe_get(PROBE_PAGEMAP_SCAN)->ok)
		return PROBE_PAGEMAP_SCAN;
	return PROBE_COUNT;
}

static bool works(const struct tracker *t)
{
	return obstacle(t) == PROBE_COUNT;
}

const struct tracker *tracker_choose(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(trackers); i++)
		if (!strcmp(trackers[i]->name, name) && works(trackers[i]))
			return trackers[i];
	for (size_t i = 0; i < ARRAY_SIZE(trackers); i++)
		if (works(trackers[i]))
			return trackers[i];
	return &tracker_hash;
}

int tracker_check(const char *name, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(trackers); i++) {
		const struct tracker *t = trackers[i];
		int rc;

		if (strcmp(t->name, name) || works(t))
			continue;
		rc = err_set(err, -EOPNOTSUPP, "the tracker '%s' does not work here: %s", name,
			     probe_get(obstacle(t))->why);
		err_hint(err, "--tracker auto takes one that does");
		return rc;
	}
	return 0;
}

int track_find(const struct tracker *tracker, const struct track_target *t, struct ranges *found,
	       struct err *err)
{
	CLEANUP(ranges_fini) struct ranges own = { 0 };
	struct watched *w = t->w;
	int rc;

	if (!found)
		found = &own;
	rc = tracker->find(t, found, err);
	if (rc < 0 || w->all_pending || ranges_subtract(&w->ahead, found) < 0)
		ranges_clear(&w->ahead);
	return rc;
}

bool track_private(const struct proc_map *m)
{
	if (m->shared || m->foreign)
		return false;
	if ((m->advice & ADVICE_DROPPABLE) || !strcmp(m->path, "[vsyscall]") ||
	    !strcmp(m->path, "[vdso]") || !strncmp(m->path, "[vvar", 5))
		return false;
	/* a nameless file's clean pages exist nowhere else: they are read, whatever the tables say
	 */
	return !m->ino || !strcmp(m->path, "/dev/zero") ||
	       (!m->deleted && strncmp(m->path, "/memfd:", 7) != 0);
}

/* May the mapping go on with a stretch of this kind? */
static bool belongs(const struct proc_map *m, bool files)
{
	if (!track_private(m))
		return false;
	return files ? m->ino || m->end - m->start < LARGE_BYTES : !m->ino;
}

int track_stretches(const struct track_target *t, track_stretch_fn each, void *arg, struct err *err)
{
	for (unsigned i = 0; i < t->n_maps;) {
		bool files = t->maps[i].ino != 0;
		unsigned first = i;
		int rc;

		while (i < t->n_maps && belongs(&t->maps[i], files))
			i++;
		if (i > first) {
			rc = each(arg, first, i - 1, files, err);
			if (rc < 0)
				return rc;
		} else {
			i++;
		}
	}
	return 0;
}

int page_runs_keep(void *arg, const struct page_class_run *run, struct err *err)
{
	struct page_runs *runs = arg;

	if (runs->n == runs->room) {
		size_t room = runs->room ? runs->room * 2 : 16;
		struct page_class_run *more = realloc(runs->v, room * sizeof *more);

		if (!more)
			return err_nomem(err);
		runs->v = more;
		runs->room = room;
	}
	runs->v[runs->n++] = *run;
	return 0;
}

/* --- hash: nothing is known before the pages are read ------------------------------------- */

static int hash_attach(const struct track_target *t, struct err *err)
{
	(void)t;
	(void)err;
	return 0;
}

static int hash_find(const struct track_target *t, struct ranges *found, struct err *err)
{
	(void)t;
	(void)found;
	(void)err;
	return 0;
}

static bool hash_is_watched(const struct watched *w, uint32_t marks)
{
	(void)w;
	(void)marks;
	return false;
}

static void hash_forget(struct watched *w)
{
	(void)w;
}

const struct tracker tracker_hash = {
	.name = "hash",
	.probe = PROBE_COUNT,
	.attach = hash_attach,
	.find = hash_find,
	.is_watched = hash_is_watched,
	.forget = hash_forget,
};
