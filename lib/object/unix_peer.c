/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SO_PEERCRED: who is at the other end of a unix socket.
 *
 * The kernel notes the process and the effective ids of whoever calls socketpair, connect or
 * listen, and goes on telling the number when that process has ended. So the call is made by a
 * process that has the recorded id for the moment, and shares our descriptors: the tree's own
 * processes are born later, and may have the id again.
 *
 * SO_PEERPIDFD needs more than the number: the process itself. The first one makes these calls, and
 * so it is shown; whoever stood in for another has ended. The others would have to make their own
 * sockets, which all of the tree is to inherit before they are born.
 */
#include "object/socket.h"

#include "inject/twin.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TWIN_STACK (64 * 1024)

/* --- capture ---------------------------------------------------------------------------------- */

/* As the job itself is told: the number of one that has ended shows there only. */
static int32_t ask_inside(const struct open_file *of)
{
	const struct subject *s = of->subject;
	struct ucred who = { 0 };
	socklen_t len = sizeof who;
	struct err ignored;
	uint64_t buf, size;

	if (of->carrier >= 0)
		return 0;
	batch_start(s->batch);
	buf = batch_out(s->batch, sizeof who);
	size = batch_in(s->batch, &len, sizeof len);
	(void)batch_call(s->batch, "ask for a socket's other end", SYS_getsockopt, of->fd,
			 SOL_SOCKET, SO_PEERCRED, buf, size);
	if (batch_run(s->batch, s->pid, &ignored) < 0)
		return 0;
	memcpy(&who, batch_result(s->batch, buf), sizeof who);
	return who.pid;
}

void unix_peer_capture(struct capture *c, const struct open_file *of)
{
	struct file_socket *d = of->sock->d;
	struct ucred who = { 0 };
	socklen_t len = sizeof who;

	if (getsockopt(of->dup, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || who.pid <= 0)
		return;
	d->peer_pid = socket_job_pid(c, who.pid);
	if (!d->peer_pid)
		d->peer_pid =
			of->subject->pid == of->subject->process->pid ? who.pid : ask_inside(of);
	d->peer_uid = who.uid;
	d->peer_gid = who.gid;
}

/* --- restore ---------------------------------------------------------------------------------- */

/*
 * Groups first: afterwards there may be no right to. A change of the effective user takes the
 * parent-death signal and the right to be traced away.
 */
static int call_with_ids(const struct unix_peer *who, int (*call)(void *arg), void *arg)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int dumpable = prctl(PR_GET_DUMPABLE), death = 0, rc;

	if (who->uid == uid && who->gid == gid)
		return call(arg);
	(void)prctl(PR_GET_PDEATHSIG, &death);
	(void)syscall(SYS_setresgid, -1, who->gid, -1);
	(void)syscall(SYS_setresuid, -1, who->uid, -1);
	rc = call(arg);
	(void)syscall(SYS_setresuid, -1, uid, -1);
	(void)syscall(SYS_setresgid, -1, gid, -1);
	(void)prctl(PR_SET_DUMPABLE, dumpable);
	(void)prctl(PR_SET_PDEATHSIG, death);
	return rc;
}

struct errand {
	const struct unix_peer *who;
	int (*call)(void *arg);
	void *arg;
};

static void errand_main(void *arg)
{
	const struct errand *e = arg;

	_exit(-call_with_ids(e->who, e->call, e->arg) & 0xff);
}

/* We stand still meanwhile, and it has our memory: a copy of that for each pair of sockets is what
 * takes time. */
static bool call_by_twin(const struct errand *e)
{
	_Alignas(64) char stack[TWIN_STACK];
	pid_t want = e->who->pid, pid;
	struct clone_args args = { .flags = CLONE_FILES | CLONE_VM | CLONE_VFORK,
				   .exit_signal = SIGCHLD,
				   .set_tid = (uint64_t)(uintptr_t)&want,
				   .set_tid_size = 1,
				   .stack = (uint64_t)(uintptr_t)stack,
				   .stack_size = sizeof stack };
	int status = 0;

	pid = (pid_t)twin_clone(&args, errand_main, (void *)(uintptr_t)e);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int call_as(const struct rebuild *rb, const struct unix_peer *who, int (*call)(void *arg),
		   void *arg)
{
	int rc;

	if (!who->pid)
		return call(arg);
	if (!rb->new_pids && who->pid != getpid() &&
	    call_by_twin(&(struct errand){ who, call, arg }))
		return 0;
	/* better another number than none */
	rc = call_with_ids(who, call, arg);
	return rc == -EACCES || rc == -EPERM ? call(arg) : rc;
}

struct unix_peer unix_peer_of(const struct file_socket *d)
{
	return (struct unix_peer){ d->peer_pid, d->peer_uid, d->peer_gid };
}

struct unix_peer unix_peer_holder(const struct tree *t, uint32_t file)
{
	const struct process *p = file_first_holder(t, file, NULL);

	return p ? (struct unix_peer){ p->pid, p->creds.euid, p->creds.egid }
		 : (struct unix_peer){ 0 };
}

/* --- the calls -------------------------------------------------------------------------------- */

struct listening {
	int fd, backlog;
};

static int call_listen(void *arg)
{
	const struct listening *l = arg;

	return listen(l->fd, l->backlog) < 0 ? -errno : 0;
}

int unix_listen_as(const struct rebuild *rb, const struct unix_peer *who, int fd, int backlog)
{
	struct listening l = { fd, backlog };

	return call_as(rb, who, call_listen, &l);
}

struct connecting {
	const struct rebuild *rb;
	const struct file *to;
	int fd;
};

static int call_connect(void *arg)
{
	const struct connecting *c = arg;

	return unix_name_connect(c->rb, c->to, c->fd);
}

int unix_connect_as(const struct rebuild *rb, const struct unix_peer *who, const struct file *to,
		    int fd)
{
	struct connecting c = { rb, to, fd };

	return call_as(rb, who, call_connect, &c);
}

struct pairing {
	int type, fds[2]; /* open already: what these numbers are to become */
};

static int call_pair(void *arg)
{
	const struct pairing *p = arg;
	int fds[2], rc = 0;

	if (socketpair(AF_UNIX, p->type | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	if (dup3(fds[0], p->fds[0], O_CLOEXEC) < 0 || dup3(fds[1], p->fds[1], O_CLOEXEC) < 0)
		rc = -errno;
	(void)close(fds[0]);
	(void)close(fds[1]);
	return rc;
}

int unix_pair_as(const struct rebuild *rb, const struct unix_peer *who, int type, int ret[2])
{
	CLEANUP_FD int a = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	CLEANUP_FD int b = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct pairing p = { type, { a, b } };
	int rc = a < 0 || b < 0 ? -errno : call_as(rb, who, call_pair, &p);

	if (rc < 0)
		return rc;
	ret[0] = fd_take(&a);
	ret[1] = fd_take(&b);
	return 0;
}
