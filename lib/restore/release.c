/* SPDX-License-Identifier: BSD-2-Clause */
/* The last step of a restart: all is there, whoever waits is told, and the job runs. */
#include "restore/internal.h"
#include "restore/keeper.h"

#include "util/fault.h"

#include <sys/syscall.h>
#include <unistd.h>

/* The group that had the terminal, as we see it; 0: none of the job's. */
static pid_t foreground(const struct restoring *r)
{
	int32_t was = r->tree->terminal.group;

	for (unsigned i = 0; was && i < r->tree->n_processes; i++)
		if (r->procs[i].state->pgid == was)
			return getpgid(r->procs[i].pid);
	return 0;
}

static int let_go(struct restoring *r, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++) {
		threads_release(&r->procs[i]);
		if (i == 0 && r->guard.pid > 0)
			rc = fault_point("restore-let-go", err);
	}
	if (rc == 0)
		guard_end(&r->guard);
	return rc;
}

int restore_release(struct restoring *r, int keeper_channel, bool *released, struct restored *ret,
		    struct err *err)
{
	int rc = 0;

	*ret = (struct restored){
		.root = r->maker, .child = r->child, .status_fd = r->status_fd, .keeper = -1
	};
	ret->pidfd = (int)syscall(SYS_pidfd_open, r->maker, 0);
	if (r->opts->ready)
		r->opts->ready(r->opts->ready_arg, r->maker, foreground(r));
	if (r->filler)
		rc = lazy_guard(r, err);
	/* Should we be killed, the kernel ends those that we still trace (PTRACE_O_EXITKILL). Where
	 * no further process may be had (RLIMIT_NPROC, pids cgroup) that must do. */
	else if (r->tree->n_processes > 1 && guard_start(&r->guard, r, NULL, 0, err) < 0)
		err_clear(err);
	if (rc == 0 && keeper_channel >= 0)
		rc = keeper_tell(keeper_channel, ret, foreground(r), err);
	if (rc < 0)
		return rc;
	if (keeper_channel >= 0)
		(void)close(keeper_channel);
	r->status_fd = -1;
	gates_close(r);
	(void)close(r->control);
	r->control = -1;
	*released = r->filler;
	if (r->filler)
		return lazy_serve(r, err);
	rc = let_go(r, err);
	*released = rc == 0;
	return rc;
}
