/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel touches by itself when a thread ends. */
#pragma once

#include "restore/demand.h"

/* It is there when this returns. The thread stands still; pid: of its process, as seen from here.
 */
int ends_bring(struct demand *d, unsigned memory, pid_t pid, const struct thread *t,
	       struct err *err);
