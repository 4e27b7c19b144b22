/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How pages get out of the job: copied while it stands still, from a snapshot, or ahead while it
 * runs.
 */
#include "dump/internal.h"

bool policy_precopy(const struct dumper *d)
{
	const struct settings *s = d->job->settings;

	if (!d->job->tracker->live || (d->flags & DUMP_KILL))
		return false;
	switch (s->snapshot) {
	case MODE_PRECOPY:
		return true;
	case MODE_AUTO:
		return d->hashing && !(d->flags & DUMP_LAST);
	default:
		return false;
	}
}
