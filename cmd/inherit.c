/* SPDX-License-Identifier: BSD-2-Clause */
/* The descriptors of ckpt-restart that the job is given: which were open at the start, and which of
 * them ckpt-run has been told to expect. */
#include "inherit.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>

void inherit_note_open(struct inherit *h)
{
	for (unsigned fd = 0; fd < 64 * ARRAY_SIZE(h->open_at_start); fd++)
		if (fcntl((int)fd, F_GETFD) >= 0)
			h->open_at_start[fd / 64] |= UINT64_C(1) << fd % 64;
}

int inherit_by_rule(struct inherit *h, const struct settings *s, struct err *err)
{
	for (unsigned i = 0; i < s->n_fd_rules; i++) {
		int fd = s->fd_rules[i].fd;
		bool there = fd >= 0 && fd < (int)(64 * ARRAY_SIZE(h->open_at_start)) &&
			     (h->open_at_start[fd / 64] & UINT64_C(1) << fd % 64);
		int *more;

		if (s->fd_rules[i].action != FD_INHERIT || fd <= 2)
			continue;
		if (!there) {
			err_set(err, -EBADF,
				"descriptor %d is taken from here (--fd %d=inherit), and is not "
				"open",
				fd, fd);
			return err_hint(err, "for example: ckpt-restart ... %d<>FILE", fd);
		}
		more = realloc(h->fds, (h->n + 1) * sizeof *more);
		if (!more)
			return err_nomem(err);
		h->fds = more;
		h->fds[h->n++] = fd;
	}
	return 0;
}
