/* SPDX-License-Identifier: BSD-2-Clause */
/* How the job ended, and what follows from it: our exit status, and the chain's mark. */
#include "run/ended.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

/* PIDFD_GET_INFO with PIDFD_INFO_EXIT (Linux 6.15); older headers have neither. */
struct pidfd_exit_info {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t pid, tgid, ppid;
	uint32_t ids[8];
	int32_t exit_code;
};
enum { PIDFD_EXIT_MASK = 1 << 3 };
#define PIDFD_GET_EXIT_INFO _IOWR(0xFF, 11, struct pidfd_exit_info)

static void from_wait_status(int status, struct supervise_end *end)
{
	if (WIFSIGNALED(status)) {
		end->how = JOB_KILLED;
		end->value = WTERMSIG(status);
	} else {
		end->how = JOB_EXITED;
		end->value = WEXITSTATUS(status);
	}
}

/*
 * Somebody else's child: the kernel tells its status only since it keeps that for pidfds, and only
 * once its parent has reaped it. A parent that does not reap should not hold us up.
 */
static void take_attached(const struct supervise_opts *o, struct supervise_end *end)
{
	struct pidfd_exit_info info = { .mask = PIDFD_EXIT_MASK };
	struct pollfd gone = { .fd = o->pidfd, .events = 0 };

	end->how = JOB_ENDED;
	(void)poll(&gone, 1, 1000); /* POLLHUP: reaped */
	if (ioctl(o->pidfd, PIDFD_GET_EXIT_INFO, &info) == 0 && (info.mask & PIDFD_EXIT_MASK))
		from_wait_status(info.exit_code, end);
}

/* Below an init of ours, which hands us the status and ends, unless the root has left others
 * running: then there is one more byte. An init that was killed takes the tree with it. */
static void take_from_init(const struct supervise_opts *o, struct supervise_end *end)
{
	int status;
	char others;

	if (io_read_full(o->status_fd, &status, sizeof status) != (ssize_t)sizeof status)
		status = SIGKILL;
	from_wait_status(status, end);
	if (io_read_full(o->status_fd, &others, 1) != 1)
		(void)waitpid(o->child, NULL, 0);
}

void ended_take(const struct supervise_opts *o, struct supervise_end *end)
{
	int status;

	if (o->attached)
		take_attached(o, end);
	else if (o->status_fd >= 0)
		take_from_init(o, end);
	else if (waitpid(o->root, &status, 0) == o->root)
		from_wait_status(status, end);
	else
		end->how = JOB_ENDED;
}

int supervise_exit_status(const struct supervise_end *end, bool once)
{
	switch (end->how) {
	case JOB_EXITED:
		return end->value;
	case JOB_KILLED:
		return 128 + end->value;
	case JOB_LET_GO:
		return end->value ? 128 + end->value : EXIT_CKPT;
	case JOB_SAVED:
		return once ? EXIT_DONE : EXIT_REQUEUE;
	case JOB_ENDED:
	case JOB_CHECKPOINTED:
		return EXIT_DONE;
	case JOB_NOT_SAVED:
		break;
	}
	return EXIT_CKPT;
}

int supervise_mark_chain(struct chain *chain, const struct supervise_end *end, struct err *err)
{
	char how[32];
	int rc;

	if (!chain || end->how != JOB_EXITED)
		return 0;
	rc = chain_scan(chain, err);
	if (rc < 0 || chain_count(chain) == 0)
		return rc;
	(void)snprintf(how, sizeof how, "exit %d", end->value);
	return chain_set_finished(chain, how, err);
}
