/* SPDX-License-Identifier: BSD-2-Clause */
/* Probes of namespaces and of choosing process ids. */
#include "proc/probe_list.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

#define WANTED_PID 31999
#define SHIFT_S    1000000 /* a clock ahead by this is no accident */

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int code = errno;

	if (fd >= 0)
		(void)close(fd);
	errno = code;
	return ok;
}

/* A copy of this process with the id pid, which has no exit signal; 0 in the child, -1 with errno.
 */
static int clone_as(int pid)
{
	struct clone_args args = {
		.set_tid = (uintptr_t)&pid,
		.set_tid_size = 1,
	};

	return (int)syscall(SYS_clone3, &args, sizeof args);
}

/* Maps the ids that we had to themselves, from within. ids as they were before the user namespace.
 */
static bool map_ids(unsigned uid, unsigned gid, struct probe_result *r)
{
	char line[64];

	if (!write_text("/proc/self/setgroups", "deny") && errno != ENOENT) {
		probe_no(r, "cannot write /proc/self/setgroups in a new user namespace");
		return false;
	}
	(void)snprintf(line, sizeof line, "%u %u 1", gid, gid);
	if (!write_text("/proc/self/gid_map", line)) {
		probe_no(r, "cannot write /proc/self/gid_map in a new user namespace");
		return false;
	}
	(void)snprintf(line, sizeof line, "%u %u 1", uid, uid);
	if (!write_text("/proc/self/uid_map", line)) {
		probe_no(r, "cannot write /proc/self/uid_map in a new user namespace");
		return false;
	}
	return true;
}

/* The first process of the new namespaces. */
static void try_userns(unsigned uid, unsigned gid, struct probe_result *r)
{
	int pid;

	if (!map_ids(uid, gid, r))
		return;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return probe_no(r, "cannot make mounts private in a new user namespace");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return probe_no(r, "cannot mount /proc in a new user namespace");
	pid = clone_as(WANTED_PID);
	if (pid == 0)
		_exit(access("/proc/31999", F_OK) < 0);
	if (pid < 0)
		return probe_no(r, "cannot choose a process id in a new pid namespace");
	r->ok = probe_reap(pid) == 0 && pid == WANTED_PID;
	if (!r->ok)
		(void)snprintf(r->why, sizeof r->why,
			       "a chosen process id does not show in the new /proc");
}

/* Lets a child in new namespaces fill *r through a pipe: memory is not shared with it. */
static void in_namespaces(uint64_t flags, const char *what,
			  void (*try)(unsigned uid, unsigned gid, struct probe_result *r),
			  struct probe_result *r)
{
	unsigned uid = geteuid(), gid = getegid();
	int fds[2], pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return probe_no(r, "cannot make a pipe");
	pid = probe_clone(flags);
	if (pid == 0) {
		try(uid, gid, r);
		_exit(write(fds[1], r, sizeof *r) != (ssize_t)sizeof *r);
	}
	if (pid < 0 && errno == ENOSPC) /* says the kernel, and it would be misunderstood */
		(void)snprintf(r->why, sizeof r->why,
			       "%s: not one more allowed (user.max_user_namespaces)", what);
	else if (pid < 0)
		probe_no(r, what);
	(void)close(fds[1]);
	if (pid < 0) {
		(void)close(fds[0]);
		return;
	}
	if (read(fds[0], r, sizeof *r) != (ssize_t)sizeof *r)
		(void)snprintf(r->why, sizeof r->why, "the child in the new namespaces died");
	(void)close(fds[0]);
	(void)probe_reap(pid);
}

void probe_run_userns(struct probe_result *r)
{
	in_namespaces(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS,
		      "cannot make user, pid and mount namespaces", try_userns, r);
}

/* An id that was in use a moment ago is the likeliest one to be free. */
void probe_run_set_tid(struct probe_result *r)
{
	for (unsigned attempt = 0; attempt < 5; attempt++) {
		int free_pid = probe_clone(0), pid;

		if (free_pid == 0)
			_exit(0);
		if (free_pid < 0)
			return probe_no(r, "cannot make a child process");
		(void)probe_reap(free_pid);
		pid = clone_as(free_pid);
		if (pid == 0)
			_exit((int)syscall(SYS_getpid) != free_pid);
		if (pid > 0) {
			r->ok = probe_reap(pid) == 0 && pid == free_pid;
			if (!r->ok)
				(void)snprintf(r->why, sizeof r->why,
					       "clone3 does not heed set_tid");
			return;
		}
		if (errno != EEXIST)
			break;
	}
	probe_no(r, "clone3 with set_tid");
}

static void try_timens(unsigned uid, unsigned gid, struct probe_result *r)
{
	struct timespec before, inside;
	char offset[64];
	int pid;

	(void)uid;
	(void)gid;
	if (unshare(CLONE_NEWTIME) < 0)
		return probe_no(r, "cannot make a time namespace");
	(void)snprintf(offset, sizeof offset, "monotonic %d 0\nboottime %d 0\n", SHIFT_S, SHIFT_S);
	if (!write_text("/proc/self/timens_offsets", offset))
		return probe_no(r, "cannot write /proc/self/timens_offsets");
	(void)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &before);
	pid = probe_clone(0); /* children are the first ones inside */
	if (pid == 0) {
		(void)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &inside);
		_exit(inside.tv_sec - before.tv_sec < SHIFT_S);
	}
	if (pid < 0)
		return probe_no(r, "cannot make a process in a time namespace");
	r->ok = probe_reap(pid) == 0;
	if (!r->ok)
		(void)snprintf(r->why, sizeof r->why, "a time namespace does not shift the clock");
}

void probe_run_timens(struct probe_result *r)
{
	in_namespaces(CLONE_NEWUSER, "cannot make a user namespace", try_timens, r);
	if (!r->ok && geteuid() == 0) { /* with the right, but without user namespaces */
		memset(r, 0, sizeof *r);
		in_namespaces(0, "cannot make a child process", try_timens, r);
	}
}
