/* SPDX-License-Identifier: BSD-2-Clause */
/* A seccomp filter that takes io_uring away: programs that can do without then do. */
#include "filter/deny.h"

#include "util/cleanup.h"

#include <seccomp.h>

int deny_io_uring(struct err *err)
{
	static const int calls[] = { SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter),
				     SCMP_SYS(io_uring_register) };
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int rc = ctx ? 0 : -ENOMEM;

	for (unsigned i = 0; rc == 0 && i < ARRAY_SIZE(calls); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), calls[i], 0);
	if (rc == 0)
		rc = seccomp_load(ctx);
	seccomp_release(ctx);
	return rc < 0 ? err_set(err, rc, "cannot deny io_uring to the job (seccomp): %m") : 0;
}
