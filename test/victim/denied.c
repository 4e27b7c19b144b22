/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: io_uring is denied (ckpt-run --deny-io-uring), for it, its threads and its children, and
 * nothing else is. */
#include "victim.h"

#include <sys/wait.h>

static bool is_denied(void)
{
	char params[120] = { 0 };
	long rc = syscall(425, 4, params);

	if (rc >= 0)
		(void)close((int)rc);
	return rc < 0 && errno == ENOSYS;
}

static void *in_thread(void *arg)
{
	(void)arg;
	check(is_denied(), "io_uring in a thread: %s", strerror(errno));
	return NULL;
}

int main(int argc, char **argv)
{
	char text[32];

	victim_init(argc, argv);
	victim_ready();
	while (victim_wait()) {
		pid_t child;
		int status;

		check(is_denied(), "io_uring: %s", strerror(errno));
		check(pthread_join(thread_start(in_thread, NULL), NULL) == 0, "join");
		child = fork();
		if (child == 0)
			_exit(is_denied() ? 0 : 1);
		check_sys(child > 0 && waitpid(child, &status, 0) == child);
		check(status == 0, "io_uring in a child");
		check(status_field("/proc/self/status", "Seccomp", text, sizeof text) &&
			      !strcmp(text, "2"),
		      "Seccomp: %s", text);
		victim_ok();
	}
	return 0;
}
