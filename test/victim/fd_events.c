/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: eventfd, timerfd, signalfd, epoll with its watches and data, and inotify on paths. */
#include "victim.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static int ev, sem, empty, periodic, once, disarmed, sigfd, ep, ep_inner, ino, pipe_fds[2], wd;

static uint64_t take(int fd)
{
	uint64_t v = 0;
	ssize_t n = read(fd, &v, 8);

	check(n == 8, "descriptor %d: %ld bytes: %s", fd, (long)n, strerror(errno));
	return v;
}

static void put(int fd, uint64_t v)
{
	check_sys(write(fd, &v, 8) == 8);
}

static void watch(int epfd, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = { .events = events, .data.u64 = data };

	check_sys(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e) == 0);
}

static void set_up(void)
{
	struct itimerspec every = { { 0, 50000000 }, { 0, 50000000 } },
			  far = { { 0, 0 }, { 50000, 0 } };
	sigset_t set;

	ev = eventfd(41, EFD_CLOEXEC);
	sem = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
	empty = eventfd(0, EFD_NONBLOCK);
	periodic = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	once = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	disarmed = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
	check_sys(ev >= 0 && sem >= 0 && empty >= 0 && periodic >= 0 && once >= 0 && disarmed >= 0);
	check_sys(timerfd_settime(periodic, 0, &every, NULL) == 0);
	check_sys(timerfd_settime(once, 0, &far, NULL) == 0);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR2);
	(void)sigaddset(&set, SIGRTMIN + 9);
	check_sys(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	sigfd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	check_sys(sigfd >= 0 && pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC) == 0);
	ep = epoll_create1(EPOLL_CLOEXEC);
	ep_inner = epoll_create1(0);
	check_sys(ep >= 0 && ep_inner >= 0);
	watch(ep, pipe_fds[0], EPOLLIN, mix(1));
	watch(ep, periodic, EPOLLIN | EPOLLET, mix(2));
	watch(ep, sigfd, EPOLLIN, mix(3));
	watch(ep, ep_inner, EPOLLIN, mix(4));
	watch(ep_inner, empty, EPOLLIN | EPOLLONESHOT, mix(5));
	watch(ep_inner, pipe_fds[1], 0, mix(6)); /* nothing asked for */
	check_sys(mkdir(victim_path("watched"), 0700) == 0 || errno == EEXIST);
	ino = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	check_sys(ino >= 0);
	/* The first watch goes, so that the number of the second is not the first one again. */
	wd = inotify_add_watch(ino, "/", IN_MOVED_TO);
	check_sys(wd >= 0 && inotify_rm_watch(ino, wd) == 0);
	wd = inotify_add_watch(ino, victim_path("watched"), IN_CREATE | IN_DELETE | IN_ONLYDIR);
	check_sys(wd >= 0);
	char drop[4096];
	check_sys(read(ino, drop, sizeof drop) > 0); /* IN_IGNORED of the first */
}

static void check_counters(void)
{
	struct itimerspec now;

	check(take(ev) == 41, "eventfd count");
	put(ev, 41);
	for (int i = 0; i < 3; i++)
		check(take(sem) == 1, "semaphore eventfd");
	check(read(sem, &now, 8) == -1 && errno == EAGAIN, "semaphore eventfd: a count too many");
	put(sem, 3);
	check(take(periodic) >= 1, "periodic timerfd");
	check_sys(timerfd_gettime(periodic, &now) == 0);
	check(now.it_interval.tv_nsec == 50000000, "timerfd interval %ld", now.it_interval.tv_nsec);
	check_sys(timerfd_gettime(once, &now) == 0);
	check(now.it_value.tv_sec > 45000 && now.it_value.tv_sec <= 50000, "timerfd: %ld s to go",
	      (long)now.it_value.tv_sec);
	check_sys(timerfd_gettime(disarmed, &now) == 0);
	check(!now.it_value.tv_sec && !now.it_value.tv_nsec, "timerfd is armed");
	check(fcntl(once, F_GETFL) & O_NONBLOCK, "O_NONBLOCK of the timerfd");
}

static void check_signalfd(void)
{
	struct signalfd_siginfo info;

	check(read(sigfd, &info, sizeof info) == -1 && errno == EAGAIN, "signalfd has a signal");
	check_sys(sigqueue(getpid(), SIGRTMIN + 9, (union sigval){ .sival_int = 321 }) == 0);
	check(read(sigfd, &info, sizeof info) == (ssize_t)sizeof info, "signalfd: %s",
	      strerror(errno));
	check(info.ssi_signo == (uint32_t)(SIGRTMIN + 9) && info.ssi_int == 321,
	      "signalfd: signal %u", info.ssi_signo);
}

/* The one event that epfd must report now has this data; -1 fd events are drained by the caller. */
static void expect(int epfd, uint64_t data, const char *what)
{
	struct epoll_event e[8];
	int n;

	/* The periodic timerfd is edge-triggered and may speak up at any time. */
	do {
		n = epoll_wait(epfd, e, 8, 2000);
		for (int i = 0; i < n; i++)
			if (e[i].data.u64 == data)
				return;
	} while (n > 0);
	check(0, "epoll: no event for %s", what);
}

static void check_epoll(void)
{
	char c;

	check_sys(write(pipe_fds[1], "x", 1) == 1);
	expect(ep, mix(1), "the pipe");
	check_sys(read(pipe_fds[0], &c, 1) == 1);
	expect(ep, mix(2), "the timerfd");
	check_sys(raise(SIGUSR2) == 0);
	expect(ep, mix(3), "the signalfd");
	struct signalfd_siginfo info;
	check_sys(read(sigfd, &info, sizeof info) == (ssize_t)sizeof info);
	put(empty, 1);
	expect(ep, mix(4), "the inner epoll");
	expect(ep_inner, mix(5), "the eventfd in the inner epoll");
	struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = mix(5) };
	check(epoll_wait(ep_inner, &(struct epoll_event){ 0 }, 1, 0) == 0, "EPOLLONESHOT");
	(void)take(empty);
	check_sys(epoll_ctl(ep_inner, EPOLL_CTL_MOD, empty, &e) == 0);
	check(epoll_ctl(ep_inner, EPOLL_CTL_ADD, pipe_fds[1], &e) == -1 && errno == EEXIST,
	      "the watch for nothing is lost");
}

static void check_inotify(void)
{
	char buf[4096], path[4096];
	struct inotify_event *e = (struct inotify_event *)buf;
	ssize_t n = read(ino, buf, sizeof buf);
	int fd;

	check(n == -1 && errno == EAGAIN, "inotify has an event before anything happened");
	strcpy(path, victim_path("watched"));
	strcat(path, "/new");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	check_sys(fd >= 0 && close(fd) == 0);
	n = read(ino, buf, sizeof buf);
	check(n > 0, "inotify: %s", strerror(errno));
	check(e->wd == wd && e->mask == IN_CREATE && !strcmp(e->name, "new"),
	      "inotify: wd %d mask %x", e->wd, e->mask);
	check_sys(unlink(path) == 0 && read(ino, buf, sizeof buf) > 0);
	check(e->mask == IN_DELETE, "inotify: mask %x", e->mask);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	set_up();
	victim_ready();
	while (victim_wait()) {
		check_counters();
		check_signalfd();
		check_epoll();
		check_inotify();
		victim_ok();
	}
	return 0;
}
