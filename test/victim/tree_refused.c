/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A tree of three of which one, for as long as BASE.refuse exists, cannot be captured: `dumpable`:
 * it is not dumpable; `vm`: it shares its memory with its parent without being a thread of it.
 */
#include "family.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static bool wanted(void)
{
	return access(victim_path("refuse"), F_OK) == 0;
}

static int share_memory(void *arg)
{
	(void)arg;
	while (wanted())
		sleep_ms(5);
	_exit(0);
}

static _Noreturn void be_refused(bool vm)
{
	static char stack[65536] __attribute__((aligned(64)));
	bool now = false;
	pid_t pid = 0;

	family_note(2, 0);
	for (;; sleep_ms(5)) {
		if (wanted() == now)
			continue;
		now = !now;
		if (!vm)
			check_sys(prctl(PR_SET_DUMPABLE, now ? 0 : 1) == 0);
		else if (now)
			pid = clone(share_memory, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
		else
			check_sys(waitpid(pid, NULL, 0) == pid);
		victim_say("refused %d %d", now, (int)(vm && now ? pid : getpid()));
	}
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	family_note(0, -1);
	if (family_fork(1) == 0) {
		family_note(1, 0);
		family_serve(1);
	}
	if (family_fork(2) == 0)
		be_refused(argc > 2 && !strcmp(argv[2], "vm"));
	family_wait(3);
	victim_ready();
	while (victim_wait()) {
		family_ask(2);
		victim_ok();
	}
	(void)kill(family[1].pid, SIGKILL);
	(void)kill(family[2].pid, SIGKILL);
	return 0;
}
