/* SPDX-License-Identifier: BSD-2-Clause */
/* POSIX message queues: what mqueue.c and its helpers share. */
#pragma once

#include "object/kinds.h"

static inline const struct file_mqueue *mqueue_of(const struct file *f)
{
	return f->detail;
}

/*
 * mqueue_peek.c: the n messages of the queue, which are in it as before afterwards. -EAGAIN: they
 * cannot be looked at.
 */
int mqueue_peek(struct capture *c, const struct open_file *of, struct file_mqueue *d, unsigned n,
		struct err *err);
