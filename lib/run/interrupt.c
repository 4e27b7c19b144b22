/* SPDX-License-Identifier: BSD-2-Clause */
/* Ctrl-C while a tree is half rebuilt: everything that was made goes, and then we do. */
#include "run/interrupt.h"

#include "util/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>

/*
 * A handler can come at any instant, in the middle of malloc too. So nothing here allocates or
 * locks: raw getdents64 and read into buffers on the stack. Tracees and inits with a parent-death
 * signal would go with us anyway; this is for what is neither, at the moment when it is neither.
 */
static const int deadly[] = {
	SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGUSR2, SIGPIPE, SIGXCPU
};

static struct sigaction before[ARRAY_SIZE(deadly)];
static pid_t owner;
/* Children that we have from the one who executed us; they are none of our business. */
static pid_t spared[64];
static unsigned n_spared;

static bool is_spared(pid_t pid)
{
	for (unsigned i = 0; i < n_spared; i++)
		if (spared[i] == pid)
			return true;
	return false;
}

static unsigned spare(pid_t pid)
{
	if (n_spared < ARRAY_SIZE(spared))
		spared[n_spared++] = pid;
	return 1;
}

static unsigned kill_child(pid_t pid)
{
	return !is_spared(pid) && kill(pid, SIGKILL) == 0;
}

/* Does something with each pid of a "children" file; the sum of what that returns. */
static unsigned each_of_file(int dirfd, const char *path, unsigned (*each)(pid_t))
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	unsigned sum = 0;
	pid_t pid = 0;
	char buf[4096];
	ssize_t n;

	if (fd < 0)
		return 0;
	while ((n = read(fd, buf, sizeof buf)) > 0)
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] >= '0' && buf[i] <= '9') {
				pid = pid * 10 + (buf[i] - '0');
				continue;
			}
			if (pid > 0)
				sum += each(pid);
			pid = 0;
		}
	(void)close(fd);
	return sum;
}

/* Children are listed by the thread that made them. */
static unsigned each_child(unsigned (*each)(pid_t))
{
	_Alignas(struct dirent64) char entries[4096];
	int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned sum = 0;
	long n;

	if (fd < 0)
		return 0;
	while ((n = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(entries + at);
			char path[64] = "";

			at += d->d_reclen;
			if (d->d_name[0] == '.' || strlen(d->d_name) > 20)
				continue;
			(void)strcat(strcat(path, d->d_name), "/children");
			sum += each_of_file(fd, path, each);
		}
	(void)close(fd);
	return sum;
}

void interrupt_kill_children(void)
{
	static const struct timespec moment = { .tv_nsec = 2000000 };

	/* a killed child hands us its own; bounded, since one in uninterruptible sleep may not go
	 * for long */
	for (int round = 0; round < 2500; round++) {
		unsigned killed = each_child(kill_child);

		while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
			;
		if (!killed)
			return;
		(void)nanosleep(&moment, NULL);
	}
}

static void on_signal(int signo)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t set;

	if (getpid() !=
	    owner) /* a child that has not been made into the job yet: its fate is ours to decide */
		return;
	interrupt_kill_children();
	(void)sigaction(signo, &dfl, NULL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, signo);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	(void)raise(signo);
	_exit(128 + signo);
}

void interrupt_arm(void)
{
	struct sigaction act = { .sa_handler = on_signal };
	sigset_t usr1;

	owner = getpid();
	n_spared = 0;
	(void)each_child(spare);
	(void)sigfillset(&act.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
		(void)sigaction(deadly[i], NULL, &before[i]);
		if (before[i].sa_handler != SIG_IGN)
			(void)sigaction(deadly[i], &act, NULL);
	}
	(void)sigemptyset(&usr1);
	(void)sigaddset(&usr1, SIGUSR1);
	(void)sigprocmask(SIG_BLOCK, &usr1, NULL);
}

void interrupt_disarm(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		(void)sigaction(deadly[i], &before[i], NULL);
}
