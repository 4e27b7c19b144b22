/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: what else sockets have: multicast groups, filters, sizes, timeouts; netlink. */
#include "victim.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int udp, tcp, unixes[2], netlink;
static unsigned loopback;
static bool has_group, has_news;
static struct sockaddr_nl netlink_name;
static int sndbuf, rcvbuf;

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;

	check_sys(getsockopt(fd, level, name, &value, &len) == 0);
	return value;
}

static void set(int fd, int level, int name, int value)
{
	check(setsockopt(fd, level, name, &value, sizeof value) == 0, "option %d of level %d: %s",
	      name, level, strerror(errno));
}

static struct sockaddr_storage group(void)
{
	struct sockaddr_storage sa = { .ss_family = AF_INET };

	check_sys(inet_pton(AF_INET, "239.7.7.7", &((struct sockaddr_in *)(void *)&sa)->sin_addr));
	return sa;
}

static bool is_member(void)
{
	struct group_filter f = { .gf_interface = loopback, .gf_group = group() };
	socklen_t len = sizeof f;

	return getsockopt(udp, IPPROTO_IP, MCAST_MSFILTER, &f, &len) == 0;
}

/* Only packets that begin with 'y' pass. */
static void attach_filter(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0xffff),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = { COUNT_OF(code), code };

	check_sys(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) == 0);
}

static void set_up(void)
{
	struct timeval limit = { 3, 0 };
	struct linger linger = { 1, 5 };
	struct group_req req = { .gr_group = group() };
	socklen_t len = sizeof netlink_name;
	int news = RTNLGRP_LINK;

	udp = socket(AF_INET, SOCK_DGRAM, 0);
	tcp = socket(AF_INET6, SOCK_STREAM, 0);
	if (tcp < 0)
		tcp = socket(AF_INET, SOCK_STREAM, 0);
	netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	check_sys(udp >= 0 && tcp >= 0 && netlink >= 0);
	check_sys(socketpair(AF_UNIX, SOCK_DGRAM, 0, unixes) == 0);
	loopback = req.gr_interface = if_nametoindex("lo");
	has_group = setsockopt(udp, IPPROTO_IP, MCAST_JOIN_GROUP, &req, sizeof req) == 0;
	set(udp, IPPROTO_IP, IP_MULTICAST_TTL, 7);
	set(udp, IPPROTO_IP, IP_TOS, 0x10);
	set(udp, SOL_SOCKET, SO_RCVBUF, 40000);
	set(tcp, SOL_SOCKET, SO_SNDBUF, 60000);
	set(tcp, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
	set(tcp, SOL_SOCKET, SO_PRIORITY, 3);
	rcvbuf = option(udp, SOL_SOCKET, SO_RCVBUF);
	sndbuf = option(tcp, SOL_SOCKET, SO_SNDBUF);
	check_sys(setsockopt(tcp, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
		  setsockopt(tcp, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
	attach_filter(unixes[1]);
	netlink_name.nl_family = AF_NETLINK;
	check_sys(bind(netlink, (void *)&netlink_name, sizeof netlink_name) == 0 &&
		  getsockname(netlink, (void *)&netlink_name, &len) == 0);
	has_news = setsockopt(netlink, 270, NETLINK_ADD_MEMBERSHIP, &news, sizeof news) == 0;
}

static void check_netlink(void)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg m;
	} req = { .h = { .nlmsg_len = sizeof req,
			 .nlmsg_type = RTM_GETLINK,
			 .nlmsg_flags = NLM_F_REQUEST },
		  .m = { .ifi_index = (int)loopback } };
	struct sockaddr_nl name = { 0 };
	socklen_t len = sizeof name;
	uint32_t groups = 0;
	char answer[16384];

	check_sys(getsockname(netlink, (void *)&name, &len) == 0);
	check(name.nl_pid == netlink_name.nl_pid, "netlink's port is %u, not %u", name.nl_pid,
	      netlink_name.nl_pid);
	len = sizeof groups;
	check_sys(getsockopt(netlink, 270, NETLINK_LIST_MEMBERSHIPS, &groups, &len) == 0);
	check(!has_news || (groups & 1u << (RTNLGRP_LINK - 1)), "netlink's groups: %x", groups);
	/* news may come in between on a busy machine */
	check_sys(send(netlink, &req, sizeof req, 0) == sizeof req);
	do
		check_sys(recv(netlink, answer, sizeof answer, 0) > 0);
	while (((struct nlmsghdr *)(void *)answer)->nlmsg_pid != name.nl_pid);
	check(((struct nlmsghdr *)(void *)answer)->nlmsg_type == RTM_NEWLINK, "netlink's answer");
}

static void check_options(void)
{
	struct timeval limit;
	struct linger linger;
	socklen_t len = sizeof limit;

	check(!has_group || is_member(), "the multicast group");
	check(option(udp, IPPROTO_IP, IP_MULTICAST_TTL) == 7, "IP_MULTICAST_TTL");
	check(option(udp, IPPROTO_IP, IP_TOS) == 0x10, "IP_TOS");
	check(option(udp, SOL_SOCKET, SO_RCVBUF) == rcvbuf, "SO_RCVBUF");
	check(option(tcp, SOL_SOCKET, SO_SNDBUF) == sndbuf, "SO_SNDBUF");
	check(option(tcp, IPPROTO_TCP, TCP_USER_TIMEOUT) == 12345, "TCP_USER_TIMEOUT");
	check(option(tcp, SOL_SOCKET, SO_PRIORITY) == 3, "SO_PRIORITY");
	check_sys(getsockopt(tcp, SOL_SOCKET, SO_RCVTIMEO, &limit, &len) == 0);
	check(limit.tv_sec == 3 && limit.tv_usec == 0, "SO_RCVTIMEO %ld.%06ld",
	      (long)limit.tv_sec, (long)limit.tv_usec);
	len = sizeof linger;
	check_sys(getsockopt(tcp, SOL_SOCKET, SO_LINGER, &linger, &len) == 0);
	check(linger.l_onoff == 1 && linger.l_linger == 5, "SO_LINGER");
}

static void check_filter(void)
{
	char c = 0;

	check_sys(send(unixes[0], "no", 2, MSG_DONTWAIT) == 2 || errno == EPERM);
	check_sys(send(unixes[0], "yes", 3, MSG_DONTWAIT) == 3);
	check_sys(recv(unixes[1], &c, 1, MSG_DONTWAIT) == 1);
	check(c == 'y', "'%c' came through the filter", c);
	check(recv(unixes[1], &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "one too many");
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	set_up();
	victim_ready();
	while (victim_wait()) {
		check_options();
		check_filter();
		check_netlink();
		victim_ok();
	}
	return 0;
}
