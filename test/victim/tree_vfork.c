/* SPDX-License-Identifier: BSD-2-Clause */
/* A parent that waits in vfork for a child which takes its time (argv[2] milliseconds) until exec,
 * again and again. */
#include "victim.h"

#include <sys/wait.h>

static volatile uint64_t rounds;

static void *fork_slowly(void *arg)
{
	long ms = (long)(intptr_t)arg;
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	for (;;) {
		int status = 0;
		pid_t pid = vfork();

		if (pid == 0) {
			(void)nanosleep(&ts, NULL);
			(void)execl("/bin/true", "true", NULL);
			_exit(9);
		}
		check_sys(waitpid(pid, &status, 0) == pid);
		check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
		rounds++;
		sleep_ms(20);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	(void)thread_start(fork_slowly, (void *)(intptr_t)(argc > 2 ? atoi(argv[2]) : 5));
	victim_ready();
	while (victim_wait()) {
		uint64_t was = rounds;

		for (int i = 0; rounds == was && i < 12000; i++)
			sleep_ms(5);
		check(rounds != was, "no progress");
		victim_ok();
	}
	return 0;
}
