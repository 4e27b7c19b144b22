/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the tracing process runs, and with what. */
#include "../check.h"

#include "dump/tracing.h"

#include <signal.h>
#include <unistd.h>

/* Of the thread whose data the tracing process uses; so is malloc's arena. */
static _Thread_local unsigned times;

struct visit {
	pid_t pid;
	unsigned times;
	bool die;
};

static int visit(void *arg, struct err *err)
{
	struct visit *v = arg;

	(void)err;
	v->pid = getpid();
	v->times = ++times;
	if (v->die)
		(void)kill(v->pid, SIGKILL);
	return 0;
}

static void check_same_thread(void)
{
	struct tracing *t = NULL;
	struct visit v = { 0 };
	struct err err = { 0 };

	for (unsigned i = 1; i <= 3; i++) {
		CHECK_OK(tracing_run(&t, getpid(), visit, &v, &err));
		CHECK(v.pid != getpid());
		CHECK_INT(v.times, i);
	}
	tracing_free(t);
}

/* What it was in the middle of is not gone on with. */
static void check_killed(void)
{
	struct tracing *t = NULL;
	struct visit v = { .die = true };
	struct err err = { 0 };

	CHECK_INT(tracing_run(&t, getpid(), visit, &v, &err), -EIO);
	CHECK_STR(err.msg, "the tracing process was ended by signal 9");
	v.die = false;
	CHECK_OK(tracing_run(&t, getpid(), visit, &v, &err));
	CHECK_INT(v.times, 1);
	tracing_free(t);
}

int main(void)
{
	check_same_thread();
	check_killed();
	return 0;
}
