/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: UDP over loopback (argv[2]: 4 or 6): unread datagrams, who sent them, connected ones. */
#include "victim.h"

#include <netinet/in.h>
#include <sys/socket.h>

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

static int family, receiver, sender, pair[2], unbound;
static struct address receiver_addr, sender_addr, gone_addr, unbound_addr;

static struct address loopback(void)
{
	struct address a = { 0 };

	a.sa.ss_family = (sa_family_t)family;
	if (family == AF_INET6)
		((struct sockaddr_in6 *)(void *)&a.sa)->sin6_addr = in6addr_loopback;
	else
		((struct sockaddr_in *)(void *)&a.sa)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.len = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	return a;
}

static struct address name_of(int fd)
{
	struct address a = { .len = sizeof a.sa };

	check_sys(getsockname(fd, (void *)&a.sa, &a.len) == 0);
	return a;
}

static int bound(const struct address *a)
{
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		victim_skip("no sockets of that kind: %s", strerror(errno));
	if (bind(fd, (const void *)&a->sa, a->len) != 0) {
		if (errno == EADDRNOTAVAIL)
			victim_skip("no address of that kind");
		check_sys(0);
	}
	return fd;
}

static void put(int fd, const struct address *to, const char *text)
{
	check_sys(sendto(fd, text, strlen(text), 0, to ? (const void *)&to->sa : NULL,
			 to ? to->len : 0) == (ssize_t)strlen(text));
}

static void get(int fd, const char *want, const struct address *from)
{
	struct address a = { .len = sizeof a.sa };
	char buf[256];
	ssize_t n = recvfrom(fd, buf, sizeof buf - 1, MSG_DONTWAIT, (void *)&a.sa, &a.len);

	check(n >= 0, "receiving '%s': %s", want, strerror(errno));
	buf[n] = '\0';
	check(!strcmp(buf, want), "a datagram '%s', should be '%s'", buf, want);
	check(!from || (a.len == from->len && !memcmp(&a.sa, &from->sa, a.len)),
	      "'%s' comes from another address", want);
}

static void get_nothing(int fd)
{
	char c;

	check(recv(fd, &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "one datagram too many");
}

static void put_all(void)
{
	struct address a = loopback();
	int fd = bound(&a);

	put(sender, &receiver_addr, "first");
	gone_addr = name_of(fd);
	put(fd, &receiver_addr, "from one who is gone");
	check_sys(close(fd) == 0);
	put(sender, &receiver_addr, "third, a bit longer");
	put(pair[0], NULL, "to the right");
	put(pair[1], NULL, "to the left");
	put(pair[1], NULL, "again");
}

static void set_up(void)
{
	struct address a = loopback(), b;
	int on = 1;

	receiver = bound(&a);
	sender = bound(&a);
	receiver_addr = name_of(receiver);
	sender_addr = name_of(sender);
	check_sys(setsockopt(receiver, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0);
	pair[0] = bound(&a);
	pair[1] = bound(&a);
	a = name_of(pair[0]);
	b = name_of(pair[1]);
	check_sys(connect(pair[0], (void *)&b.sa, b.len) == 0 &&
		  connect(pair[1], (void *)&a.sa, a.len) == 0);
	unbound = socket(family, SOCK_DGRAM, 0);
	check_sys(unbound >= 0);
	put(unbound, &sender_addr, "");
	get(sender, "", NULL);
	unbound_addr = name_of(unbound);
	put_all();
}

static void check_names(void)
{
	struct address a = name_of(receiver), b = name_of(unbound);
	int on = 0;
	socklen_t len = sizeof on;

	check(!memcmp(&a.sa, &receiver_addr.sa, a.len), "the receiver's address");
	check(!memcmp(&b.sa, &unbound_addr.sa, b.len), "the address that the kernel chose");
	check_sys(getsockopt(receiver, SOL_SOCKET, SO_BROADCAST, &on, &len) == 0);
	check(on == 1, "SO_BROADCAST");
	check(getpeername(receiver, (void *)&a.sa, &a.len) == -1 && errno == ENOTCONN,
	      "the receiver is connected");
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family = argc > 2 && !strcmp(argv[2], "6") ? AF_INET6 : AF_INET;
	set_up();
	victim_ready();
	while (victim_wait()) {
		get(receiver, "first", &sender_addr);
		get(receiver, "from one who is gone", &gone_addr);
		get(receiver, "third, a bit longer", &sender_addr);
		get_nothing(receiver);
		get(pair[1], "to the right", NULL);
		get(pair[0], "to the left", NULL);
		get(pair[0], "again", NULL);
		get_nothing(pair[0]);
		check_names();
		put_all();
		victim_ok();
	}
	return 0;
}
