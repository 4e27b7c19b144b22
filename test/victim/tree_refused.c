/* SPDX-License-Identifier: BSD-2-Clause */
/* A tree of three of which one, for as long as BASE.refuse exists, cannot be captured: it has a
 * namespace open. */
#include "family.h"

static _Noreturn void be_refused(void)
{
	bool now = false;
	int fd = -1;

	family_note(2, 0);
	for (;; sleep_ms(5)) {
		if ((access(victim_path("refuse"), F_OK) == 0) == now)
			continue;
		now = !now;
		if (now)
			fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		else
			(void)close(fd);
		check_sys(fd >= 0);
		victim_say("refused %d %d", now, (int)getpid());
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
		be_refused();
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
