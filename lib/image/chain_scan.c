/* SPDX-License-Identifier: BSD-2-Clause */
/* What a chain holds: its images, which of them are complete down to a full one, and which are
 * needed. */
#include "image/chain_int.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const struct id128 none;

/* --- listing -------------------------------------------------------------------------------------
 */

static int by_seq(const void *a, const void *b)
{
	const struct chain_item *x = a, *y = b;

	return x->e.seq < y->e.seq ? -1 : x->e.seq > y->e.seq;
}

static bool same_file(const struct chain_item *i, const struct stat *st)
{
	return i->dev == st->st_dev && i->ino == st->st_ino && i->size == st->st_size &&
	       !memcmp(&i->mtime, &st->st_mtim, sizeof i->mtime) &&
	       !memcmp(&i->ctime, &st->st_ctim, sizeof i->ctime);
}

static void read_item(struct chain *c, struct chain_item *i)
{
	CLEANUP_FREE char *path = NULL;
	struct image_reader *r;
	int fd, rc;

	if (asprintf(&path, "%s/%s", c->path, i->e.name) < 0) {
		path = NULL;
		err_nomem(&i->e.why);
		return;
	}
	fd = openat(c->dir, i->e.name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		err_set(&i->e.why, -errno, "cannot open image '%s': %m", path);
		return;
	}
	rc = image_reader_open_fd(fd, path, &r, &i->e.why);
	if (rc < 0) {
		(void)close(fd);
		return;
	}
	i->e.readable = true;
	i->e.state = image_reader_info(r)->state;
	i->e.parent = image_reader_info(r)->parent;
	image_reader_free(r);
}

/* Fills an item from the directory entry: from the last scan where the file is still the same. */
static void look_at(struct chain *c, struct chain_item *i, const char *name)
{
	struct chain_item key = { .e = { .seq = chain_name_seq(name) } }, *old;
	struct stat st;

	i->e.seq = key.e.seq;
	(void)snprintf(i->e.name, sizeof i->e.name, "%.31s", name);
	if (fstatat(c->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		err_set(&i->e.why, -errno, "cannot look at '%s/%s': %m", c->path, name);
		return;
	}
	i->dev = st.st_dev;
	i->ino = st.st_ino;
	i->size = st.st_size;
	i->mtime = st.st_mtim;
	i->ctime = st.st_ctim;
	i->e.file_bytes = (uint64_t)st.st_size;
	i->e.mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
	old = c->n_items ? bsearch(&key, c->items, c->n_items, sizeof *c->items, by_seq) : NULL;
	if (old && old->e.readable && same_file(old, &st)) {
		i->e.readable = true;
		i->e.state = old->e.state;
		i->e.parent = old->e.parent;
		return;
	}
	read_item(c, i);
}

static int list(struct chain *c, struct chain_item **ret, unsigned *ret_n, struct err *err)
{
	CLEANUP_FREE struct chain_item *items = NULL;
	CLEANUP_FD int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	unsigned n = 0, room = 0;
	struct dirent *e;

	if (!d)
		return err_set(err, -errno, "cannot list chain '%s': %m", c->path);
	(void)fd_take(&fd); /* the DIR owns it */
	while ((errno = 0, e = readdir(d))) {
		uint64_t seq = chain_name_seq(e->d_name);

		if (!seq)
			continue;
		if (n == room) {
			struct chain_item *bigger = realloc(items, (room * 2 + 64) * sizeof *items);

			if (!bigger)
				return err_nomem(err);
			items = bigger;
			room = room * 2 + 64;
		}
		memset(&items[n], 0, sizeof items[n]);
		look_at(c, &items[n++], e->d_name);
		c->highest = MAX(c->highest, seq);
	}
	if (errno)
		return err_set(err, -errno, "cannot list chain '%s': %m", c->path);
	if (n)
		qsort(items, n, sizeof *items, by_seq);
	*ret = ptr_take(&items);
	*ret_n = n;
	return 0;
}

/* --- completeness --------------------------------------------------------------------------------
 */

/* Readable images by state, the one to prefer first where a merge was killed and two hold the same.
 */
struct by_state {
	struct chain_item **v;
	unsigned n;
};

static bool is_full(const struct chain_item *i)
{
	return !memcmp(&i->e.parent, &none, sizeof none);
}

static int by_state(const void *a, const void *b)
{
	const struct chain_item *x = *(struct chain_item *const *)a,
				*y = *(struct chain_item *const *)b;
	int d = memcmp(&x->e.state, &y->e.state, sizeof x->e.state);

	if (d)
		return d;
	if (is_full(x) != is_full(y))
		return is_full(x) ? -1 : 1;
	return x->e.seq > y->e.seq ? -1 : x->e.seq < y->e.seq;
}

static struct chain_item *find_state(const struct by_state *s, const struct id128 *state)
{
	unsigned lo = 0, hi = s->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (memcmp(&s->v[mid]->e.state, state, sizeof *state) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->n && !memcmp(&s->v[lo]->e.state, state, sizeof *state) ? s->v[lo] : NULL;
}

static int index_states(struct chain *c, struct by_state *s, struct err *err)
{
	s->n = 0;
	s->v = calloc(MAX(c->n_items, 1u), sizeof(struct chain_item *));
	if (!s->v)
		return err_nomem(err);
	for (unsigned i = 0; i < c->n_items; i++)
		if (c->items[i].e.readable)
			s->v[s->n++] = &c->items[i];
	qsort(s->v, s->n, sizeof(struct chain_item *), by_state);
	return 0;
}

/*
 * Goes up from an image to one whose completeness is known, then back down with the answer. An
 * image on the way has a negative why.code until then, so that coming upon it again is a circle.
 */
static void judge(struct chain *c, const struct by_state *s, struct chain_item *start,
		  struct chain_item **path)
{
	struct chain_item *at = start, *up;
	unsigned n = 0;

	for (;;) {
		err_set(&at->e.why, -ELOOP, "image '%s/%s': its parents form a circle", c->path,
			at->e.name);
		path[n++] = at;
		if (is_full(at)) {
			at->e.complete = true;
			err_clear(&at->e.why);
			break;
		}
		up = find_state(s, &at->e.parent);
		if (!up) {
			err_image(&at->e.why, -ENOENT, "image '%s/%s': its parent is missing",
				  c->path, at->e.name);
			break;
		}
		if (up->e.complete || up->e.why.code)
			break;
		at = up;
	}
	while (n-- > 0) {
		at = path[n];
		up = is_full(at) ? NULL : find_state(s, &at->e.parent);
		if (!up)
			continue;
		at->e.complete = up->e.complete;
		if (at->e.complete)
			err_clear(&at->e.why);
		else if (up != at && up->e.why.code != -ELOOP)
			err_image(&at->e.why, -ENOENT,
				  "image '%s/%s': its parent %s is not complete", c->path,
				  at->e.name, up->e.name);
	}
}

int chain_scan(struct chain *c, struct err *err)
{
	CLEANUP_FREE struct chain_item **path = NULL;
	struct by_state states = { 0 };
	struct chain_item *items = NULL;
	unsigned n = 0;
	int rc = list(c, &items, &n, err);

	if (rc < 0)
		return rc;
	free(c->items);
	c->items = items;
	c->n_items = n;
	path = calloc(MAX(n, 1u), sizeof(struct chain_item *));
	if (!path)
		return err_nomem(err);
	rc = index_states(c, &states, err);
	for (unsigned i = 0; i < n && rc == 0; i++)
		if (items[i].e.readable && !items[i].e.complete && !items[i].e.why.code)
			judge(c, &states, &items[i], path);
	free(states.v);
	return rc;
}

/* --- asking --------------------------------------------------------------------------------------
 */

unsigned chain_count(const struct chain *c)
{
	return c->n_items;
}

const struct chain_entry *chain_entry(const struct chain *c, unsigned i)
{
	return i < c->n_items ? &c->items[i].e : NULL;
}

const struct chain_entry *chain_newest(const struct chain *c)
{
	for (unsigned i = c->n_items; i-- > 0;)
		if (c->items[i].e.complete)
			return &c->items[i].e;
	return NULL;
}

const struct chain_entry *chain_find(const struct chain *c, uint64_t seq)
{
	for (unsigned i = 0; i < c->n_items; i++)
		if (c->items[i].e.seq == seq)
			return &c->items[i].e;
	return NULL;
}

uint64_t chain_next_seq(const struct chain *c)
{
	return c->highest + 1;
}

/* --- keeping what is needed ----------------------------------------------------------------------
 */

static void mark_needed(const struct chain *c, const struct by_state *s, struct chain_item *i,
			bool *needed)
{
	while (i && !needed[i - c->items]) {
		needed[i - c->items] = true;
		i = is_full(i) ? NULL : find_state(s, &i->e.parent);
	}
}

/*
 * Newest first: a kill in the middle leaves no image without its parent. Images that cannot be read
 * are left alone: they may be a newer program's, and what is damaged is the user's to throw away.
 */
int chain_retain(struct chain *c, unsigned keep, struct err *err)
{
	CLEANUP_FREE bool *needed = NULL;
	struct by_state states = { 0 };
	bool removed = false;
	int rc = chain_scan(c, err);

	if (rc == 0)
		rc = index_states(c, &states, err);
	if (rc < 0)
		return rc;
	needed = calloc(MAX(c->n_items, 1u), sizeof *needed);
	if (!needed)
		rc = err_nomem(err);
	keep = MAX(keep, 1u);
	for (unsigned i = c->n_items; rc == 0 && i-- > 0 && keep;)
		if (c->items[i].e.complete) {
			mark_needed(c, &states, &c->items[i], needed);
			keep--;
		}
	free(states.v);
	/* fewer than keep states: everything is one of them, or on its way to being of use */
	if (rc < 0 || keep)
		return rc;
	for (unsigned i = c->n_items; i-- > 0;) {
		if (needed[i] || !c->items[i].e.readable)
			continue;
		if (unlinkat(c->dir, c->items[i].e.name, 0) < 0 && errno != ENOENT)
			return err_set(err, -errno, "cannot remove '%s/%s': %m", c->path,
				       c->items[i].e.name);
		removed = true;
	}
	if (!removed)
		return 0;
	rc = chain_sync_dir(c, err);
	return rc < 0 ? rc : chain_scan(c, err);
}
