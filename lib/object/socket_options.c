/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Socket options: one table says which there are, of which sockets, and when they are put back.
 *
 * Recorded are those that differ from a new socket's, so that what the system's settings decide is
 * decided anew by the system on which the job is restarted. SO_SNDBUF and SO_RCVBUF of TCP grow by
 * themselves: only a size that the program has set counts (SO_BUF_LOCK says so, Linux 5.17).
 */
#include "object/socket.h"

#include <linux/filter.h>
#include <linux/in6.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <linux/netlink.h>
#include <linux/udp.h>
#include <unistd.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_TXREHASH
#define SO_TXREHASH 74
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#define SO_LOCK_SNDBUF 1
#define SO_LOCK_RCVBUF 2

/* linux/in.h and linux/in6.h do not go together with the C library's headers everywhere. */
#ifndef IP_NODEFRAG
#define IP_NODEFRAG 22
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

enum option_of {
	OF_UNIX = 1,
	OF_TCP4 = 2,
	OF_TCP6 = 4,
	OF_UDP4 = 8,
	OF_UDP6 = 16,
	OF_NETLINK = 32,
	OF_TCP = OF_TCP4 | OF_TCP6,
	OF_UDP = OF_UDP4 | OF_UDP6,
	OF_INET = OF_TCP | OF_UDP,
	OF_INET6 = OF_TCP6 | OF_UDP6,
	OF_ALL = 63,
};

enum option_how {
	EARLY = 1,   /* before bind */
	ALWAYS = 2,  /* recorded even if it is as a new socket's: what restores it changes it */
	HALF = 4,    /* the kernel shows twice what was set */
	SOFT = 8,    /* a failure to set it is no failure of the restart */
	UNREAD = 32, /* getsockopt means something else */
	LATE = 16,   /* turns data back into the stream: after all else */
};

#define OPTION_MAX 256

static const struct option_row {
	int level, name;
	unsigned of, how;
	const char *what;
} rows[] = {
#define ROW(level, name, of, how)                                                                  \
	{                                                                                          \
		level, name, of, how, #name                                                        \
	}
	ROW(SOL_SOCKET, SO_REUSEADDR, OF_ALL, EARLY | ALWAYS),
	ROW(SOL_SOCKET, SO_REUSEPORT, OF_INET, EARLY | ALWAYS),
	ROW(SOL_SOCKET, SO_BINDTODEVICE, OF_INET, EARLY),
	ROW(SOL_SOCKET, SO_MARK, OF_INET, EARLY),
	ROW(SOL_SOCKET, SO_SNDBUF, OF_ALL, HALF),
	ROW(SOL_SOCKET, SO_RCVBUF, OF_ALL, HALF),
	ROW(SOL_SOCKET, SO_RCVLOWAT, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_RCVTIMEO, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_SNDTIMEO, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_LINGER, OF_ALL, ALWAYS),
	ROW(SOL_SOCKET, SO_KEEPALIVE, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_BROADCAST, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_OOBINLINE, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_DONTROUTE, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_PRIORITY, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_PASSCRED, OF_UNIX | OF_NETLINK, ALWAYS),
	ROW(SOL_SOCKET, SO_PASSSEC, OF_UNIX, SOFT),
	ROW(SOL_SOCKET, SO_PASSPIDFD, OF_UNIX, SOFT),
	ROW(SOL_SOCKET, SO_TIMESTAMP, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_TIMESTAMPNS, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_TIMESTAMPING, OF_ALL, SOFT),
	ROW(SOL_SOCKET, SO_PEEK_OFF, OF_UNIX | OF_UDP, LATE),
	ROW(SOL_SOCKET, SO_ATTACH_FILTER, OF_ALL, LATE | UNREAD),
	ROW(IPPROTO_IP, MCAST_JOIN_GROUP, OF_UDP, UNREAD),
	ROW(IPPROTO_IPV6, MCAST_JOIN_GROUP, OF_UDP6, UNREAD),
	ROW(SOL_SOCKET, SO_NO_CHECK, OF_UDP, 0),
	ROW(SOL_SOCKET, SO_RXQ_OVFL, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_WIFI_STATUS, OF_ALL, SOFT),
	ROW(SOL_SOCKET, SO_SELECT_ERR_QUEUE, OF_ALL, 0),
	ROW(SOL_SOCKET, SO_BUSY_POLL, OF_INET, SOFT),
	ROW(SOL_SOCKET, SO_MAX_PACING_RATE, OF_INET, SOFT),
	ROW(SOL_SOCKET, SO_ZEROCOPY, OF_INET, SOFT),
	ROW(SOL_SOCKET, SO_TXREHASH, OF_INET, SOFT),
	ROW(IPPROTO_IP, IP_FREEBIND, OF_INET, EARLY),
	ROW(IPPROTO_IP, IP_TRANSPARENT, OF_INET, EARLY),
	ROW(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, OF_INET, 0),
	ROW(IPPROTO_IP, IP_LOCAL_PORT_RANGE, OF_INET, SOFT | ALWAYS),
	ROW(IPPROTO_IP, IP_TOS, OF_INET, 0),
	ROW(IPPROTO_IP, IP_TTL, OF_INET, 0),
	ROW(IPPROTO_IP, IP_MTU_DISCOVER, OF_INET, 0),
	ROW(IPPROTO_IP, IP_RECVERR, OF_INET, 0),
	ROW(IPPROTO_IP, IP_PKTINFO, OF_UDP, 0),
	ROW(IPPROTO_IP, IP_RECVTTL, OF_UDP, 0),
	ROW(IPPROTO_IP, IP_RECVTOS, OF_INET, 0),
	ROW(IPPROTO_IP, IP_RECVORIGDSTADDR, OF_UDP, 0),
	ROW(IPPROTO_IP, IP_MULTICAST_TTL, OF_UDP4, 0),
	ROW(IPPROTO_IP, IP_MULTICAST_LOOP, OF_UDP4, 0),
	ROW(IPPROTO_IP, IP_MULTICAST_ALL, OF_UDP4, 0),
	ROW(IPPROTO_IP, IP_MINTTL, OF_INET, 0),
	ROW(IPPROTO_IP, IP_NODEFRAG, OF_UDP4, SOFT),
	ROW(IPPROTO_IPV6, IPV6_V6ONLY, OF_INET6, EARLY | ALWAYS),
	ROW(IPPROTO_IPV6, IPV6_FREEBIND, OF_INET6, EARLY | SOFT),
	ROW(IPPROTO_IPV6, IPV6_UNICAST_HOPS, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_TCLASS, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_MTU_DISCOVER, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_RECVERR, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_RECVPKTINFO, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_RECVTCLASS, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_DONTFRAG, OF_INET6, 0),
	ROW(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, OF_INET6, SOFT),
	ROW(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, OF_UDP6, 0),
	ROW(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, OF_UDP6, 0),
	ROW(IPPROTO_IPV6, IPV6_MULTICAST_IF, OF_UDP6, 0),
	ROW(IPPROTO_TCP, TCP_NODELAY, OF_TCP, ALWAYS),
	ROW(IPPROTO_TCP, TCP_CORK, OF_TCP, LATE),
	ROW(IPPROTO_TCP, TCP_KEEPIDLE, OF_TCP, 0),
	ROW(IPPROTO_TCP, TCP_KEEPINTVL, OF_TCP, 0),
	ROW(IPPROTO_TCP, TCP_KEEPCNT, OF_TCP, 0),
	ROW(IPPROTO_TCP, TCP_SYNCNT, OF_TCP, 0),
	ROW(IPPROTO_TCP, TCP_LINGER2, OF_TCP, 0),
	ROW(IPPROTO_TCP, TCP_DEFER_ACCEPT, OF_TCP, LATE),
	ROW(IPPROTO_TCP, TCP_CONGESTION, OF_TCP, SOFT),
	ROW(IPPROTO_TCP, TCP_USER_TIMEOUT, OF_TCP, 0),
	ROW(IPPROTO_TCP, TCP_FASTOPEN, OF_TCP, SOFT),
	ROW(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, OF_TCP, SOFT),
	ROW(IPPROTO_TCP, TCP_NOTSENT_LOWAT, OF_TCP, 0),
	ROW(IPPROTO_TCP, TCP_SAVE_SYN, OF_TCP, SOFT),
	ROW(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, OF_TCP, SOFT),
	ROW(IPPROTO_TCP, TCP_INQ, OF_TCP, 0),
	ROW(IPPROTO_UDP, UDP_CORK, OF_UDP, LATE),
	ROW(IPPROTO_UDP, UDP_SEGMENT, OF_UDP, SOFT),
	ROW(IPPROTO_UDP, UDP_GRO, OF_UDP, SOFT | LATE),
	ROW(SOL_NETLINK, NETLINK_PKTINFO, OF_NETLINK, 0),
	ROW(SOL_NETLINK, NETLINK_BROADCAST_ERROR, OF_NETLINK, 0),
	ROW(SOL_NETLINK, NETLINK_NO_ENOBUFS, OF_NETLINK, 0),
	ROW(SOL_NETLINK, NETLINK_CAP_ACK, OF_NETLINK, SOFT),
	ROW(SOL_NETLINK, NETLINK_EXT_ACK, OF_NETLINK, SOFT),
	ROW(SOL_NETLINK, NETLINK_GET_STRICT_CHK, OF_NETLINK, SOFT),
#undef ROW
};

static unsigned kind_bit(const struct file_socket *d)
{
	switch (d->family) {
	case AF_UNIX:
		return OF_UNIX;
	case AF_INET:
		return d->type == SOCK_STREAM ? OF_TCP4 : OF_UDP4;
	case AF_INET6:
		return d->type == SOCK_STREAM ? OF_TCP6 : OF_UDP6;
	default:
		return OF_NETLINK;
	}
}

static const struct option_row *row_of(const struct file_socket *d, const struct socket_option *o)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if ((uint32_t)rows[i].level == o->level && (uint32_t)rows[i].name == o->name &&
		    (rows[i].of & kind_bit(d)))
			return &rows[i];
	return NULL;
}

/* --- capture ---------------------------------------------------------------------------------- */

/* A size that the kernel chose says nothing. */
static bool grown_by_itself(const struct option_row *row, const struct file_socket *d, int fd)
{
	int lock;

	if (!(row->how & HALF) || d->family == AF_UNIX || d->family == AF_NETLINK)
		return false;
	lock = socket_int(fd, SOL_SOCKET, SO_BUF_LOCK);
	if (lock < 0)
		return d->type == SOCK_STREAM;
	return !(lock & (row->name == SO_SNDBUF ? SO_LOCK_SNDBUF : SO_LOCK_RCVBUF));
}

/* A classic filter; one of the newer kind cannot be read. */
static int capture_filter(struct capture *c, const struct open_file *of, struct err *err)
{
	struct file_socket *d = of->sock->d;
	struct sock_filter code[BPF_MAXINSNS];
	socklen_t n = 0;
	struct socket_option *o;
	int rc = getsockopt(of->dup, SOL_SOCKET, SO_GET_FILTER, NULL, &n);

	if (rc < 0 && errno == EACCES)
		return refuse(of, err, "a socket with a BPF program is not supported");
	if (rc < 0 || n == 0 || n > BPF_MAXINSNS)
		return 0;
	if (getsockopt(of->dup, SOL_SOCKET, SO_GET_FILTER, code, &n) < 0)
		return fd_error(of, err, -errno, "cannot read the socket's filter: %m");
	o = arena_push(c->arena, &d->options, &d->n_options, sizeof *o);
	if (!o || !blob_put(c->arena, &o->value, code, n * sizeof code[0]))
		return err_nomem(err);
	o->level = SOL_SOCKET;
	o->name = SO_ATTACH_FILTER;
	return 0;
}

struct socket_answer {
	struct socket_option *options;
	unsigned n;
};

/* What a new socket of that kind has: asked for once. */
struct socket_fresh {
	struct socket_fresh *next;
	uint32_t family, type, protocol;
	struct {
		uint8_t value[OPTION_MAX];
		socklen_t len; /* 0: it has none */
	} of[ARRAY_SIZE(rows)];
};

static const struct socket_fresh *fresh_like(struct capture *c, const struct open_file *of,
					     struct err *err)
{
	const struct file_socket *d = of->sock->d;
	struct socket_fresh *f = c->fresh_sockets;
	CLEANUP_FD int fd = -1;

	while (f && (f->family != d->family || f->type != d->type || f->protocol != d->protocol))
		f = f->next;
	if (f)
		return f;
	fd = socket((int)d->family, (int)d->type | SOCK_CLOEXEC, (int)d->protocol);
	if (fd < 0) {
		fd_error(of, err, -errno, "cannot make a socket to compare it with: %m");
		return NULL;
	}
	f = arena_alloc(c->arena, sizeof *f);
	if (!f) {
		err_nomem(err);
		return NULL;
	}
	f->family = d->family;
	f->type = d->type;
	f->protocol = d->protocol;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		f->of[i].len = OPTION_MAX;
		if (!(rows[i].of & kind_bit(d)) || (rows[i].how & UNREAD) ||
		    getsockopt(fd, rows[i].level, rows[i].name, f->of[i].value, &f->of[i].len) < 0)
			f->of[i].len = 0;
	}
	f->next = c->fresh_sockets;
	return c->fresh_sockets = f;
}

/* What is not as in a new socket. */
static int read_options(const struct open_file *of, const struct socket_fresh *fresh,
			struct arena *a, struct socket_answer *ret, struct err *err)
{
	const struct file_socket *d = of->sock->d;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		uint8_t value[OPTION_MAX];
		socklen_t len = sizeof value;
		struct socket_option *o;

		if (!(rows[i].of & kind_bit(d)) || (rows[i].how & UNREAD) ||
		    grown_by_itself(&rows[i], d, of->dup) ||
		    getsockopt(of->dup, rows[i].level, rows[i].name, value, &len) < 0)
			continue;
		if (!(rows[i].how & ALWAYS) && len == fresh->of[i].len &&
		    !memcmp(value, fresh->of[i].value, len))
			continue;
		o = arena_push(a, &ret->options, &ret->n, sizeof *o);
		if (!o || !blob_put(a, &o->value, value, len))
			return err_nomem(err);
		o->level = (uint32_t)rows[i].level;
		o->name = (uint32_t)rows[i].name;
	}
	return 0;
}

static int take_options(struct capture *c, struct file_socket *d, const struct socket_answer *from,
			struct err *err)
{
	for (unsigned i = 0; i < from->n; i++) {
		struct socket_option *o =
			arena_push(c->arena, &d->options, &d->n_options, sizeof *o);

		if (!o)
			return err_nomem(err);
		*o = from->options[i];
	}
	return 0;
}

/*
 * Those of a unix socket, some 25 calls, are left for later. TCP's are asked at once: while a
 * connection is looked at others of them may be changed (tcp_repair.c).
 */
int socket_options_capture(struct capture *c, const struct open_file *of, struct err *err)
{
	const struct socket_fresh *fresh = fresh_like(c, of, err);
	struct socket_answer answer = { 0 };
	unsigned *later;
	int rc;

	if (!fresh)
		return err ? err->code : -ENOMEM;
	rc = capture_filter(c, of, err);
	if (rc < 0)
		return rc;
	if (of->sock->d->family == AF_UNIX) {
		later = arena_push(c->arena, &c->later, &c->n_later, sizeof *later);
		if (!later)
			return err_nomem(err);
		*later = (unsigned)(of - c->open_files);
		return 0;
	}
	rc = read_options(of, fresh, c->arena, &answer, err);
	return rc < 0 ? rc : take_options(c, of->sock->d, &answer, err);
}

int files_ask(struct capture *c, unsigned i, struct arena *a, void **ret, struct err *err)
{
	const struct open_file *of = &c->open_files[c->later[i]];
	struct socket_answer *answer = arena_alloc(a, sizeof *answer);
	int rc;

	if (!answer)
		return err_nomem(err);
	/* it is there, so that c does not change */
	rc = read_options(of, fresh_like(c, of, err), a, answer, err);
	if (rc == 0)
		*ret = answer;
	return rc;
}

int files_answered(struct capture *c, unsigned i, void *answer, struct err *err)
{
	int rc = answer ? 0 : files_ask(c, i, c->arena, &answer, err);

	return rc < 0 ? rc : take_options(c, c->open_files[c->later[i]].sock->d, answer, err);
}

/* --- restore ---------------------------------------------------------------------------------- */

const struct socket_option *socket_option(const struct file_socket *d, int level, int name)
{
	for (unsigned i = 0; i < d->n_options; i++)
		if (d->options[i].level == (uint32_t)level && d->options[i].name == (uint32_t)name)
			return &d->options[i];
	return NULL;
}

static bool is_there(int fd, const struct option_row *row, const struct socket_option *o)
{
	uint8_t now[OPTION_MAX];
	socklen_t len = sizeof now;

	return getsockopt(fd, row->level, row->name, now, &len) == 0 && len == o->value.len &&
	       !memcmp(now, o->value.data, len);
}

/* The option that goes beyond the system's limit, for those who may. */
static int forced(int name)
{
	return name == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
}

static int put_half(int fd, int name, const struct socket_option *o)
{
	int value;

	if (o->value.len != sizeof value)
		return -1;
	memcpy(&value, o->value.data, sizeof value);
	value /= 2;
	if (setsockopt(fd, SOL_SOCKET, forced(name), &value, sizeof value) == 0)
		return 0;
	return setsockopt(fd, SOL_SOCKET, name, &value, sizeof value);
}

static int put_filter(const struct socket_option *o, int fd, struct err *err)
{
	struct sock_fprog prog = { .len = (unsigned short)(o->value.len /
							   sizeof(struct sock_filter)),
				   .filter = (struct sock_filter *)(void *)o->value.data };

	if (!prog.len || o->value.len > BPF_MAXINSNS * sizeof(struct sock_filter))
		return err_image(err, -EINVAL, "the image has a socket filter that cannot be");
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) < 0)
		return err_set(err, -errno, "cannot attach the socket's filter: %m");
	return 0;
}

static int put_option(const struct option_row *row, const struct socket_option *o, int fd,
		      bool late, struct err *err)
{
	if (row->name == SO_ATTACH_FILTER && row->level == SOL_SOCKET)
		return put_filter(o, fd, err);
	if (!(row->how & UNREAD) && is_there(fd, row, o))
		return 0;
	if (row->how & HALF
		    ? put_half(fd, row->name, o) == 0
		    : setsockopt(fd, row->level, row->name, o->value.data, o->value.len) == 0)
		return 0;
	/* what a bound socket refuses was set before bind, where it could be */
	if (row->how & SOFT || (late && row->how & EARLY))
		return 0;
	return err_set(err, -errno, "cannot set the socket option %s: %m", row->what);
}

static int put_those(const struct file_socket *d, int fd, unsigned mask, unsigned want,
		     struct err *err)
{
	for (unsigned i = 0; i < d->n_options; i++) {
		const struct option_row *row = row_of(d, &d->options[i]);
		int rc;

		if (!row || (row->how & mask) != want)
			continue;
		rc = put_option(row, &d->options[i], fd, want != EARLY, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int socket_options_early(const struct file_socket *d, int fd, struct err *err)
{
	return put_those(d, fd, EARLY, EARLY, err);
}

int socket_options_put(const struct file_socket *d, int fd, struct err *err)
{
	int rc = put_those(d, fd, LATE, 0, err);

	return rc < 0 ? rc : put_those(d, fd, LATE, LATE, err);
}

void socket_make_room(int fd, int name)
{
	for (int size = 64 << 20; size >= 1 << 18; size /= 2)
		if (setsockopt(fd, SOL_SOCKET, forced(name), &size, sizeof size) == 0)
			return;
	for (int size = 64 << 20; size >= 1 << 16; size /= 2)
		if (setsockopt(fd, SOL_SOCKET, name, &size, sizeof size) == 0)
			return; /* cut to the system's limit */
}
