/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keeper: a process of its own that restarts the job and stays until all memory is there. What
 * traces is one thread, and whoever waits for children takes its stops away; so it is neither the
 * one who supervises nor a thread of it. The caller is a child subreaper (prctl(2)), so that the
 * job becomes its child when the keeper ends.
 *
 * And the guard: a process that does nothing but hold the userfaultfds. When the keeper is killed,
 * the kernel closes its descriptors before it kills what it traced (do_exit); were those the last
 * of the userfaultfds, threads of the job would see empty pages for an instant. Without --lazy,
 * too, a tree has one for the moment in which its processes are let go one after the other.
 */
#include "restore/keeper.h"

#include "proc/probe.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- between the keeper and its parent -----------------------------------------------------------
 */

struct word {
	int rc;
	struct err err;
	pid_t root, child, foreground;
};

static int send_word(int channel, const struct word *w, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)w, sizeof *w };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		msg.msg_control = control.room;
		msg.msg_controllen = sizeof control.room;
		control.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof fd),
						 .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
	}
	return sendmsg(channel, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int receive_word(int channel, struct word *w, int *fd, struct err *err)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { w, sizeof *w };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof control.room };
	ssize_t n;

	do
		n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof *w)
		return err_set(err, -ECHILD, "the process that restores has died");
	if (CMSG_FIRSTHDR(&msg))
		memcpy(fd, CMSG_DATA(&control.head), sizeof *fd);
	return 0;
}

int keeper_tell(int channel, const struct restored *what, pid_t foreground, struct err *err)
{
	const struct word w = { .root = what->root,
				.child = what->child,
				.foreground = foreground };
	char go;

	if (send_word(channel, &w, what->status_fd) < 0 || recv(channel, &go, 1, 0) != 1)
		return err_set(err, -ECHILD, "ckpt-restart has died");
	return 0;
}

/* --- the keeper ----------------------------------------------------------------------------------
 */

_Noreturn static void keep(struct resolved *state, const struct tree *tree,
			   const struct restore_opts *opts, int channel)
{
	struct restore_opts ours = *opts;
	struct restored restored = { .pidfd = -1, .status_fd = -1 };
	struct word w = { 0 };

	ours.ready = NULL; /* our parent's business */
	/* our end is not to be that of the job's init */
	ours.detach = true;
	w.rc = restore_with(state, tree, &ours, channel, &restored, &w.err);
	/* once it has been told that the job runs nobody listens */
	if (w.rc < 0 && send_word(channel, &w, -1) < 0 && ours.warn) {
		ours.warn(ours.warn_arg, w.err.msg);
		ours.warn(ours.warn_arg,
			  "the job, whose memory was not complete, was ended; its chain is as it "
			  "was and can be restarted without --lazy");
	}
	_exit(w.rc < 0);
}

int keeper_run(struct resolved *state, const struct tree *tree, const struct restore_opts *opts,
	       struct restored *ret, struct err *err)
{
	int pair[2], status_fd = -1, rc;
	struct word w;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot create a socket pair: %m");
	pid = fork();
	if (pid == 0) {
		(void)close(pair[0]);
		keep(state, tree, opts, pair[1]);
	}
	rc = pid < 0 ? err_set(err, -errno, "cannot create a process: %m") : 0;
	(void)close(pair[1]);
	if (rc == 0)
		rc = receive_word(pair[0], &w, &status_fd, err);
	if (rc == 0 && w.rc < 0) {
		rc = w.rc;
		*err = w.err;
	}
	if (rc == 0) {
		*ret = (struct restored){ .root = w.root,
					  .child = w.child,
					  .status_fd = status_fd };
		ret->pidfd = (int)syscall(SYS_pidfd_open, w.root, 0);
		ret->keeper = (int)syscall(SYS_pidfd_open, pid, 0);
		if (opts->ready)
			opts->ready(opts->ready_arg, w.root, w.foreground);
		(void)send(pair[0], "", 1, MSG_NOSIGNAL);
	} else if (pid > 0) {
		(void)waitpid(pid, NULL, 0);
	}
	(void)close(pair[0]);
	return rc;
}

/* What the caller of ckpt-restart -d waits for is not to be held open by us, nor what is sent to
 * its process group for us. */
void keeper_withdraw(const char *name)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; null >= 0 && fd < 2; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		(void)close(null);
	(void)setpgid(0, 0);
	(void)prctl(PR_SET_NAME, name);
}

/* --- the guard -----------------------------------------------------------------------------------
 */

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* All others but the standard streams are closed; the list gets sorted. */
static void close_others(int *fds, unsigned n)
{
	int at = 3;

	qsort(fds, n, sizeof *fds, by_number);
	for (unsigned i = 0; i < n; i++) {
		if (fds[i] > at)
			(void)syscall(SYS_close_range, at, fds[i] - 1, 0);
		at = MAX(at, fds[i] + 1);
	}
	(void)syscall(SYS_close_range, at, ~0U, 0);
}

/* While any is there: they need not end in the order of the list. */
static void wait_for_all(const int *pidfds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct pollfd gone = { .fd = pidfds[i], .events = POLLIN };

		while (gone.fd >= 0 && poll(&gone, 1, -1) < 0 && errno == EINTR)
			;
	}
}

_Noreturn static void guard_main(const struct restoring *r, int pipe_fd, const int *uffds,
				 unsigned n_uffds)
{
	unsigned n = r->tree->n_processes;
	int *pidfds = calloc(n, sizeof *pidfds);
	int *keep = calloc(n + n_uffds + (size_t)1, sizeof *keep);
	char done;

	for (unsigned i = 0; pidfds && keep && i < n; i++)
		pidfds[i] = keep[i] = (int)syscall(SYS_pidfd_open, r->procs[i].pid, 0);
	if (pidfds && keep) {
		if (n_uffds)
			memcpy(keep + n, uffds, n_uffds * sizeof *uffds);
		keep[n + n_uffds] = pipe_fd;
		close_others(keep, n + n_uffds + 1);
	}
	keeper_withdraw("ckpt-guard");
	(void)!chdir("/");
	if (read(pipe_fd, &done, 1) == 1)
		_exit(0);
	/* who was let go of already is not killed by the kernel, and half a job is none */
	for (unsigned i = 0; pidfds && i < n; i++)
		(void)syscall(SYS_pidfd_send_signal, pidfds[i], SIGKILL, NULL, 0);
	wait_for_all(pidfds, pidfds ? n : 0);
	if (r->opts->warn)
		r->opts->warn(r->opts->warn_arg,
			      r->lazy ? "the process that brought the job's memory was killed "
					"before all of it was there, and the job with it; its "
					"chain is as it was and can be restarted"
				      : "ckpt-restart was killed before all of the job ran, and "
					"the job with it; its chain is as it was and can be "
					"restarted");
	_exit(1);
}

int guard_start(struct guard *g, const struct restoring *r, const int *uffds, unsigned n,
		struct err *err)
{
	int fds[2], code;

	*g = (struct guard){ .pid = -1, .fd = -1 };
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, -errno, "cannot create a pipe: %m");
	errno = EAGAIN;
	g->pid = probe_without("guard") ? -1 : fork();
	code = -errno;
	if (g->pid == 0) {
		(void)close(fds[1]);
		guard_main(r, fds[0], uffds, n);
	}
	if (g->pid < 0) {
		(void)close(fds[0]);
		(void)close(fds[1]);
		return err_set(err, code, "cannot create a process: %m");
	}
	g->fd = fds[1];
	(void)close(fds[0]);
	return 0;
}

void guard_end(struct guard *g)
{
	if (g->fd >= 0) {
		(void)io_write_full(g->fd, "", 1);
		(void)close(g->fd);
	}
	if (g->pid > 0)
		(void)waitpid(g->pid, NULL, 0);
	*g = (struct guard){ .pid = -1, .fd = -1 };
}
