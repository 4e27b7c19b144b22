/* SPDX-License-Identifier: BSD-2-Clause */
/* A state resolved along its parents: which image holds each page. */
#include "image/chain_int.h"
#include "image/reader_int.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <string.h>

/*
 * Image by image, newest first. What an image does not answer itself (RUN_PARENT) is a sorted list
 * of questions, which is merged with the runs of the next image as two sorted lists are: each level
 * costs the sum of their lengths, so that a long chain of scattered increments stays linear.
 * Answers are sorted once, at the end.
 */
struct question {
	uint64_t page, npages;
	uint32_t space;
};

struct questions {
	struct question *v;
	size_t n, room;
};

struct resolved {
	struct image_reader **images;
	unsigned n_images, room_images;
	struct resolved_run *runs;
	size_t n_runs, room_runs;
};

static const struct id128 none;

/* --- growing arrays ------------------------------------------------------------------------------
 */

static int grow(void *array, size_t n, size_t *room, size_t size, struct err *err)
{
	void **p = array, *bigger;
	size_t want = *room ? *room * 2 : 64;

	if (n < *room)
		return 0;
	bigger = want > UINT32_MAX ? NULL : realloc(*p, want * size);
	if (!bigger)
		return err_nomem(err);
	*p = bigger;
	*room = want;
	return 0;
}

static int ask(struct questions *q, uint32_t space, uint64_t page, uint64_t npages, struct err *err)
{
	struct question *last = q->n ? &q->v[q->n - 1] : NULL;
	int rc;

	if (last && last->space == space && last->page + last->npages == page) {
		last->npages += npages;
		return 0;
	}
	rc = grow(&q->v, q->n, &q->room, sizeof *q->v, err);
	if (rc == 0)
		q->v[q->n++] = (struct question){ page, npages, space };
	return rc;
}

static void questions_fini(struct questions *q)
{
	free(q->v);
	memset(q, 0, sizeof *q);
}

/* Pages [page, page + npages) of the state are where this part of the image's run says. */
static int answer(struct resolved *res, unsigned image, const struct page_run *run, uint64_t page,
		  uint64_t npages, struct err *err)
{
	struct resolved_run *out;
	int rc = grow(&res->runs, res->n_runs, &res->room_runs, sizeof *res->runs, err);

	if (rc < 0)
		return rc;
	out = &res->runs[res->n_runs++];
	out->image = image;
	out->run = *run;
	out->run.page = page;
	out->run.npages = npages;
	if (run->kind == RUN_HERE)
		image_reader_seek(res->images[image], run, page - run->page, &out->run.block,
				  &out->run.block_page);
	return 0;
}

/* --- one level -----------------------------------------------------------------------------------
 */

static int absent(const struct resolved *res, unsigned image, uint32_t space, uint64_t page,
		  struct err *err)
{
	return err_image(err, -EBADMSG,
			 "image '%s': page %#llx of space %u is said to be as in its parent '%s', "
			 "which has none",
			 res->images[image - 1]->name, (unsigned long long)page, space,
			 res->images[image]->name);
}

static int answer_all(struct resolved *res, struct questions *next, struct err *err)
{
	const struct image_reader *r = res->images[0];
	int rc = 0;

	for (unsigned i = 0; i < r->info.n_runs && rc == 0; i++) {
		const struct page_run *run = &r->runs[i];

		rc = run->kind == RUN_PARENT ? ask(next, run->space, run->page, run->npages, err)
					     : answer(res, 0, run, run->page, run->npages, err);
	}
	return rc;
}

static int answer_questions(struct resolved *res, unsigned image, const struct questions *q,
			    struct questions *next, struct err *err)
{
	const struct image_reader *r = res->images[image];
	unsigned at = 0;

	for (size_t i = 0; i < q->n; i++) {
		uint64_t page = q->v[i].page, end = page + q->v[i].npages;
		uint32_t space = q->v[i].space;

		while (page < end) {
			const struct page_run *run;
			uint64_t n;
			int rc;

			while (at < r->info.n_runs &&
			       (r->runs[at].space < space ||
				(r->runs[at].space == space &&
				 r->runs[at].page + r->runs[at].npages <= page)))
				at++;
			run = &r->runs[at];
			if (at == r->info.n_runs || run->space != space || run->page > page)
				return absent(res, image, space, page, err);
			n = MIN(end, run->page + run->npages) - page;
			rc = run->kind == RUN_PARENT ? ask(next, space, page, n, err)
						     : answer(res, image, run, page, n, err);
			if (rc < 0)
				return rc;
			page += n;
		}
	}
	return 0;
}

/* --- the list of all runs ------------------------------------------------------------------------
 */

static int by_place(const void *a, const void *b)
{
	const struct page_run *x = &((const struct resolved_run *)a)->run;
	const struct page_run *y = &((const struct resolved_run *)b)->run;

	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	return x->page < y->page ? -1 : x->page > y->page;
}

static uint64_t ordinal(const struct resolved *res, const struct resolved_run *r)
{
	return res->images[r->image]->blocks[r->run.block].first + r->run.block_page;
}

/* Increments that rewrote the same pages leave neighbours that are one run. */
static bool goes_on(const struct resolved *res, const struct resolved_run *a,
		    const struct resolved_run *b)
{
	if (a->run.space != b->run.space || a->run.kind != b->run.kind ||
	    a->run.page + a->run.npages != b->run.page)
		return false;
	return a->run.kind == RUN_ZERO ||
	       (a->image == b->image && ordinal(res, a) + a->run.npages == ordinal(res, b));
}

static void sort_and_join(struct resolved *res)
{
	size_t n = 0;

	if (res->n_images > 1 && res->n_runs)
		qsort(res->runs, res->n_runs, sizeof *res->runs, by_place);
	for (size_t i = 0; i < res->n_runs; i++) {
		if (n && goes_on(res, &res->runs[n - 1], &res->runs[i]))
			res->runs[n - 1].run.npages += res->runs[i].run.npages;
		else
			res->runs[n++] = res->runs[i];
	}
	res->n_runs = n;
}

/* Takes the reader over in every case. */
static int add_image(struct resolved *res, struct image_reader *r, struct err *err)
{
	size_t room = res->room_images;
	int rc = grow(&res->images, res->n_images, &room, sizeof *res->images, err);

	if (rc < 0) {
		image_reader_free(r);
		return rc;
	}
	res->room_images = (unsigned)room;
	res->images[res->n_images++] = r;
	return 0;
}

/* --- finding parents -----------------------------------------------------------------------------
 */

/* The images of a directory, by header only. */
struct candidate {
	struct image_info info;
	char name[NAME_MAX + 1];
	bool tried;
};

struct candidates {
	struct candidate *v;
	size_t n, room;
	int dir;
	const char *path; /* of the directory, for messages; may be empty */
};

static void candidates_fini(struct candidates *c)
{
	free(c->v);
	if (c->dir >= 0)
		(void)close(c->dir);
}

/* Full ones first: after a killed merge two images may hold one state, and the shorter way is as
 * good. */
static int by_use(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	bool xf = !memcmp(&x->info.parent, &none, sizeof none),
	     yf = !memcmp(&y->info.parent, &none, sizeof none);

	if (xf != yf)
		return xf ? -1 : 1;
	return strcmp(y->name, x->name);
}

static int list_candidates(struct candidates *c, struct err *err)
{
	CLEANUP_FD int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return err_set(err, -errno, "cannot list '%s': %m", c->path);
	(void)fd_take(&fd); /* the DIR owns it */
	while ((e = readdir(d))) {
		size_t len = strlen(e->d_name);
		struct image_info info;
		int rc;

		if (len < 5 || e->d_name[0] == '.' || strcmp(e->d_name + len - 4, ".img") ||
		    image_reader_peek(c->dir, e->d_name, &info, NULL) < 0)
			continue;
		rc = grow(&c->v, c->n, &c->room, sizeof *c->v, err);
		if (rc < 0)
			return rc;
		memset(&c->v[c->n], 0, sizeof c->v[c->n]);
		c->v[c->n].info = info;
		(void)snprintf(c->v[c->n].name, sizeof c->v[c->n].name, "%s", e->d_name);
		c->n++;
	}
	if (c->n)
		qsort(c->v, c->n, sizeof *c->v, by_use);
	return 0;
}

static int open_in(const struct candidates *c, const char *name, struct image_reader **ret,
		   struct err *err)
{
	CLEANUP_FREE char *path = NULL;

	if (asprintf(&path, "%s%s%s", c->path, *c->path ? "/" : "", name) < 0) {
		path = NULL;
		return err_nomem(err);
	}
	return image_reader_open_as(c->dir, name, path, ret, err);
}

/* A state is never its own ancestor: each is looked up once, so that a circle ends in an error. */
static bool seen(const struct resolved *res, const struct id128 *state)
{
	for (unsigned i = 0; i < res->n_images; i++)
		if (!memcmp(&res->images[i]->info.state, state, sizeof *state))
			return true;
	return false;
}

static int open_parent(struct resolved *res, struct candidates *c, struct err *err)
{
	const struct image_reader *child = res->images[res->n_images - 1];
	struct id128 want = child->info.parent;
	int rc = 0;

	if (seen(res, &want))
		return err_image(err, -ELOOP, "image '%s': its parents form a circle", child->name);
	for (size_t i = 0; i < c->n; i++) {
		struct image_reader *r;

		if (memcmp(&c->v[i].info.state, &want, sizeof want))
			continue;
		rc = open_in(c, c->v[i].name, &r, err);
		if (rc == 0)
			return add_image(res, r, err);
	}
	if (rc < 0) /* there is one, and the message says what is wrong with it */
		return err_wrap(err, rc, "image '%s' needs its parent", child->name);
	err_image(err, -ENOENT, "image '%s': its parent (state %02x%02x%02x%02x...) is missing",
		  child->name, want.b[0], want.b[1], want.b[2], want.b[3]);
	err_hint(err,
		 "an incremental image needs all images up to the last full one in its directory");
	return -ENOENT;
}

/* --- resolving -----------------------------------------------------------------------------------
 */

/* An ancestor's own list has been asked all it will be; a long chain's lists together may be big.
 */
static void drop_runs(struct image_reader *r)
{
	free(r->runs);
	r->runs = NULL;
}

static int resolve_levels(struct resolved *res, struct candidates *c, struct err *err)
{
	CLEANUP(questions_fini) struct questions open = { 0 };
	int rc = answer_all(res, &open, err);

	/* the whole way up is opened even if nothing is asked of it: a state is complete or it is
	 * not */
	while (rc == 0 &&
	       memcmp(&res->images[res->n_images - 1]->info.parent, &none, sizeof none)) {
		CLEANUP(questions_fini) struct questions next = { 0 };
		struct questions done;

		if (!c->v)
			rc = list_candidates(c, err);
		if (rc == 0)
			rc = open_parent(res, c, err);
		if (rc == 0)
			rc = answer_questions(res, res->n_images - 1, &open, &next, err);
		if (rc == 0)
			drop_runs(res->images[res->n_images - 1]);
		done = open;
		open = next;
		next = done;
	}
	if (rc == 0)
		sort_and_join(res);
	return rc;
}

/* c->dir is taken over. */
static int resolve(struct candidates *c, const char *name, struct resolved **ret, struct err *err)
{
	struct resolved *res = calloc(1, sizeof *res);
	struct image_reader *r;
	int rc;

	if (!res)
		return err_nomem(err);
	rc = open_in(c, name, &r, err);
	if (rc == 0)
		rc = add_image(res, r, err);
	if (rc == 0)
		rc = resolve_levels(res, c, err);
	if (rc < 0) {
		resolved_free(res);
		return rc;
	}
	*ret = res;
	return 0;
}

int chain_resolve(struct chain *c, const char *name, struct resolved **ret, struct err *err)
{
	CLEANUP(candidates_fini) struct candidates cand = { .path = c->path };

	cand.dir = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cand.dir < 0)
		return err_set(err, -errno, "cannot open chain '%s': %m", c->path);
	return resolve(&cand, name, ret, err);
}

int resolve_file(const char *path, struct resolved **ret, struct err *err)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *dir = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
	CLEANUP(candidates_fini) struct candidates cand = { .dir = -1 };

	if (!dir)
		return err_nomem(err);
	cand.path = dir;
	cand.dir = open(slash == path ? "/" : *dir ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cand.dir < 0)
		return err_set(err, -errno, "cannot open the directory of '%s': %m", path);
	return resolve(&cand, slash ? slash + 1 : path, ret, err);
}

void resolved_free(struct resolved *res)
{
	if (!res)
		return;
	for (unsigned i = 0; i < res->n_images; i++)
		image_reader_free(res->images[i]);
	free(res->images);
	free(res->runs);
	free(res);
}

struct image_reader *resolved_image(const struct resolved *res, unsigned i)
{
	return res->images[i];
}

unsigned resolved_n_images(const struct resolved *res)
{
	return res->n_images;
}

/* First run of a space that is not less than it. */
static size_t lower_bound(const struct resolved *res, uint64_t space)
{
	size_t lo = 0, hi = res->n_runs;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (res->runs[mid].run.space < space)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct resolved_run *resolved_runs(const struct resolved *res, uint32_t space,
					 unsigned *ret_n)
{
	size_t from = lower_bound(res, space), to = lower_bound(res, (uint64_t)space + 1);

	*ret_n = (unsigned)(to - from);
	return *ret_n ? &res->runs[from] : NULL;
}
