/* SPDX-License-Identifier: BSD-2-Clause */
/* Waits whose timeout the kernel does not keep over a stop (signal(7)): they end all the same, with
 * the result that says so, and not before their time. */
#include "victim.h"

#include <sys/epoll.h>

#define WAIT_MS 600

static uint64_t now_ms(void)
{
	struct timespec ts;

	check_sys(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	struct timespec timeout = { .tv_nsec = WAIT_MS * 1000000L };
	struct epoll_event event;
	sigset_t set;
	int epfd;

	victim_init(argc, argv);
	epfd = epoll_create1(EPOLL_CLOEXEC);
	check_sys(epfd >= 0);
	check_sys(sigemptyset(&set) == 0 && sigaddset(&set, SIGRTMIN + 5) == 0);
	check_sys(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	victim_ready();
	while (victim_wait()) {
		uint64_t before = now_ms();
		int rc = epoll_wait(epfd, &event, 1, WAIT_MS);

		check(rc == 0, "epoll_wait returned %d: %s", rc, strerror(errno));
		check(now_ms() - before >= WAIT_MS - 1, "epoll_wait took %lu ms",
		      (unsigned long)(now_ms() - before));
		before = now_ms();
		rc = sigtimedwait(&set, NULL, &timeout);
		check(rc == -1 && errno == EAGAIN, "sigtimedwait returned %d: %s", rc,
		      strerror(errno));
		check(now_ms() - before >= WAIT_MS - 1, "sigtimedwait took %lu ms",
		      (unsigned long)(now_ms() - before));
		victim_ok();
	}
	return 0;
}
