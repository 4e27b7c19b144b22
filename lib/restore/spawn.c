/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Creating the maker: the process that becomes the job's, with the job's process id. As root (or
 * with CAP_CHECKPOINT_RESTORE) clone3(2) can choose the id; else a new user and pid namespace is
 * made, in which it can too, with a small init that reaps orphans and passes on how the job ended.
 * A time namespace lets CLOCK_MONOTONIC go on.
 */
#include "restore/internal.h"

#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"
#include "util/log.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOG_ROOM      "restore"
#define OFFSETS_PATH  "/proc/self/timens_offsets"
#define SEIZE_OPTIONS (PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

static pid_t clone_with(uint64_t flags, pid_t tid)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };

	if (tid) {
		args.set_tid = (uint64_t)(uintptr_t)&tid;
		args.set_tid_size = 1;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts = { 0 };

	(void)clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* How far the clocks that we ourselves see are shifted already: a time namespace's offsets count
 * from the machine's own clocks. */
static int64_t own_shift_ns(const char *name)
{
	CLEANUP_FREE char *text = NULL;
	long long sec, nsec;
	char *at;

	if (io_read_file(-1, OFFSETS_PATH, &text, NULL) < 0 || !(at = strstr(text, name)) ||
	    sscanf(at + strlen(name), "%lld %lld", &sec, &nsec) != 2)
		return 0;
	return sec * 1000000000 + nsec;
}

/* Children of the caller from now on see clocks that go on from the checkpoint's. */
static int shift_clocks(const struct host *was)
{
	const struct {
		const char *name;
		int64_t offset;
	} clocks[] = {
		{ "monotonic", own_shift_ns("monotonic") + (int64_t)was->monotonic_ns -
				       clock_ns(CLOCK_MONOTONIC) },
		{ "boottime",
		  own_shift_ns("boottime") + (int64_t)was->boottime_ns - clock_ns(CLOCK_BOOTTIME) },
	};
	char text[160];
	int n = 0;

	if (!was->monotonic_ns)
		return 0;
	if (unshare(CLONE_NEWTIME) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
		int64_t sec = clocks[i].offset / 1000000000, nsec = clocks[i].offset % 1000000000;

		if (nsec < 0) {
			sec--;
			nsec += 1000000000;
		}
		n += snprintf(text + n, sizeof text - (size_t)n, "%s %lld %lld\n", clocks[i].name,
			      (long long)sec, (long long)nsec);
	}
	return io_write_file(-1, OFFSETS_PATH, text);
}

static void say(int control, enum maker_kind kind, const struct err *err)
{
	struct maker_message m = { .kind = kind };

	if (err)
		m.err = *err;
	(void)send(control, &m, sizeof m, MSG_NOSIGNAL);
}

/* --- in the init of a new namespace
 * ------------------------------------------------------------------ */

static int map_ids(uid_t uid, gid_t gid, struct err *err)
{
	char text[64];
	int rc;

	(void)snprintf(text, sizeof text, "%u %u 1\n", uid, uid);
	rc = io_write_file(-1, "/proc/self/uid_map", text);
	if (rc == 0)
		rc = io_write_file(-1, "/proc/self/setgroups", "deny");
	(void)snprintf(text, sizeof text, "%u %u 1\n", gid, gid);
	if (rc == 0)
		rc = io_write_file(-1, "/proc/self/gid_map", text);
	return rc < 0 ? err_set(err, rc, "cannot set up a user namespace: %m") : 0;
}

static void mount_proc(int control)
{
	struct err err;

	(void)mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0)
		return;
	err_set(&err, -errno,
		"cannot mount /proc for the job's pid namespace (%m): it sees other processes "
		"there");
	say(control, MAKER_WARN, &err);
}

static void close_all_but(int keep)
{
	if (keep > 0)
		(void)syscall(SYS_close_range, 0, keep - 1, 0);
	(void)syscall(SYS_close_range, keep + 1, ~0U, 0);
}

/* Reaps everything; when the job's root process ends, says how and ends too, and with it the
 * namespace. */
_Noreturn static void reap(pid_t root, int status_fd)
{
	int status;
	pid_t pid;

	close_all_but(status_fd);
	(void)!chdir("/");
	for (;;) {
		pid = waitpid(-1, &status, __WALL);
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid == root || pid < 0)
			break;
	}
	if (pid == root)
		(void)io_write_full(status_fd, &status, sizeof status);
	_exit(0);
}

_Noreturn static void init_main(struct restoring *r, int control, int status_fd, uid_t uid,
				gid_t gid)
{
	struct err err = { 0 };
	pid_t maker = -1;
	int rc = 0;

	for (int sig = 1; sig < 32; sig++)
		(void)signal(sig, SIG_DFL);
	if (r->own_userns)
		rc = map_ids(uid, gid, &err);
	if (rc == 0) {
		mount_proc(control);
		rc = shift_clocks(&r->tree->host);
		if (rc < 0) {
			err_set(&err, rc,
				"cannot shift the monotonic clock (%m): it jumps for the job");
			say(control, MAKER_WARN, &err);
			rc = 0;
		}
		maker = clone_with(0, r->tree->processes[0].pid);
		if (maker == 0)
			maker_main(r, control);
		if (maker < 0)
			rc = err_set(&err, -errno,
				     "cannot create process %d in a new pid namespace: %m",
				     r->tree->processes[0].pid);
	}
	if (rc < 0) {
		say(control, MAKER_ERROR, &err);
		_exit(1);
	}
	say(control, MAKER_PID, NULL);
	reap(maker, status_fd);
}

/* --- in ckpt-restart
 * --------------------------------------------------------------------------------- */

/* The next message of importance; warnings are passed on. */
static int hear(struct restoring *r, struct maker_message *ret, struct err *err)
{
	for (;;) {
		ssize_t n = recv(r->control, ret, sizeof *ret, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "cannot hear from the process being made: %m");
		if (n != (ssize_t)sizeof *ret)
			return err_set(err, -ECHILD, "the process being made has died");
		if (ret->kind == MAKER_WARN) {
			restore_warn(r, "%s", ret->err.msg);
			continue;
		}
		if (ret->kind == MAKER_ERROR) {
			*err = ret->err;
			return err->code ? err->code : -EIO;
		}
		return 0;
	}
}

static int only_child(struct restoring *r, pid_t of, pid_t *ret, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	unsigned n;
	pid_t *pids;
	int rc = proc_open_pid(of, &dirfd, err);

	if (rc == 0)
		rc = proc_children(dirfd, r->arena, &pids, &n, err);
	if (rc == 0 && n != 1)
		rc = err_set(err, -ECHILD, "the process being made has died");
	if (rc == 0)
		*ret = pids[0];
	return rc;
}

static int spawn_in_namespace(struct restoring *r, int theirs, struct err *err)
{
	uint64_t flags = CLONE_NEWPID | CLONE_NEWNS | (r->own_userns ? CLONE_NEWUSER : 0);
	struct maker_message m;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int pipefd[2];
	int rc;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return err_set(err, -errno, "cannot create a pipe: %m");
	r->child = clone_with(flags, 0);
	if (r->child == 0) {
		(void)close(pipefd[0]);
		(void)close(r->control);
		init_main(r, theirs, pipefd[1], uid, gid);
	}
	rc = r->child < 0 ? err_set(err, -errno, "cannot create a pid namespace: %m") : 0;
	(void)close(pipefd[1]);
	(void)close(theirs);
	r->status_fd = pipefd[0];
	if (rc < 0)
		return rc;
	r->init = r->child;
	rc = hear(r, &m, err);
	return rc < 0 ? rc : only_child(r, r->init, &r->maker, err);
}

static int spawn_here(struct restoring *r, int theirs, struct err *err)
{
	pid_t want = r->pids == PIDS_KEEP ? r->tree->processes[0].pid : 0;
	int rc = 0;

	if (r->pids == PIDS_KEEP) {
		rc = shift_clocks(&r->tree->host);
		if (rc < 0)
			restore_warn(r,
				     "cannot shift the monotonic clock (%s): it jumps for the job",
				     strerror(-rc));
	}
	r->child = clone_with(0, want);
	if (r->child == 0) {
		(void)close(r->control);
		maker_main(r, theirs);
	}
	rc = r->child < 0 ? -errno : 0;
	(void)close(theirs);
	if (rc == -EEXIST)
		err_set(err, rc, "process id %d is in use", want);
	else if (rc < 0)
		err_set(err, rc, "cannot create a process: %m");
	r->maker = r->child;
	return rc;
}

static int wait_ready(struct restoring *r, struct err *err)
{
	struct maker_message m;
	struct stop stop;
	int rc = hear(r, &m, err);

	while (rc == 0) {
		rc = trace_wait(r->maker, trace_now_ns() + 10LL * 1000000000, &stop, err);
		if (rc == 0 && stop.kind == STOP_EXITED)
			rc = err_set(err, -ECHILD, "the process being made has died");
		if (rc == 0 && stop.kind == STOP_SIGNAL && stop.sig == SIGSTOP)
			return 0; /* held there from now on */
		if (rc == 0)
			rc = trace_resume(r->maker, PTRACE_CONT,
					  stop.kind == STOP_SIGNAL ? stop.sig : 0, err);
	}
	return rc;
}

/* All signals stay blocked in the children: a seized maker would stop for each that came, and
 * nobody would be looking. The final masks are set through ptrace. */
static int spawn(struct restoring *r, int theirs, struct err *err)
{
	sigset_t all, old;
	int rc;

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &old);
	rc = r->pids == PIDS_NAMESPACE ? spawn_in_namespace(r, theirs, err)
				       : spawn_here(r, theirs, err);
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return rc;
}

int spawn_maker(struct restoring *r, struct err *err)
{
	int pair[2], rc;

	r->control = r->status_fd = -1;
	rc = maker_share(r, err);
	if (rc < 0)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot create a socket pair: %m");
	r->control = pair[0];
	rc = spawn(r, pair[1], err);
	if (rc == 0)
		rc = fault_point("restore-spawned", err);
	if (rc == 0)
		rc = trace_seize(r->maker, SEIZE_OPTIONS, err);
	if (rc == 0 && send(r->control, "", 1, MSG_NOSIGNAL) != 1)
		rc = err_set(err, -ECHILD, "the process being made has died");
	if (rc == 0)
		rc = wait_ready(r, err);
	log_debug("maker %d, init %d: %d", r->maker, r->init, rc);
	return rc;
}

void spawn_undo(struct restoring *r)
{
	pid_t pid;

	if (r->control >= 0)
		(void)close(r->control);
	if (r->status_fd >= 0)
		(void)close(r->status_fd);
	r->control = r->status_fd = -1;
	if (r->child <= 0)
		return;
	(void)kill(r->child, SIGKILL);
	/* as their tracer we are told of every thread first, and a leader is not reaped before its
	 * threads are */
	do
		pid = waitpid(-1, NULL, __WALL);
	while (pid != r->child && !(pid < 0 && errno == ECHILD));
	r->child = 0;
}
