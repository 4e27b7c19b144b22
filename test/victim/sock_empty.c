/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: messages of no bytes, first or alone in a queue, or behind others that have some. */
#include "victim.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { ALONE, PACKETS, DATAGRAMS, ENDED, UDP, N };

static int pairs[N][2];

static void put(int which, const char *text)
{
	check(send(pairs[which][0], text, strlen(text), 0) == (ssize_t)strlen(text),
	      "sending '%s' on %d: %s", text, which, strerror(errno));
}

static void get(int which, const char *want)
{
	char buf[64] = "";
	ssize_t n = recv(pairs[which][1], buf, sizeof buf - 1, MSG_DONTWAIT);

	check(n >= 0 && !strcmp(buf, want), "queue %d: '%s' (%zd), should be '%s'", which, buf, n,
	      want);
}

static void get_nothing(int which)
{
	char c;

	check(recv(pairs[which][1], &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN,
	      "queue %d: one message too many", which);
}

static void make_udp(int *pair)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;

	pair[0] = socket(AF_INET, SOCK_DGRAM, 0);
	pair[1] = socket(AF_INET, SOCK_DGRAM, 0);
	check_sys(bind(pair[1], (void *)&a, len) == 0 &&
		  getsockname(pair[1], (void *)&a, &len) == 0 &&
		  connect(pair[0], (void *)&a, len) == 0);
}

static void put_all(void)
{
	put(ALONE, "");
	put(PACKETS, "");
	put(PACKETS, "then some");
	put(DATAGRAMS, "");
	put(DATAGRAMS, "then some");
	put(UDP, "");
	put(UDP, "then some");
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	check_sys(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[ALONE]) == 0 &&
		  socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[PACKETS]) == 0 &&
		  socketpair(AF_UNIX, SOCK_DGRAM, 0, pairs[DATAGRAMS]) == 0 &&
		  socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[ENDED]) == 0);
	make_udp(pairs[UDP]);
	put_all();
	put(ENDED, "the last");
	check_sys(shutdown(pairs[ENDED][0], SHUT_WR) == 0);
	victim_ready();
	while (victim_wait()) {
		get(ALONE, "");
		get_nothing(ALONE);
		for (int i = PACKETS; i <= UDP; i++) {
			if (i == ENDED)
				continue;
			get(i, "");
			get(i, "then some");
			get_nothing(i);
		}
		check(recv(pairs[ENDED][1], (char[9]){ 0 }, 9, MSG_DONTWAIT | MSG_PEEK) == 8,
		      "what came before the end");
		put_all();
		victim_ok();
	}
	return 0;
}
