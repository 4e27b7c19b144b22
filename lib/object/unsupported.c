/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be restored is refused here by its name, with what can be done about it. */
#include "object/kinds.h"
#include "object/socket.h"
#include "proc/refusals.h"

#include <sys/socket.h>
#include <sys/sysmacros.h>

static int refuse_known(const struct open_file *of, const struct refusal *k, struct err *err)
{
	refuse(of, err, "%s is not supported", k->name);
	if (k->hint)
		err_hint(err, "%s", k->hint);
	return -EOPNOTSUPP;
}

static int refuse_socket(const struct open_file *of, struct err *err)
{
	static const struct {
		int domain, type;
		const char *name;
	} sockets[] = {
		{ AF_INET, SOCK_RAW, "a raw socket" },
		{ AF_INET6, SOCK_RAW, "a raw socket" },
		{ AF_INET, SOCK_STREAM, "a TCP socket" },
		{ AF_INET6, SOCK_STREAM, "a TCP socket" },
		{ AF_INET, SOCK_DGRAM, "a UDP socket" },
		{ AF_INET6, SOCK_DGRAM, "a UDP socket" },
		{ AF_PACKET, 0, "a packet socket" },
		{ AF_VSOCK, 0, "a vsock socket" },
		{ AF_ALG, 0, "a crypto socket (AF_ALG)" },
		{ AF_BLUETOOTH, 0, "a bluetooth socket" },
		{ AF_CAN, 0, "a CAN socket" },
		{ AF_XDP, 0, "an XDP socket" },
		{ AF_TIPC, 0, "a TIPC socket" },
		{ AF_SMC, 0, "an SMC socket" },
		{ AF_RDS, 0, "an RDS socket" },
	};
	int domain = -1, type = -1;
	socklen_t len = sizeof domain;

	(void)getsockopt(of->dup, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	len = sizeof type;
	(void)getsockopt(of->dup, SOL_SOCKET, SO_TYPE, &type, &len);
	if (domain == AF_NETLINK)
		return refuse(of, err, "a netlink socket (protocol %d) is not supported",
			      socket_int(of->dup, SOL_SOCKET, SO_PROTOCOL));
	for (unsigned i = 0; i < ARRAY_SIZE(sockets); i++)
		if (sockets[i].domain == domain && (!sockets[i].type || sockets[i].type == type))
			return refuse(of, err, "%s is not supported", sockets[i].name);
	return refuse(of, err, "a socket of family %d is not supported", domain);
}

static int refuse_device(const struct open_file *of, struct err *err)
{
	const struct refusal *k = refusal_of_device(of->link);

	if (k)
		return refuse_known(of, k, err);
	return refuse(of, err, "%s device '%s' (%u:%u) is not supported",
		      S_ISBLK(of->st.st_mode) ? "block" : "character", of->link,
		      major(of->st.st_rdev), minor(of->st.st_rdev));
}

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	(void)of;
	return true;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	const struct refusal *k = refusal_of_file(of->link);

	(void)c;
	(void)f;
	if (S_ISSOCK(of->st.st_mode))
		return refuse_socket(of, err);
	if (S_ISCHR(of->st.st_mode) || S_ISBLK(of->st.st_mode))
		return refuse_device(of, err);
	if (k)
		return refuse_known(of, k, err);
	if (refusal_of_filesystem(of->fs_magic))
		return refuse(of, err, "%s is not supported", refusal_of_filesystem(of->fs_magic));
	if (!strncmp(of->link, "(unreachable)", 13))
		return refuse(of, err, "'%s' cannot be reached from here", of->link);
	return refuse(of, err, "'%s' is not supported", of->link);
}

const struct file_ops unsupported_ops = { .match = match, .capture = capture };
