/* SPDX-License-Identifier: BSD-2-Clause */
/* Who is about to end: zombies, processes whose first thread has ended alone, killed ones. */
#include "util/ending.h"

#include "../check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_text(void)
{
	static const struct {
		char state;
		unsigned flags, signals;
		bool ending;
	} tasks[] = {
		{ 'Z', 0x40000c, 0, true },
		{ 'X', 0x40000c, 0, true },
		{ 'R', 0x400004, 0, true }, /* PF_EXITING */
		{ 'S', 0x400000, 1 << (SIGKILL - 1), true },
		{ 'S', 0x400000, 1 << (SIGTERM - 1), false },
		{ 'R', 0x400000, 0, false },
	};
	char text[512];

	for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++) {
		(void)snprintf(
			text, sizeof text,
			"9 (x) Z 9) %c 1 9 9 0 -1 %u 0 0 0 0 0 0 0 0 20 0 1 0 249901 0 0 0 0 "
			"0 0 0 0 %u 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
			tasks[i].state, tasks[i].flags, tasks[i].signals);
		CHECK_INT(ending_stat(text), tasks[i].ending);
	}
	CHECK(!ending_stat(""));
	CHECK(!ending_stat("1 (x"));
}

static void *wait_for_end(void *arg)
{
	for (;;)
		(void)pause();
	return arg;
}

/* A child that has one thread, or ends its first of two. */
static pid_t child(bool leader_ends)
{
	pid_t pid = fork();
	pthread_t t;

	if (pid == 0) {
		if (leader_ends && pthread_create(&t, NULL, wait_for_end, NULL) == 0)
			(void)syscall(SYS_exit, 0);
		(void)wait_for_end(NULL);
	}
	return pid;
}

static void wait_until(pid_t pid, enum ending how)
{
	while (ending_of(pid, NULL) != how)
		(void)usleep(1000);
}

static void test_processes(void)
{
	uint64_t started = 0, again = 1;
	pid_t one = child(false), two = child(true);

	CHECK_INT(ending_of(one, &started), ENDING_NOT);
	CHECK(started);
	wait_until(two, ENDING_LEADER);
	CHECK_INT(kill(one, SIGKILL), 0);
	CHECK_INT(kill(two, SIGKILL), 0);
	wait_until(one, ENDING_DONE);
	wait_until(two, ENDING_DONE);
	CHECK_INT(ending_of(one, &again), ENDING_DONE);
	CHECK_INT(again, started);
	CHECK_INT(waitpid(one, NULL, 0), one);
	CHECK_INT(waitpid(two, NULL, 0), two);
	CHECK_INT(ending_of(one, NULL), ENDING_GONE);
	CHECK_INT(ending_of(0, NULL), ENDING_GONE);
}

int main(void)
{
	test_text();
	test_processes();
	return 0;
}
