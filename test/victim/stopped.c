/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A job that is stopped (SIGSTOP) in read() while a signal waits for it whose handler has no
 * SA_RESTART: when it goes on, the handler runs and read returns EINTR. Has handlers for SIGURG and
 * SIGWINCH, which are then of no use to a tracer.
 */
#include "victim.h"

static volatile sig_atomic_t seen[65];

static void on_signal(int signo)
{
	seen[signo]++;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	int fds[2];
	char c;

	victim_init(argc, argv);
	check_sys(sigaction(SIGURG, &sa, NULL) == 0 && sigaction(SIGWINCH, &sa, NULL) == 0);
	check_sys(sigaction(SIGUSR2, &sa, NULL) == 0);
	check_sys(pipe2(fds, O_CLOEXEC) == 0);
	victim_ready();
	check(read(fds[0], &c, 1) == -1 && errno == EINTR, "read: %s", strerror(errno));
	check(seen[SIGUSR2] == 1, "the handler ran %d times", (int)seen[SIGUSR2]);
	while (victim_wait()) {
		check(!seen[SIGURG] && !seen[SIGWINCH], "a signal that nobody sent");
		victim_ok();
	}
	return 0;
}
