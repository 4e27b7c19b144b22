/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the inject room: a process of ours beside the job's, with a copy of its memory
 * (snapshot.c) or with its memory itself (companion.c). */
#pragma once

#include "inject/engine.h"
#include "inject/snapshot.h"

struct snapshot {
	struct remote r; /* the process, in which batches can be run */
	struct engine_thread thread;
	struct thread_regs end; /* what it would go on with by itself: its exit */
	int pidfd;
	bool shares;    /* the job's memory: batches only as long as the remote has its stub */
	uint64_t entry; /* shares: a system call instruction of the job's own */
};

int shadow_make(struct remote *r, bool shares, const struct snapshot_range *drop, unsigned n_drop,
		struct snapshot **ret, struct err *err);
