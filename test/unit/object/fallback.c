/* SPDX-License-Identifier: BSD-2-Clause */
/* Ways around what older or locked-down kernels do not tell, with the telling taken away. */
#include "harness.h"
#include "object/kinds.h"

#include <sys/eventfd.h>

static struct capture cap;
static struct subject self;

static uint32_t space_id(void *arg, const char *key)
{
	(void)arg;
	(void)key;
	return 1;
}

static void only_null(void)
{
	(void)close_range(3, ~0U, 0);
	move_fd(open("/dev/null", O_RDWR), 3);
	CHECK(dup2(3, 0) == 0 && dup2(3, 1) == 1 && dup2(3, 2) == 2 && close(3) == 0);
}

/* Only as far as one kind's capture needs it. */
static void be_the_subject(void)
{
	struct err err = { 0 };

	cap.arena = arena_new();
	cap.tree = arena_alloc(cap.arena, sizeof *cap.tree);
	cap.tree->processes = arena_alloc(cap.arena, sizeof *cap.tree->processes);
	cap.tree->n_processes = 1;
	cap.tree->processes[0].pid = getpid();
	cap.space_id = space_id;
	cap.subjects = &self;
	cap.n_subjects = 1;
	self.process = cap.tree->processes;
	self.pid = getpid();
	self.batch = batch_new(NULL, NULL);
	CHECK(proc_open_pid(getpid(), &self.proc_dirfd, &err) == 0);
}

static void no_kcmp_setup(void)
{
	for (int i = 0; i < 20; i++)
		CHECK_EQ(eventfd((unsigned)i, EFD_NONBLOCK), 3 + i);
	CHECK(dup2(5, 30) == 30 && dup2(3, 31) == 31 && dup2(30, 32) == 32);
}

static void no_kcmp_between(void)
{
	CHECK_EQ(last_tree->n_files, 1 + 20);
}

static void no_kcmp_verify(void)
{
	CHECK(shares_description(5, 30) && shares_description(5, 32) && shares_description(3, 31));
	CHECK(!shares_description(3, 4) && !shares_description(3, 5) &&
	      !shares_description(21, 22));
}

static const struct {
	unsigned count;
	int flags;
} counters[] = {
	{ 0, 0 }, { 0, EFD_SEMAPHORE }, { 1, EFD_NONBLOCK },  { 1, EFD_SEMAPHORE },
	{ 2, 0 }, { 2, EFD_SEMAPHORE }, { 77, EFD_NONBLOCK }, { 77, EFD_SEMAPHORE | EFD_NONBLOCK },
};

/* The kind itself on descriptors of this process, in which the batches of this test run. */
static void try_eventfds(void)
{
	struct err err = { 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(counters); i++) {
		int fd = eventfd(counters[i].count, counters[i].flags);
		struct open_file of = {
			.subject = &self, .fd = fd, .dup = fd, .flags = fcntl(fd, F_GETFL)
		};
		struct proc_fdinfo now = { 0 };
		const struct file_eventfd *d;
		struct file f = { 0 };

		CHECK(proc_fdinfo_read(self.proc_dirfd, fd, cap.arena, &of.info, &err) == 0);
		of.info.eventfd_semaphore = 0; /* as an older kernel would have it */
		if (eventfd_ops.capture(&cap, &of, &f, &err) < 0)
			fail(__FILE__, __LINE__, "%s", err.msg);
		d = f.detail;
		CHECK_EQ(d->count, counters[i].count);
		CHECK_EQ(d->semaphore, !!(counters[i].flags & EFD_SEMAPHORE));
		CHECK(proc_fdinfo_read(self.proc_dirfd, fd, cap.arena, &now, &err) == 0);
		CHECK_EQ(now.eventfd_count, counters[i].count);
		CHECK_EQ(fcntl(fd, F_GETFL), of.flags);
		CHECK(close(fd) == 0);
	}
}

static void eventfd_setup(void)
{
	only_null();
	be_the_subject();
	eventfd_force_try = true;
	try_eventfds();
	CHECK(close(self.proc_dirfd) == 0);
}

static void nothing(void)
{
}

static const struct test tests[] = {
	{ .name = "without kcmp",
	  .setup = no_kcmp_setup,
	  .between = no_kcmp_between,
	  .verify = no_kcmp_verify },
	{ .name = "eventfd tried out", .setup = eventfd_setup, .verify = nothing },
};

int main(void)
{
	gather_force_no_kcmp = true;
	return run_tests(tests, ARRAY_SIZE(tests));
}
