/* SPDX-License-Identifier: BSD-2-Clause */
/* Working directories that are gone, roots elsewhere, real-time scheduling: each there and back. */
#include "harness.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POLICY_DEADLINE 6
#define RESET_ON_FORK   1
#define MS              1000000ULL

static char dir[] = "/tmp/ckpt-attrs-XXXXXX";

static void plain(void *arg)
{
	(void)arg;
}

static void gone(void *arg)
{
	(void)arg;
	CHECK(mkdir("/tmp/ckpt-attrs-gone", 0700) == 0);
	CHECK(chdir("/tmp/ckpt-attrs-gone") == 0);
	CHECK(rmdir("/tmp/ckpt-attrs-gone") == 0);
}

static void elsewhere(void *arg)
{
	(void)arg;
	CHECK(chdir(dir) == 0);
	CHECK(mkdir("inner", 0755) == 0);
	CHECK(chdir("inner") == 0);
	CHECK(chroot(dir) == 0);
}

struct params {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static void fifo(void *arg)
{
	struct params v = {
		.size = sizeof v, .policy = SCHED_FIFO, .flags = RESET_ON_FORK, .priority = 3
	};

	(void)arg;
	CHECK(setpriority(PRIO_PROCESS, 0, -4) == 0);
	CHECK(syscall(SYS_sched_setattr, 0, &v, 0) == 0);
}

static void deadline(void *arg)
{
	struct params v = { .size = sizeof v,
			    .policy = POLICY_DEADLINE,
			    .runtime = 2 * MS,
			    .deadline = 20 * MS,
			    .period = 30 * MS };

	(void)arg;
	CHECK(syscall(SYS_sched_setattr, 0, &v, 0) == 0);
}

typedef void (*check_fn)(const struct process *p);

static void round_trip(void (*setup)(void *arg), check_fn check)
{
	struct target from, to;
	struct err err = { 0 };

	target_start(&from, setup, NULL);
	CHECK_OK(target_capture(&from, &err));
	check(&from.process);
	target_start(&to, plain, NULL);
	CHECK_OK(target_put(&to, &from.process, &err));
	CHECK_OK(target_capture(&to, &err));
	check(&to.process);
	target_end(&from);
	target_end(&to);
}

static void check_gone(const struct process *p)
{
	static const char mark[] = " (deleted)";
	size_t len = strlen(p->cwd), tail = sizeof mark - 1;

	CHECK(len > tail && !strcmp(p->cwd + len - tail, mark));
}

static void check_elsewhere(const struct process *p)
{
	CHECK(!strcmp(p->root, dir));
	CHECK(!strncmp(p->cwd, dir, strlen(dir)) && !strcmp(p->cwd + strlen(dir), "/inner"));
}

static void check_fifo(const struct process *p)
{
	CHECK_INT(p->threads[0].sched_policy, SCHED_FIFO);
	CHECK_INT(p->threads[0].sched_priority, 3);
	CHECK_INT(p->threads[0].sched_flags, RESET_ON_FORK);
	CHECK_INT(p->threads[0].nice, -4);
}

static void check_deadline(const struct process *p)
{
	CHECK_INT(p->threads[0].sched_policy, POLICY_DEADLINE);
	CHECK_INT(p->threads[0].sched_runtime, 2 * MS);
	CHECK_INT(p->threads[0].sched_deadline, 20 * MS);
	CHECK_INT(p->threads[0].sched_period, 30 * MS);
}

int main(void)
{
	char inner[sizeof dir + 8];

	CHECK(mkdtemp(dir));
	round_trip(gone, check_gone);
	if (geteuid() == 0) {
		round_trip(elsewhere, check_elsewhere);
		round_trip(fifo, check_fifo);
		round_trip(deadline, check_deadline);
		(void)snprintf(inner, sizeof inner, "%s/inner", dir);
		CHECK(rmdir(inner) == 0);
	} else {
		puts("not root: chroot and real-time scheduling are not tested");
	}
	CHECK(rmdir(dir) == 0);
	return 0;
}
