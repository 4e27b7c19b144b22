/* SPDX-License-Identifier: BSD-2-Clause */
/* Fault points: parsing of CKPT_FAULT and the decision at each pass. */
#include "util/fault.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum action { ACT_FAIL, ACT_KILL, ACT_KILL_ALL, ACT_STOP, ACT_LIST };

int fault_armed;

static struct {
	enum action action;
	char name[64]; /* empty: any point counts */
	long nth;
	long seen;
	pid_t program; /* 0: whoever passes the point */
} plan;

void fault_init(void)
{
	const char *spec = getenv("CKPT_FAULT");
	char *eq, *colon;

	if (!spec || !*spec)
		return;
	memset(&plan, 0, sizeof plan);
	plan.nth = 1;
	(void)snprintf(plan.name, sizeof plan.name, "%s", spec);
	eq = strchr(plan.name, '=');
	if (eq) {
		*eq = '\0';
		plan.action = !strcmp(eq + 1, "kill")      ? ACT_KILL
			      : !strcmp(eq + 1, "killall") ? ACT_KILL_ALL
							   : ACT_STOP;
	}
	if (!strcmp(plan.name, "list"))
		plan.action = ACT_LIST;
	colon = strchr(plan.name, ':');
	if (colon) {
		*colon = '\0';
		plan.nth = strtol(colon + 1, NULL, 10);
	}
	if (isdigit((unsigned char)plan.name[0])) {
		plan.nth = strtol(plan.name, NULL, 10);
		plan.name[0] = '\0';
	}
	fault_armed = 1;
}

void fault_program(pid_t pid)
{
	plan.program = pid;
}

/* The tracing process lives on for as long as it takes to see that its parent is gone. */
static void kill_program(void)
{
	if (plan.program)
		(void)kill(plan.program, SIGKILL);
	if (!plan.program || plan.action == ACT_KILL_ALL)
		(void)kill(getpid(), SIGKILL);
	while (getppid() == plan.program)
		(void)usleep(1000);
}

int fault_hit(const char *name, struct err *err)
{
	if (plan.action == ACT_LIST) {
		fprintf(stderr, "fault point: %s\n", name);
		return 0;
	}
	if (plan.name[0] && strcmp(plan.name, name))
		return 0;
	if (__atomic_add_fetch(&plan.seen, 1, __ATOMIC_RELAXED) != plan.nth)
		return 0;
	if (plan.action == ACT_KILL || plan.action == ACT_KILL_ALL)
		kill_program();
	if (plan.action == ACT_STOP) {
		/* to this thread, which then does nothing more */
		(void)syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGSTOP);
		return 0;
	}
	return err_set(err, -EIO, "injected fault '%s'", name);
}
