/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hearing from those that are being made (birth.c). When all have come to a gate it is opened: by
 * closing our end of its pipe, which wakes all that read from the other. When all stand at the last
 * one they are seized; from then on the kernel ends them should we die.
 */
#include "restore/internal.h"

#include "trace/stop.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/log.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define LOG_ROOM "restore"
#define SEIZE_OPTIONS                                                                              \
	(PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)
#define SPOKEN    offsetof(struct maker_message, err)
#define SILENCE_S 60

/* 1: a message, from process *pid as seen from here; 0: there was none for a while. */
static int receive(struct restoring *r, struct maker_message *m, pid_t *pid, struct err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = m, .iov_len = sizeof *m };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof control };
	struct pollfd p = { .fd = r->control, .events = POLLIN };
	struct cmsghdr *c;
	struct ucred cred = { 0 };
	ssize_t n;

	if (poll(&p, 1, 1000) <= 0)
		return 0;
	n = recvmsg(r->control, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n < 0)
		return err_set(err, -errno, "cannot hear from the processes being made: %m");
	if (n != (ssize_t)sizeof *m && n != (ssize_t)SPOKEN)
		return err_set(err, -ECHILD, "the processes being made have died");
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_CREDENTIALS)
		memcpy(&cred, CMSG_DATA(c), sizeof cred);
	*pid = cred.pid;
	return 1;
}

static bool has_ended(pid_t pid)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;

	return proc_open_pid(pid, &dirfd, NULL) < 0 || proc_stat_read(dirfd, &st, NULL) < 0 ||
	       st.state == 'Z';
}

/* Has one of them ended without a word? A SIGKILL from elsewhere (out of memory) says nothing. */
static int check_alive(const struct restoring *r, unsigned silent_s, struct err *err)
{
	siginfo_t si = { 0 };
	bool some = false;

	if (waitid(P_PID, (id_t)r->child, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 ||
	    si.si_pid != 0)
		return err_set(err, -ECHILD, "the processes being made have died");
	for (unsigned i = 0; i < r->births.n; i++) {
		some |= r->heard[i] > 0;
		if (r->births.v[i].kind == BIRTH_PROCESS && r->heard[i] > 0 &&
		    has_ended(r->heard[i]))
			return err_set(err, -ECHILD, "process %d was killed while it was made",
				       r->births.v[i].pid);
	}
	/* one that was killed before it said anything, and its parent is none the wiser */
	if (some && silent_s >= SILENCE_S)
		return err_set(err, -ETIMEDOUT, "a process being made does not come forward");
	return 0;
}

/* The next message of importance; warnings are passed on. */
static int hear(struct restoring *r, struct maker_message *ret, pid_t *pid, struct err *err)
{
	for (unsigned silent_s = 0;;) {
		int rc = receive(r, ret, pid, err);

		if (rc == 0)
			rc = check_alive(r, ++silent_s, err);
		else if (rc > 0 && ret->kind == MAKER_WARN)
			restore_warn(r, "%s", ret->err.msg);
		else if (rc > 0 && ret->kind == MAKER_ERROR) {
			*err = ret->err;
			return err->code ? err->code : -EIO;
		} else if (rc > 0) {
			if (ret->birth >= 0 && (unsigned)ret->birth < r->births.n)
				r->heard[ret->birth] = *pid;
			return 0;
		}
		if (rc < 0)
			return rc;
	}
}

/* n of them come to the gate, and may pass. */
static int open_gate(struct restoring *r, enum gate gate, unsigned n, struct err *err)
{
	struct maker_message m;
	pid_t pid;

	for (unsigned i = 0; i < n; i++) {
		int rc = hear(r, &m, &pid, err);

		if (rc < 0)
			return rc;
	}
	__atomic_store_n(&r->nursery->opened, (int32_t)gate + 1, __ATOMIC_RELEASE);
	(void)close(r->gates[gate][1]);
	r->gates[gate][1] = -1;
	return 0;
}

static int hear_ready(struct restoring *r, struct err *err)
{
	for (unsigned i = 0; i < r->tree->n_processes; i++) {
		const struct birth *b;
		struct maker_message m;
		pid_t pid;
		int rc = hear(r, &m, &pid, err);

		if (rc < 0)
			return rc;
		b = &r->births.v[m.birth];
		if (pid <= 0 || b->kind != BIRTH_PROCESS)
			return err_set(err, -EIO, "a process being made is not what it should be");
		r->procs[b->index].pid = pid;
		r->procs[b->index].ns_pid = r->nursery->pids[m.birth];
	}
	r->maker = r->procs[0].pid;
	return 0;
}

static int seize_all(struct restoring *r, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++) {
		rc = trace_seize(r->procs[i].pid, SEIZE_OPTIONS, err);
		if (rc == 0)
			rc = trace_interrupt(r->procs[i].pid, err);
	}
	for (unsigned i = 0; rc == 0 && i < r->tree->n_processes; i++) {
		struct stop stop;

		rc = trace_wait(r->procs[i].pid, trace_now_ns() + 10LL * 1000000000, &stop, err);
		if (rc == 0 && stop.kind != STOP_TRAP)
			rc = err_set(err, -ECHILD, "process %d being made has died",
				     r->procs[i].state->pid);
	}
	return rc;
}

int muster(struct restoring *r, struct err *err)
{
	unsigned n = 0;
	int rc = 0;

	r->heard = arena_array(r->arena, r->births.n, sizeof *r->heard);
	if (!r->heard)
		return err_nomem(err);
	for (unsigned i = 0; i < GATES; i++) {
		(void)close(r->gates[i][0]);
		r->gates[i][0] = -1;
	}
	for (unsigned i = 0; i < r->births.n; i++)
		n += r->births.v[i].kind != BIRTH_STEP;
	for (enum gate gate = GATE_BORN; rc == 0 && gate < GATE_MADE; gate++)
		rc = open_gate(r, gate, n, err);
	if (rc == 0)
		rc = fault_point("restore-gathered", err);
	if (rc == 0)
		rc = hear_ready(r, err);
	log_debug("%u processes are there: %d", r->tree->n_processes, rc);
	return rc < 0 ? rc : seize_all(r, err);
}
