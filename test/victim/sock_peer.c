/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: SO_PEERCRED: who connected, listened, or made a pair, also where that one has ended; and
 * SO_PEERPIDFD (Linux 6.5), which shows the same process or nobody, but the first one always.
 */
#include "victim.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define OTHER_ID 4242
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

enum { CHILD_PAIR, FROM_CHILD, TO_PARENT, TO_CHILD, FROM_ENDED, ENDED_PAIR, OWN_PAIR, N_ENDS };

/* What an end is to show, in this process. */
static struct {
	int fd;
	struct ucred peer;
} ends[N_ENDS];
static int listener, child_listener, ask[2];
static struct sockaddr_un name, child_name;

static void note(int which, int fd)
{
	socklen_t len = sizeof ends[which].peer;

	check_sys(fd >= 0);
	ends[which].fd = fd;
	check_sys(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ends[which].peer, &len) == 0);
}

/* 0: nobody; -1: the kernel does not know the option. */
static pid_t shown_by_pidfd(int fd)
{
	int pidfd = -1, pid = 0;
	socklen_t len = sizeof pidfd;
	char path[64], line[128];
	FILE *f;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) < 0)
		return errno == ENOPROTOOPT ? -1 : 0;
	(void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
	check_sys((f = fopen(path, "re")));
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "Pid: %d", &pid) == 1)
			break;
	(void)fclose(f);
	(void)close(pidfd);
	return pid > 0 ? pid : 0;
}

static void check_pidfd(const char *who, int end)
{
	pid_t shown = shown_by_pidfd(ends[end].fd);

	check(shown <= 0 || victim_newpids() || shown == ends[end].peer.pid,
	      "%s, end %d: its pidfd shows %d, not %d", who, end, shown, ends[end].peer.pid);
	check(end != OWN_PAIR || shown, "%s: the pidfd of the first process shows nobody", who);
}

static void check_ends(const char *who)
{
	for (int i = 0; i < N_ENDS; i++) {
		struct ucred now = { 0 }, was = ends[i].peer;
		socklen_t len = sizeof now;

		if (!was.pid)
			continue;
		check_sys(getsockopt(ends[i].fd, SOL_SOCKET, SO_PEERCRED, &now, &len) == 0);
		check(now.pid == was.pid || victim_newpids(), "%s, end %d: pid %d, was %d", who, i,
		      now.pid, was.pid);
		check_pidfd(who, i);
		check(now.uid == was.uid && now.gid == was.gid, "%s, end %d: uid %u gid %u", who, i,
		      now.uid, now.gid);
	}
}

/* Abstract: another user may not reach the directory. */
static struct sockaddr_un named(const char *suffix)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	(void)snprintf(sa.sun_path + 1, sizeof sa.sun_path - 1, "%s", victim_path(suffix));
	return sa;
}

static int listen_at(struct sockaddr_un *sa, const char *suffix)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*sa = named(suffix);
	check_sys(fd >= 0 && bind(fd, (void *)sa, sizeof *sa) == 0 && listen(fd, 4) == 0);
	return fd;
}

static int connected(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check_sys(fd >= 0 && connect(fd, (const void *)sa, sizeof *sa) == 0);
	return fd;
}

_Noreturn static void child(const int pair[2], int ready)
{
	char c;

	note(CHILD_PAIR, pair[0]);
	child_listener = listen_at(&child_name, "child");
	if (geteuid() == 0) /* as another user from here */
		check_sys(setresgid(-1, OTHER_ID, -1) == 0 && setresuid(-1, OTHER_ID, -1) == 0);
	check_sys(prctl(PR_SET_DUMPABLE, 1) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	note(TO_PARENT, connected(&name));
	check_sys(write(ready, "r", 1) == 1);
	note(FROM_CHILD, accept(child_listener, NULL, NULL));
	while (read(ask[1], &c, 1) == 1) {
		check_ends("child");
		check_sys(write(ask[1], &c, 1) == 1);
	}
	_exit(0);
}

/* Leaves a connection and one end of a pair behind. */
static void one_that_ends(void)
{
	int pair[2], pass[2], fd;
	pid_t pid;
	struct cmsghdr *h;
	char room[CMSG_SPACE(sizeof(int))] = { 0 }, c = 'f';
	struct iovec iov = { &c, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};

	check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, pass) == 0 && (pid = fork()) >= 0);
	if (pid == 0) {
		(void)connected(&name);
		check_sys(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
		h = CMSG_FIRSTHDR(&msg);
		*h = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
				       .cmsg_type = SCM_RIGHTS,
				       .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(h), &pair[0], sizeof(int));
		check_sys(sendmsg(pass[1], &msg, 0) == 1);
		_exit(0);
	}
	check_sys(waitpid(pid, NULL, 0) == pid);
	note(FROM_ENDED, accept(listener, NULL, NULL));
	check_sys(recvmsg(pass[0], &msg, 0) == 1 && (h = CMSG_FIRSTHDR(&msg)));
	memcpy(&fd, CMSG_DATA(h), sizeof fd);
	note(ENDED_PAIR, fd);
	check(ends[FROM_ENDED].peer.pid == pid && ends[ENDED_PAIR].peer.pid == pid, "its pid");
	check_sys(close(pass[0]) == 0 && close(pass[1]) == 0);
}

int main(int argc, char **argv)
{
	int pair[2], ready[2];
	char c;

	victim_init(argc, argv);
	listener = listen_at(&name, "sock");
	check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, ask) == 0 && pipe(ready) == 0 &&
		  socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
	note(OWN_PAIR, pair[1]);
	one_that_ends();
	switch (fork()) {
	case -1:
		victim_bad(__FILE__, __LINE__, "fork");
	case 0:
		child(pair, ready[1]);
	default:
		break;
	}
	check_sys(read(ready[0], &c, 1) == 1);
	child_name = named("child");
	note(FROM_CHILD, accept(listener, NULL, NULL));
	note(TO_CHILD, connected(&child_name));
	check(ends[FROM_CHILD].peer.pid == ends[TO_CHILD].peer.pid &&
		      ends[FROM_CHILD].peer.pid != getpid(),
	      "who the child is");
	victim_ready();
	while (victim_wait()) {
		check_ends("parent");
		check_sys(write(ask[0], "?", 1) == 1 && read(ask[0], &c, 1) == 1);
		victim_ok();
	}
	return 0;
}
