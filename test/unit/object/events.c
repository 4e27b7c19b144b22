/* SPDX-License-Identifier: BSD-2-Clause */
/* eventfd, timerfd, signalfd, epoll, inotify, and who gets SIGIO. */
#include "harness.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>

static uint64_t take(int fd)
{
	uint64_t v = 0;

	return read(fd, &v, sizeof v) == (ssize_t)sizeof v ? v : 0;
}

/* --- counters and timers ---------------------------------------------------------------------- */

static void eventfd_setup(void)
{
	uint64_t big = UINT64_C(0x123456789abcdef0);

	move_fd(eventfd(7, EFD_NONBLOCK), 10);
	move_fd(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC), 11);
	move_fd(eventfd(0, EFD_NONBLOCK), 12);
	CHECK_EQ(write(12, &big, sizeof big), sizeof big);
	move_fd(eventfd(0, 0), 13);
	move_fd(eventfd(1, EFD_NONBLOCK), 14);
	move_fd(eventfd(1, EFD_SEMAPHORE | EFD_NONBLOCK), 15);
}

static void eventfd_verify(void)
{
	uint64_t two = 2;

	CHECK_EQ(take(10), 7);
	CHECK_EQ(take(10), 0);
	CHECK_EQ(take(11), 1);
	CHECK_EQ(take(11), 1);
	CHECK_EQ(take(11), 1);
	CHECK_EQ(take(11), 0);
	CHECK_EQ(fcntl(11, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(take(12), UINT64_C(0x123456789abcdef0));
	CHECK_EQ(fcntl(13, F_GETFL) & O_NONBLOCK, 0);
	CHECK_EQ(write(13, &two, sizeof two), sizeof two);
	CHECK_EQ(take(13), 2);
	CHECK_EQ(take(14), 1);
	CHECK_EQ(take(14), 0);
	CHECK_EQ(take(15), 1);
	CHECK_EQ(take(15), 0);
}

static void arm(int fd, int clock, int flags, long value_ms, long interval_ms, long base_ms)
{
	struct itimerspec it = {
		.it_value = { (base_ms + value_ms) / 1000, (base_ms + value_ms) % 1000 * 1000000 },
		.it_interval = { interval_ms / 1000, interval_ms % 1000 * 1000000 },
	};

	move_fd(timerfd_create(clock, TFD_NONBLOCK), fd);
	CHECK(timerfd_settime(fd, flags, &it, NULL) == 0);
}

static long now_ms(int clock)
{
	struct timespec ts;

	CHECK(clock_gettime(clock, &ts) == 0);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void timerfd_setup(void)
{
	struct pollfd p = { .fd = 13, .events = POLLIN };

	arm(10, CLOCK_MONOTONIC, 0, 100000, 0, 0);
	arm(11, CLOCK_BOOTTIME, 0, 200000, 5000, 0);
	arm(12, CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, 300000, 0, now_ms(CLOCK_MONOTONIC));
	arm(13, CLOCK_MONOTONIC, 0, 1, 0, 0); /* expired once, not read */
	CHECK(poll(&p, 1, 1000) == 1);
	move_fd(timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC), 14); /* never armed */
	arm(15, CLOCK_MONOTONIC, 0, 1, 1,
	    0); /* expired, standing still until it is looked at, at 6 by then */
	arm(16, CLOCK_MONOTONIC, 0, 6, 0, 0);
	p.fd = 16;
	CHECK(poll(&p, 1, 1000) == 1);
}

static long left_ms(int fd, long *interval)
{
	struct itimerspec it;

	CHECK(timerfd_gettime(fd, &it) == 0);
	*interval = it.it_interval.tv_sec * 1000 + it.it_interval.tv_nsec / 1000000;
	return it.it_value.tv_sec * 1000 + it.it_value.tv_nsec / 1000000;
}

static void timerfd_verify(void)
{
	long interval, left = left_ms(10, &interval);

	CHECK(left > 80000 && left <= 100000 && interval == 0);
	left = left_ms(11, &interval);
	CHECK(left > 180000 && left <= 200000 && interval == 5000);
	left = left_ms(12, &interval);
	CHECK(left > 280000 && left <= 300000);
	CHECK_EQ(take(10), 0);
	CHECK_EQ(take(13), 1);
	CHECK_EQ(take(13), 0);
	CHECK_EQ(left_ms(14, &interval), 0);
	CHECK_EQ(fcntl(14, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(14, F_GETFL) & O_NONBLOCK, 0);
	CHECK(take(15) >= 5);
	(void)left_ms(15, &interval);
	CHECK_EQ(interval, 1);
}

static void signalfd_setup(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMAX);
	move_fd(signalfd(-1, &set, SFD_NONBLOCK), 10);
}

static void signalfd_verify(void)
{
	struct signalfd_siginfo si;
	sigset_t set;

	sigfillset(&set);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(raise(SIGUSR2) == 0 && raise(SIGRTMAX) == 0 && raise(SIGUSR1) == 0);
	CHECK(read(10, &si, sizeof si) == (ssize_t)sizeof si);
	CHECK_EQ(si.ssi_signo, SIGUSR1);
	CHECK(read(10, &si, sizeof si) == (ssize_t)sizeof si);
	CHECK_EQ((int)si.ssi_signo, SIGRTMAX);
	CHECK(read(10, &si, sizeof si) < 0 && errno == EAGAIN);
}

/* --- epoll ------------------------------------------------------------------------------------ */

static void watch(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static void epoll_setup(void)
{
	move_fd(epoll_create1(EPOLL_CLOEXEC), 10);
	move_fd(eventfd(0, EFD_NONBLOCK), 11);
	move_fd(eventfd(0, EFD_NONBLOCK), 12);
	move_fd(eventfd(0, EFD_NONBLOCK), 13);
	move_fd(eventfd(0, EFD_NONBLOCK), 14);
	move_fd(epoll_create1(0), 15);
	watch(10, 11, EPOLLIN, UINT64_C(0xdeadbeefcafe0011));
	watch(10, 12, EPOLLIN | EPOLLET | EPOLLONESHOT, 12);
	/* watched as 13, which then means another description; the watched one goes on as 20 */
	watch(10, 13, EPOLLIN, 20);
	CHECK(dup2(13, 20) == 20 && dup2(14, 13) == 13);
	watch(10, 13, EPOLLIN, 13);
	/* watched as 14, which is closed then; it goes on as 13 */
	watch(10, 14, EPOLLIN, 14);
	CHECK(close(14) == 0);
	watch(15, 10, EPOLLIN, 10); /* nested */
}

/* What epoll reports when the eventfd fd is written to: how many events, and the or-ed bits of
 * their data. */
static int poke(int fd, uint64_t *data)
{
	struct epoll_event ev[8];
	uint64_t one = 1;
	int n;

	CHECK_EQ(write(fd, &one, sizeof one), sizeof one);
	n = epoll_wait(10, ev, 8, 0);
	*data = 0;
	for (int i = 0; i < n; i++)
		*data |= ev[i].data.u64;
	(void)take(fd);
	return n;
}

static void epoll_verify(void)
{
	struct epoll_event ev;
	uint64_t data, one = 1;

	CHECK_EQ(fcntl(10, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(epoll_wait(10, &ev, 1, 0), 0);
	CHECK_EQ(poke(11, &data), 1);
	CHECK_EQ(data, UINT64_C(0xdeadbeefcafe0011));
	CHECK_EQ(poke(12, &data), 1);
	CHECK_EQ(data, 12);
	CHECK_EQ(poke(12, &data), 0); /* one shot */
	CHECK_EQ(poke(20, &data), 1);
	CHECK_EQ(data, 20);
	CHECK_EQ(poke(13, &data), 2);
	CHECK_EQ(data, 13 | 14);
	CHECK(fcntl(14, F_GETFD) < 0 && fcntl(300, F_GETFD) < 0);
	CHECK(!shares_description(13, 20));
	CHECK_EQ(write(11, &one, sizeof one), sizeof one);
	CHECK_EQ(epoll_wait(15, &ev, 1, 0), 1);
	CHECK_EQ(ev.data.u64, 10);
	/* the number belongs to the watch still: it can be changed and removed under it */
	CHECK(epoll_ctl(10, EPOLL_CTL_DEL, 11, NULL) == 0);
	CHECK(epoll_ctl(10, EPOLL_CTL_DEL, 13, NULL) == 0);
}

/* --- inotify ---------------------------------------------------------------------------------- */

static void touch(const char *name)
{
	int fd = open(in_dir(name), O_CREAT | O_WRONLY, 0600);

	CHECK(fd >= 0 && close(fd) == 0);
}

/* Where an unprivileged capture looks: the files code does not restore the working directory
 * itself. */
static void go_there(void)
{
	CHECK(chdir(test_dir) == 0);
}

static void inotify_setup(void)
{
	char buf[4096];
	int wd;

	go_there();
	CHECK(mkdir(in_dir("top"), 0700) == 0 && mkdir(in_dir("top/sub"), 0700) == 0);
	CHECK(mkdir(in_dir("top/sub/deep"), 0700) == 0);
	touch("file");
	touch("spare");
	move_fd(inotify_init1(IN_NONBLOCK | IN_CLOEXEC), 10);
	for (int i = 0; i < 5; i++) {
		wd = inotify_add_watch(10, in_dir("spare"), IN_MODIFY);
		CHECK(wd == i + 1 && inotify_rm_watch(10, wd) == 0);
	}
	CHECK_EQ(inotify_add_watch(10, in_dir("file"), IN_CLOSE_WRITE | IN_MODIFY), 6);
	/* a watched file that the restart itself will cut back */
	move_fd(open(in_dir("file"), O_WRONLY), 11);
	CHECK_EQ(inotify_add_watch(10, in_dir("top"), IN_CREATE | IN_ONLYDIR), 7);
	CHECK_EQ(inotify_add_watch(10, in_dir("spare"), IN_MODIFY), 8);
	CHECK_EQ(inotify_add_watch(10, in_dir("top/sub"), IN_CREATE), 9);
	CHECK_EQ(inotify_add_watch(10, in_dir("top/sub/deep"), IN_CREATE | IN_ONESHOT), 10);
	CHECK(inotify_rm_watch(10, 8) == 0);
	while (read(10, buf, sizeof buf) > 0)
		;
}

static void grow_watched(void)
{
	CHECK(truncate(in_dir("file"), 100) == 0);
}

static void expect_event(int wd, uint32_t mask, const char *name)
{
	_Alignas(8) char buf[4096];
	const struct inotify_event *e = (const void *)buf;

	CHECK(read(10, buf, sizeof buf) > 0);
	CHECK_EQ(e->wd, wd);
	CHECK_EQ(e->mask & mask, mask);
	CHECK(!name || !strcmp(e->name, name));
}

static void inotify_verify(void)
{
	char buf[4096];

	CHECK(read(10, buf, sizeof buf) < 0 && errno == EAGAIN);
	CHECK_EQ(fcntl(10, F_GETFD), FD_CLOEXEC);
	touch("file");
	expect_event(6, IN_CLOSE_WRITE, NULL);
	touch("top/a");
	expect_event(7, IN_CREATE, "a");
	touch("top/sub/b");
	expect_event(9, IN_CREATE, "b");
	touch("top/sub/deep/c");
	expect_event(10, IN_CREATE, "c");
	touch("top/sub/deep/d");
	touch("spare");
	CHECK(read(10, buf, sizeof buf) < 0 && errno == EAGAIN);
}

static void unread_setup(void)
{
	move_fd(inotify_init1(0), 10);
	touch("file");
	CHECK(inotify_add_watch(10, in_dir("file"), IN_ALL_EVENTS) == 1);
	touch("file");
}

static void rename_watched(void)
{
	CHECK(rename(in_dir("top"), in_dir("elsewhere")) == 0);
}

/* --- SIGIO ------------------------------------------------------------------------------------ */

static void owner_setup(void)
{
	int ends[2];

	CHECK(pipe2(ends, O_NONBLOCK) == 0);
	move_fd(ends[0], 10);
	move_fd(ends[1], 11);
	CHECK(fcntl(10, F_SETOWN, getpid()) == 0);
	CHECK(fcntl(10, F_SETSIG, SIGRTMIN + 3) == 0);
	CHECK(fcntl(10, F_SETFL, O_NONBLOCK | O_ASYNC) == 0);
}

static void owner_verify(void)
{
	struct f_owner_ex owner;
	siginfo_t si;
	sigset_t set;

	CHECK(fcntl(10, F_GETOWN_EX, &owner) == 0);
	CHECK_EQ(owner.type, F_OWNER_PID);
	CHECK_EQ(owner.pid, getpid());
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK_EQ(write(11, "x", 1), 1);
	CHECK_EQ(sigwaitinfo(&set, &si), SIGRTMIN + 3);
	CHECK_EQ(si.si_fd, 10);
}

static const struct test tests[] = {
	{ "eventfd", eventfd_setup, NULL, eventfd_verify },
	{ "timerfd", timerfd_setup, NULL, timerfd_verify },
	{ "signalfd", signalfd_setup, NULL, signalfd_verify },
	{ "epoll", epoll_setup, NULL, epoll_verify },
	{ .name = "inotify",
	  .setup = inotify_setup,
	  .between = grow_watched,
	  .caller = go_there,
	  .verify = inotify_verify },
	{ "inotify, unread events", unread_setup, NULL, NULL, "unread events; will be tried again",
	  false, -EAGAIN },
	{ "inotify, watched directory gone", inotify_setup, rename_watched, NULL, "cannot watch '",
	  true, -ENOENT },
	{ "SIGIO", owner_setup, NULL, owner_verify },
};

int main(void)
{
	return run_tests(tests, ARRAY_SIZE(tests));
}
