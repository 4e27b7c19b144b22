/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: inotify with events that stay unread, in two processes and an epoll. Whoever only goes on
 * running finds them as they were; after a restart (BASE.restarted is there) a program is told that
 * events were lost, and then hears of what happens as before.
 */
#include "victim.h"

#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/wait.h>

static int ino, wd, quiet, quiet_wd, epoll;
static char dir[4096];

static void touch(const char *name)
{
	char path[4200];
	int fd;

	(void)snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	check_sys(fd >= 0 && close(fd) == 0 && unlink(path) == 0);
}

/* The events of touch(), which nobody has read. */
static void expect(int fd, int watch, const char *name)
{
	_Alignas(8) char buf[4096];
	const struct inotify_event *e = (const void *)buf;
	ssize_t n = read(fd, buf, sizeof buf);

	check(n == 2 * (ssize_t)(sizeof *e + e->len), "%zd bytes of events: %s", n,
	      n < 0 ? strerror(errno) : "");
	for (int i = 0; i < 2; i++) {
		check(e->wd == watch && e->mask == (i ? IN_DELETE : IN_CREATE) &&
			      !strcmp(e->name, name),
		      "wd %d mask %x name %s", e->wd, e->mask, e->name);
		e = (const void *)(buf + sizeof *e + e->len);
	}
	check(read(fd, buf, sizeof buf) == -1 && errno == EAGAIN, "more events");
}

static void expect_lost(void)
{
	_Alignas(8) char buf[4096];
	const struct inotify_event *e = (const void *)buf;
	ssize_t n = read(ino, buf, sizeof buf);

	check(n == (ssize_t)sizeof *e && e->wd == -1 && e->mask == IN_Q_OVERFLOW,
	      "%zd bytes, wd %d mask %x", n, e->wd, e->mask);
}

/* Another process, which has the descriptors by fork, reads. */
static void in_child(bool restarted)
{
	struct epoll_event ev;
	int status;
	pid_t pid;

	check(epoll_wait(epoll, &ev, 1, 0) == 1 && ev.data.u64 == 77, "no event in the epoll");
	pid = fork();
	check_sys(pid >= 0);
	if (pid == 0) {
		if (restarted)
			expect_lost();
		else
			expect(ino, wd, "unread");
		_exit(0);
	}
	check_sys(waitpid(pid, &status, 0) == pid);
	check(status == 0, "status %x", status);
	check(epoll_wait(epoll, &ev, 1, 0) == 0, "still an event in the epoll");
}

static void set_up(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 77 };

	(void)snprintf(dir, sizeof dir, "%s", victim_path("watched"));
	check_sys(mkdir(dir, 0700) == 0);
	ino = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	quiet = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	check_sys(ino >= 0 && quiet >= 0 && epoll >= 0);
	wd = inotify_add_watch(ino, dir, IN_CREATE | IN_DELETE);
	quiet_wd = inotify_add_watch(quiet, dir, IN_CREATE | IN_DELETE);
	check_sys(wd == 1 && quiet_wd == 1);
	check_sys(epoll_ctl(epoll, EPOLL_CTL_ADD, ino, &ev) == 0);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	set_up();
	touch("unread");
	expect(quiet, quiet_wd, "unread");
	victim_ready();
	while (victim_wait()) {
		in_child(access(victim_path("restarted"), F_OK) == 0);
		touch("read");
		expect(ino, wd, "read");
		expect(quiet, quiet_wd, "read");
		touch("unread");
		expect(quiet, quiet_wd, "unread");
		victim_ok();
	}
	return 0;
}
