/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Multicast groups of UDP sockets. A socket does not tell which it is in, but of a given group it
 * does (MCAST_MSFILTER); the groups that there are at all stand in /proc/net/igmp and igmp6.
 */
#include "object/socket.h"

#include "proc/text.h"
#include "util/io.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

/* One group of one interface; false: it is none that a program joins. */
static bool add_if_member(struct capture *c, const struct open_file *of, unsigned ifindex,
			  const struct sockaddr_storage *group, bool *ret_oom)
{
	struct file_socket *d = of->sock->d;
	int level = group->ss_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
	struct group_filter f = { .gf_interface = ifindex, .gf_group = *group };
	struct group_req req = { .gr_interface = ifindex, .gr_group = *group };
	socklen_t len = sizeof f;
	struct socket_option *o;

	if (getsockopt(of->dup, level, MCAST_MSFILTER, &f, &len) < 0)
		return false;
	if (f.gf_fmode == MCAST_INCLUDE || f.gf_numsrc)
		socket_refuse(of->sock, -EOPNOTSUPP,
			      "a multicast group of which some senders are heard only", NULL);
	o = arena_push(c->arena, &d->options, &d->n_options, sizeof *o);
	if (!o || !blob_put(c->arena, &o->value, &req, sizeof req)) {
		*ret_oom = true;
		return false;
	}
	o->level = (uint32_t)level;
	o->name = MCAST_JOIN_GROUP;
	return true;
}

/* "2\teth0 : 3 V3" names an interface, "\t\t\t\t010000E0 1 0:00000000 0" a group of it. */
static bool groups_v4(struct capture *c, const struct open_file *of, char *text)
{
	uint64_t ifindex = 0, addr;
	bool oom = false;
	char *line;

	while ((line = text_line(&text))) {
		struct sockaddr_storage sa = { .ss_family = AF_INET };

		if (line[0] != '\t') {
			if (!text_u64(line, 10, &ifindex))
				ifindex = 0;
			continue;
		}
		if (!text_u64(text_blanks(line), 16, &addr) || addr > UINT32_MAX)
			continue;
		((struct sockaddr_in *)(void *)&sa)->sin_addr.s_addr = (uint32_t)addr;
		(void)add_if_member(c, of, (unsigned)ifindex, &sa, &oom);
	}
	return !oom;
}

/* "2    eth0            ff02000000000000000000010003 ..." */
static bool groups_v6(struct capture *c, const struct open_file *of, char *text)
{
	bool oom = false;
	char *line;

	while ((line = text_line(&text))) {
		struct sockaddr_storage sa = { .ss_family = AF_INET6 };
		uint8_t *addr = ((struct sockaddr_in6 *)(void *)&sa)->sin6_addr.s6_addr;
		uint64_t ifindex;
		const char *p = text_u64(line, 10, &ifindex);
		unsigned n = 0;

		p = p ? text_blanks(p) : NULL;
		while (p && *p && *p != ' ')
			p++;
		p = p ? text_blanks(p) : NULL;
		for (; p && n < 16 && p[0] && p[1]; n++, p += 2) {
			char pair[3] = { p[0], p[1], '\0' };
			uint64_t byte;

			if (!text_u64(pair, 16, &byte))
				break;
			addr[n] = (uint8_t)byte;
		}
		if (n == 16)
			(void)add_if_member(c, of, (unsigned)ifindex, &sa, &oom);
	}
	return !oom;
}

int multicast_capture(struct capture *c, const struct open_file *of, struct err *err)
{
	const struct file_socket *d = of->sock->d;
	CLEANUP_FREE char *text = NULL;

	if (d->type != SOCK_DGRAM || !socket_is_inet(d))
		return 0;
	if (io_read_file(AT_FDCWD, "/proc/net/igmp", &text, NULL) == 0 && !groups_v4(c, of, text))
		return err_nomem(err);
	free(text);
	text = NULL;
	if (d->family == AF_INET6 && io_read_file(AT_FDCWD, "/proc/net/igmp6", &text, NULL) == 0 &&
	    !groups_v6(c, of, text))
		return err_nomem(err);
	return 0;
}
