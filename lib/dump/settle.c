/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an image says of pages that nobody reads at the stop (dump/scan.c lists those that are): of
 * most it is that they are as in the parent, and there can be very many stretches of them. And
 * copies that were taken ahead of pages which have gone since, or come anew in their place, are
 * taken back.
 *
 * The order is that of the writer's generations: copies taken ahead; those taken back, of what is
 * to be read again; what is read, at the stop or from a snapshot; and all the rest, which has no
 * page in common with that.
 */
#include "dump/internal.h"
#include "util/cleanup.h"
#include "util/fault.h"

static bool anything_given(const struct dumper *d)
{
	for (unsigned i = 0; i < d->job->n_watched; i++)
		if (d->job->watched[i]->given.n > 0)
			return true;
	return false;
}

static int say(struct dumper *d, const struct watched *w, uint32_t kind, uint64_t start,
	       uint64_t end, struct err *err)
{
	return image_writer_run(d->writer, w->space, kind, start / CKPT_PAGE_SIZE,
				(end - start) / CKPT_PAGE_SIZE, err);
}

/* What was given of [start, end) does not count. */
static int take_back(struct dumper *d, const struct watched *w, size_t *at, uint64_t start,
		     uint64_t end, struct err *err)
{
	int rc = 0;

	while (rc == 0 && start < end) {
		bool given;
		uint64_t part = ranges_part(&w->given, at, start, end, &given);

		if (given)
			rc = say(d, w, RUN_NONE, start, part, err);
		start = part;
	}
	return rc;
}

/* What is read again, though it was given: it has come anew, or been written to. Not more. */
static int find_again(const struct dumper *d, const struct watched *w, struct ranges *ret)
{
	CLEANUP(ranges_fini) struct ranges anew = { .excess = RANGES_SHRINK };
	int rc = 0;

	if (!w->listed) /* it has gone, or come under the program's own watch: all is read again */
		return ranges_unite(ret, &w->given);
	ret->excess = RANGES_SHRINK;
	for (size_t i = 0; rc == 0 && i < w->there.n; i++)
		if (!(w->there.v[i].classes & PAGE_WATCHED))
			rc = ranges_append(&anew, w->there.v[i].start, w->there.v[i].end);
	if (rc == 0)
		rc = ranges_unite(ret, scan_takes_all(d, w) ? &w->given : scan_due(w));
	if (rc == 0 && scan_takes_all(d, w))
		rc = ranges_subtract(ret, &w->ahead);
	return rc < 0 ? rc : ranges_unite(ret, &anew);
}

static int settle_again(struct dumper *d, const struct watched *w, struct err *err)
{
	CLEANUP(ranges_fini) struct ranges again = { 0 };
	size_t at = 0;
	int rc = find_again(d, w, &again) < 0 ? err_nomem(err) : 0;

	for (size_t i = 0; rc == 0 && i < again.n; i++)
		rc = take_back(d, w, &at, again.v[i].start, again.v[i].end, err);
	return rc;
}

int settle_anew(struct dumper *d, struct err *err)
{
	int rc = 0;

	if (!anything_given(d))
		return 0;
	image_writer_generation(d->writer);
	for (unsigned i = 0; rc == 0 && i < d->job->n_watched; i++)
		if (d->job->watched[i]->given.n)
			rc = settle_again(d, d->job->watched[i], err);
	image_writer_generation(d->writer);
	return rc;
}

/* Those under watch that have been neither read nor copied ahead. */
static int say_parent(struct dumper *d, struct watched *w, struct err *err)
{
	size_t at_pending = 0, at_due = 0;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < w->there.n; i++) {
		uint64_t start = w->there.v[i].start, end = w->there.v[i].end;

		while (rc == 0 && (w->there.v[i].classes & PAGE_WATCHED) && start < end) {
			bool pending, due;
			uint64_t part = ranges_part(&w->pending, &at_pending, start, end, &pending);

			part = ranges_part(scan_due(w), &at_due, start, part, &due);
			if (!pending && !due)
				rc = say(d, w, RUN_PARENT, start, part, err);
			start = part;
		}
	}
	return rc;
}

static int settle_one(struct dumper *d, struct watched *w, struct err *err)
{
	uint64_t from = 0;
	size_t at = 0;
	int rc = 0;

	if (!w->listed) /* settle_anew took it all back */
		return 0;
	for (size_t i = 0; w->given.n && rc == 0 && i <= w->there.n; i++) {
		bool last = i == w->there.n;
		uint64_t to = last ? UINT64_MAX : w->there.v[i].start;

		rc = take_back(d, w, &at, from, to, err);
		from = last ? to : w->there.v[i].end;
	}
	if (rc == 0 && !scan_takes_all(d, w))
		rc = say_parent(d, w, err);
	return rc;
}

int settle_rest(struct dumper *d, struct err *err)
{
	int rc = 0;

	if (anything_given(d))
		image_writer_generation(d->writer);
	for (unsigned i = 0; rc == 0 && i < d->job->n_watched; i++)
		rc = settle_one(d, d->job->watched[i], err);
	return rc < 0 ? rc : fault_point("dump-settled-rest", err);
}
