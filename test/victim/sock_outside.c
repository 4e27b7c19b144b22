/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: connections to a program outside (port argv[2]; argv[3] is its unix
 * name), which come back as reset; a thread is blocked in one. */
#include "victim.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

static int idle, talking, local;
static volatile int thread_errno;
static int blocked_fd;

static int connect_to(unsigned port, int flags)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				  .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	check_sys(fd >= 0);
	check(connect(fd, (void *)&sa, sizeof sa) == 0 || (flags && errno == EINPROGRESS),
	      "connect: %s", strerror(errno));
	return fd;
}

static void *block(void *arg)
{
	char c;

	(void)arg;
	thread_errno = recv(blocked_fd, &c, 1, 0) == -1 ? errno : -1;
	return NULL;
}

static void check_reset(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	check(poll(&p, 1, 0) == 1 &&
		      (p.revents & (POLLIN | POLLHUP | POLLERR)) == (POLLIN | POLLHUP | POLLERR),
	      "poll of a reset one: %x", p.revents);
	check(recv(fd, &c, 1, 0) == -1 && errno == ECONNRESET, "recv of a reset one: %s",
	      strerror(errno));
	check(recv(fd, &c, 1, 0) == 0, "the end after it");
	check(send(fd, &c, 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "send: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char buf[32] = "";
	bool there = true;

	victim_init(argc, argv);
	check(argc == 4, "sock_outside needs a port and a name");
	strncpy(sa.sun_path, argv[3], sizeof sa.sun_path - 1);
	idle = connect_to((unsigned)atoi(argv[2]), 0);
	talking = connect_to((unsigned)atoi(argv[2]), 0);
	blocked_fd = connect_to((unsigned)atoi(argv[2]), 0);
	check_sys(send(talking, "greet", 5, 0) == 5);
	while (recv(talking, buf, 5, MSG_PEEK) < 5)
		;
	local = socket(AF_UNIX, SOCK_STREAM, 0);
	check_sys(local >= 0 && connect(local, (void *)&sa, sizeof sa) == 0);
	(void)thread_start(block, NULL);
	victim_ready();
	while (victim_wait()) {
		if (there && access(victim_path("restarted"), F_OK) == 0) {
			there = false;
			check_reset(idle);
			check(recv(talking, buf, 5, MSG_WAITALL) == 5 && !memcmp(buf, "hello", 5),
			      "what had come: '%s'", buf);
			check_reset(talking);
			for (int i = 0; !thread_errno && i < 6000; i++)
				sleep_ms(10);
			check(thread_errno == ECONNRESET, "the thread: %s", strerror(thread_errno));
			check_sys(recv(local, buf, 1, 0) == -1 && errno == ECONNRESET);
			/* and the way is open for new ones */
			idle = connect_to((unsigned)atoi(argv[2]), 0);
			check_sys(send(idle, "greet", 5, 0) == 5);
			check(recv(idle, buf, 5, MSG_WAITALL) == 5, "a new connection");
		}
		victim_ok();
	}
	return 0;
}
