/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Netlink sockets: a new one with the same address and groups does, as long as nothing is unread.
 *
 * The kernel answers at once, so what is unread is an answer that the program is about to read, or
 * news that it has not looked at: a moment later there is as a rule nothing.
 */
#include "object/socket.h"

#include <linux/netlink.h>
#include <poll.h>
#include <unistd.h>

#define SOL_NETLINK_ 270
#define GROUPS_MAX   128 /* bytes: 1024 groups */

int netlink_look(struct capture *c, unsigned i, struct err *err)
{
	const struct open_file *of = &c->open_files[i];
	struct file_socket *d = of->sock->d;
	uint8_t groups[GROUPS_MAX] = { 0 };
	socklen_t len = sizeof groups;

	d->state = SOCKET_PLAIN;
	if (socket_poll(of->dup) & (POLLIN | POLLERR))
		socket_refuse(of->sock, -EAGAIN, "a netlink socket with unread messages", NULL);
	if (getsockopt(of->dup, SOL_NETLINK_, NETLINK_LIST_MEMBERSHIPS, groups, &len) == 0 && len &&
	    !blob_put(c->arena, &d->groups, groups, MIN(len, sizeof groups)))
		return err_nomem(err);
	return 0;
}

static int join(const struct file_socket *d, int fd, struct err *err)
{
	for (unsigned g = 0; g < d->groups.len * 8; g++) {
		int group = (int)g + 1;

		if (!(d->groups.data[g / 8] & 1 << g % 8))
			continue;
		if (setsockopt(fd, SOL_NETLINK_, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
			return err_set(err, -errno, "cannot join netlink group %d: %m", group);
	}
	return 0;
}

static int make(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(&rb->tree->files[i]);
	CLEANUP_FD int fd = socket(AF_NETLINK, (int)d->type | SOCK_CLOEXEC, (int)d->protocol);
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK };
	int rc;

	if (fd < 0)
		return err_set(err, -errno, "cannot make a netlink socket: %m");
	if (d->local.len == sizeof sa)
		memcpy(&sa, d->local.data, sizeof sa);
	if (sa.nl_pid) {
		uint32_t wanted = sa.nl_pid;

		sa.nl_groups = 0; /* with the others, below */
		if (bind(fd, (void *)&sa, sizeof sa) < 0) {
			/* somebody has that number; it need only be one that nobody else has */
			sa.nl_pid = 0;
			if (bind(fd, (void *)&sa, sizeof sa) < 0)
				return err_set(err, -errno, "cannot bind netlink socket %u: %m",
					       wanted);
		}
	}
	rc = join(d, fd, err);
	return rc < 0 ? rc : socket_keep(rb, i, &fd, err);
}

int netlink_make(struct rebuild *rb, struct err *err)
{
	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		int rc;

		if (!socket_to_make(rb, i, AF_NETLINK))
			continue;
		rc = make(rb, i, err);
		if (rc < 0)
			return err_wrap(err, rc, "%s", rebuild_file_owner(rb, &rb->tree->files[i]));
	}
	return 0;
}
