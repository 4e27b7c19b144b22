/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: sockets between processes: pairs, a listener that children accept from, descriptors that
 * one sends to another, who the other end is. */
#include "victim.h"

#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define CHILDREN 3

static int listener, port, links[CHILDREN][2];
static pid_t pids[CHILDREN];

static void send_fd(int to, char tag, int fd)
{
	char room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &tag, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};
	struct cmsghdr *h = CMSG_FIRSTHDR(&msg);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	check_sys(sendmsg(to, &msg, 0) == 1);
}

static int get_fd(int from, char want)
{
	char room[CMSG_SPACE(sizeof(int))], tag = 0;
	struct iovec iov = { &tag, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};
	int fd = -1;

	check_sys(recvmsg(from, &msg, 0) == 1);
	check(tag == want, "'%c' came, not '%c'", tag, want);
	check(CMSG_FIRSTHDR(&msg), "no descriptor came");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof fd);
	return fd;
}

/* Serves one connection of the common listener for each 'a' on its link, then sends the connection
 * itself to the parent; 'q' ends it. */
_Noreturn static void child(int link)
{
	char c, buf[64];

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(link, &c, 1) == 1 && c == 'a') {
		int fd = accept(listener, NULL, NULL);
		ssize_t n;

		check(fd >= 0, "accept in a child: %s", strerror(errno));
		n = read(fd, buf, sizeof buf);
		check(n > 0 && write(fd, buf, (size_t)n) == n, "a child's answer");
		send_fd(link, 'f', fd);
		check_sys(close(fd) == 0);
	}
	_exit(0);
}

static int connected(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				  .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check_sys(fd >= 0 && connect(fd, (void *)&sa, sizeof sa) == 0);
	return fd;
}

static void set_up(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof sa;
	int on = 1;

	listener = socket(AF_INET, SOCK_STREAM, 0);
	check_sys(listener >= 0 &&
		  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
		  bind(listener, (void *)&sa, sizeof sa) == 0 && listen(listener, 8) == 0 &&
		  getsockname(listener, (void *)&sa, &len) == 0);
	port = ntohs(sa.sin_port);
	for (int i = 0; i < CHILDREN; i++) {
		check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, links[i]) == 0);
		pids[i] = fork();
		check_sys(pids[i] >= 0);
		if (pids[i] == 0) {
			for (int k = 0; k <= i; k++)
				check_sys(close(links[k][0]) == 0);
			child(links[i][1]);
		}
		check_sys(close(links[i][1]) == 0);
	}
}

/* All children wait in accept or read; then each has sent a connection that nobody has taken. */
static int clients[CHILDREN];

static void begin(void)
{
	for (int i = 0; i < CHILDREN; i++) {
		check_sys(write(links[i][0], "a", 1) == 1);
		clients[i] = connected();
		check_sys(write(clients[i], "question", 8) == 8);
	}
	/* whichever child took which: all have answered when all descriptors are on their way */
	for (int i = 0; i < CHILDREN; i++) {
		char buf[16];

		check(recv(clients[i], buf, 8, MSG_PEEK | MSG_WAITALL) == 8, "no answer");
		while (recv(links[i][0], buf, 1, MSG_PEEK) != 1)
			;
	}
}

static void finish(void)
{
	char buf[16];
	int total = 0;

	for (int i = 0; i < CHILDREN; i++) {
		int fd = get_fd(links[i][0], 'f');
		struct sockaddr_in a, b;
		socklen_t len = sizeof a;

		check_sys(recv(clients[i], buf, 8, MSG_WAITALL) == 8);
		check(!memcmp(buf, "question", 8), "another answer");
		/* the connection that came belongs to one of the clients */
		check_sys(getpeername(fd, (void *)&a, &len) == 0);
		for (int k = 0; k < CHILDREN; k++) {
			len = sizeof b;
			check_sys(getsockname(clients[k], (void *)&b, &len) == 0);
			total += a.sin_port == b.sin_port;
		}
		check_sys(write(fd, "direct", 6) == 6 && close(fd) == 0);
	}
	check(total == CHILDREN, "%d of the connections are those of the clients", total);
	for (int i = 0; i < CHILDREN; i++) {
		struct linger hard = { 1, 0 };

		check(recv(clients[i], buf, 6, MSG_WAITALL) == 6 && !memcmp(buf, "direct", 6),
		      "what came over the descriptor that was sent");
		check_sys(setsockopt(clients[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
		check_sys(close(clients[i]) == 0);
	}
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	set_up();
	begin();
	victim_ready();
	while (victim_wait()) {
		finish();
		begin();
		victim_ok();
	}
	for (int i = 0; i < CHILDREN; i++) {
		int status;

		check_sys(write(links[i][0], "q", 1) == 1);
		check_sys(waitpid(pids[i], &status, 0) == pids[i]);
	}
	return 0;
}
