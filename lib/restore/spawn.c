/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Creating the maker: the process that becomes the job's, with the job's process id. As root (or
 * with CAP_CHECKPOINT_RESTORE) clone3(2) can choose the id; else a new user and pid namespace is
 * made, in which it can too, with a small init that reaps orphans and passes on how the job ended.
 * A time namespace lets CLOCK_MONOTONIC go on.
 */
#include "restore/internal.h"

#include "inject/twin.h"
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
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOG_ROOM     "restore"
#define OFFSETS_PATH "/proc/self/timens_offsets"
#define TWIN_STACK   (256u << 10)
#define TIMENS_PATH  "/proc/self/ns/time"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

static void set_args(struct clone_args *args, uint64_t flags, const pid_t *tid, int exit_signal)
{
	*args = (struct clone_args){ .flags = flags };
	if (!(flags & CLONE_PARENT))
		args->exit_signal = (uint64_t)exit_signal;
	if (*tid) {
		args->set_tid = (uint64_t)(uintptr_t)tid;
		args->set_tid_size = 1;
	}
}

pid_t spawn_clone(uint64_t flags, pid_t tid, int exit_signal)
{
	struct clone_args args;
	pid_t pid;

	set_args(&args, flags, &tid, exit_signal);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	/* a container's filter, which cannot look into it, says that there is none */
	if (pid < 0 && errno == ENOSYS && !tid)
		pid = (pid_t)syscall(SYS_clone, flags | args.exit_signal, NULL, NULL, NULL, NULL);
	return pid;
}

/* Its stack goes with everything else that is mapped when it has been taken over. */
pid_t spawn_twin(uint64_t flags, pid_t tid, int exit_signal, void (*main)(void *arg), void *arg)
{
	struct clone_args args;
	void *stack = mmap(NULL, TWIN_STACK, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (stack == MAP_FAILED)
		return -1;
	set_args(&args, flags | CLONE_VM, &tid, exit_signal);
	args.stack = (uint64_t)(uintptr_t)stack;
	args.stack_size = TWIN_STACK;
	return (pid_t)twin_clone(&args, main, arg);
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
	maker_say(control, MAKER_WARN, 0, &err);
}

static void close_all_but(int keep)
{
	if (keep > 0)
		(void)syscall(SYS_close_range, 0, keep - 1, 0);
	(void)syscall(SYS_close_range, keep + 1, ~0U, 0);
}

/* Is anybody left of the job? Its ended are reaped on the way. */
static bool others_left(void)
{
	pid_t pid;

	do
		pid = waitpid(-1, NULL, WNOHANG | __WALL);
	while (pid > 0);
	return pid == 0;
}

/*
 * Reaps everything. When the job's root process ends, says how (4 bytes; a fifth if there are
 * others that live on), and when everybody has ended, ends too, and with it the namespace.
 */
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
		if (pid < 0)
			break;
		if (pid != root)
			continue;
		/* as without us, what the root leaves running outlives it and its starter */
		(void)prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
		(void)io_write_full(status_fd, &status, sizeof status);
		if (others_left())
			(void)io_write_full(status_fd, "", 1);
		(void)close(status_fd);
	}
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
	/* before this the gates see to it that nobody is left (birth.c) */
	if (!r->opts->detach)
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (r->own_userns)
		rc = map_ids(uid, gid, &err);
	if (rc == 0) {
		mount_proc(control);
		rc = shift_clocks(&r->tree->host);
		if (rc < 0) {
			err_set(&err, rc,
				"cannot shift the monotonic clock (%m): it jumps for the job");
			maker_say(control, MAKER_WARN, 0, &err);
			rc = 0;
		}
		maker = spawn_clone(0, r->tree->processes[0].pid, SIGCHLD);
		if (maker == 0)
			maker_main(r, control);
		if (maker < 0)
			rc = err_set(&err, -errno,
				     "cannot create process %d in a new pid namespace: %m",
				     r->tree->processes[0].pid);
	}
	if (rc < 0) {
		maker_say(control, MAKER_ERROR, 0, &err);
		_exit(1);
	}
	reap(maker, status_fd);
}

/* --- in ckpt-restart
 * --------------------------------------------------------------------------------- */

static int spawn_in_namespace(struct restoring *r, int theirs, struct err *err)
{
	uint64_t flags = CLONE_NEWPID | CLONE_NEWNS | (r->own_userns ? CLONE_NEWUSER : 0) |
			 (ipc_any(r->tree) ? CLONE_NEWIPC : 0);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int pipefd[2];
	int rc;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return err_set(err, -errno, "cannot create a pipe: %m");
	r->child = spawn_clone(flags, 0, SIGCHLD);
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
	return 0;
}

/* Our own children are to see our own clocks. And before Linux 6.2 who makes them for another time
 * namespace can make no threads (EINVAL). */
static void back_to_own_clocks(int timens_fd)
{
	if (timens_fd >= 0 && setns(timens_fd, CLONE_NEWTIME) < 0)
		log_debug("cannot go back to our own time namespace: %m");
}

static int spawn_here(struct restoring *r, int theirs, struct err *err)
{
	pid_t want = r->pids == PIDS_KEEP ? r->tree->processes[0].pid : 0;
	CLEANUP_FD int timens_fd = -1;
	int rc = 0;

	if (r->pids == PIDS_KEEP) {
		timens_fd = open(TIMENS_PATH, O_RDONLY | O_CLOEXEC);
		rc = shift_clocks(&r->tree->host);
		if (rc < 0)
			restore_warn(r,
				     "cannot shift the monotonic clock (%s): it jumps for the job",
				     strerror(-rc));
	}
	r->child = spawn_clone(0, want, SIGCHLD);
	if (r->child == 0) {
		(void)close(r->control);
		maker_main(r, theirs);
	}
	rc = r->child < 0 ? -errno : 0;
	back_to_own_clocks(timens_fd);
	(void)close(theirs);
	if (rc == -EEXIST)
		err_set(err, rc, "process id %d is in use", want);
	else if (rc < 0)
		err_set(err, rc, "cannot create a process: %m");
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

/* The control socket tells who it is that speaks (unix(7), SO_PASSCRED): ids as we see them. */
static int open_control(struct restoring *r, int *theirs, struct err *err)
{
	int pair[2], on = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot create a socket pair: %m");
	r->control = pair[0];
	*theirs = pair[1];
	if (setsockopt(r->control, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
		return err_set(err, -errno, "cannot set up a socket: %m");
	return 0;
}

int spawn_maker(struct restoring *r, struct err *err)
{
	int theirs = -1, rc;

	r->control = r->status_fd = -1;
	rc = maker_share(r, err);
	if (rc == 0)
		rc = gates_make(r, err);
	if (rc == 0)
		rc = open_control(r, &theirs, err);
	if (rc == 0)
		rc = spawn(r, theirs, err);
	else if (theirs >= 0)
		(void)close(theirs);
	if (rc == 0)
		rc = fault_point("restore-spawned", err);
	if (rc == 0)
		rc = muster(r, err);
	log_debug("maker %d, init %d: %d", r->maker, r->init, rc);
	return rc;
}

static bool is_there(const struct restoring *r)
{
	for (unsigned i = 0; i < r->tree->n_processes; i++)
		if (r->procs[i].pid > 0 && kill(r->procs[i].pid, 0) == 0)
			return true;
	return false;
}

/* Orphans become our children when their parents have gone. Those that we do not know yet end by
 * themselves, at a gate. */
static void reap_all(struct restoring *r)
{
	for (int patience = 0; patience < 2000;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

		if (pid > 0)
			continue;
		if (pid < 0 && errno == ECHILD && !is_there(r))
			break;
		if (pid == 0 && !is_there(r) && patience > 100)
			break; /* children that are none of the job's */
		patience++;
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){ .tv_nsec = 1000000 },
				      NULL);
	}
}

void spawn_undo(struct restoring *r)
{
	pid_t pid;

	gates_close(r);
	if (r->control >= 0)
		(void)close(r->control);
	if (r->status_fd >= 0)
		(void)close(r->status_fd);
	r->control = r->status_fd = -1;
	if (r->child <= 0)
		return;
	(void)kill(r->child, SIGKILL);
	for (unsigned i = 0; i < r->tree->n_processes; i++)
		if (r->procs[i].pid > 0)
			(void)kill(r->procs[i].pid, SIGKILL);
	/* as their tracer we are told of every thread first, and a leader is not reaped before its
	 * threads are */
	do
		pid = waitpid(-1, NULL, __WALL);
	while (pid != r->child && !(pid < 0 && errno == ECHILD));
	reap_all(r);
	for (unsigned i = 0; i < r->tree->n_processes; i++)
		r->procs[i].pid = 0;
	r->child = r->maker = r->init = 0;
}
