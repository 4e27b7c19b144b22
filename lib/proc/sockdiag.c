/* SPDX-License-Identifier: BSD-2-Clause */
/* sock_diag(7): netlink messages in and out. What comes from the kernel is still not trusted. */
#include "proc/sockdiag.h"

#include "util/cleanup.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <string.h>

#define ANSWER_BYTES (256 * 1024)
#define DUMP_TRIES   5
#define MAX_ERRNO    4095 /* the kernel: include/linux/err.h */
#define ALL_STATES   0xffffffffu

#define MSG_LEN(n) ((size_t)NLMSG_ALIGN(n))

/* The next message of a buffer, NULL at its end; its payload has at least min bytes. */
static const struct nlmsghdr *next_message(const uint8_t **at, size_t *left)
{
	const struct nlmsghdr *h = (const void *)*at;
	size_t step;

	if (*left < sizeof *h || h->nlmsg_len < sizeof *h || h->nlmsg_len > *left)
		return NULL;
	step = MIN(MSG_LEN(h->nlmsg_len), *left);
	*at += step;
	*left -= step;
	return h;
}

/* Its payload is that of a struct of len bytes, perhaps with attributes behind it? */
static const void *payload(const struct nlmsghdr *h, size_t len)
{
	return h->nlmsg_len >= NLMSG_HDRLEN + len ? (const uint8_t *)h + NLMSG_HDRLEN : NULL;
}

static int failure(const struct nlmsghdr *h, struct err *err)
{
	const struct nlmsgerr *e = payload(h, sizeof(int));

	if (!e || e->error >= 0 || e->error < -MAX_ERRNO)
		return err_set(err, -EPROTO, "sock_diag: an answer that cannot be understood");
	return err_set(err, e->error, "the kernel does not describe sockets (sock_diag): %m");
}

/* --- unix ------------------------------------------------------------------------------------- */

static uint32_t attr_u32(const struct rtattr *a, size_t at)
{
	uint32_t v = 0;

	if (RTA_PAYLOAD(a) >= at + sizeof v)
		memcpy(&v, (const uint8_t *)RTA_DATA(a) + at, sizeof v);
	return v;
}

static int unix_attr(const struct rtattr *a, struct arena *arena, struct sockdiag_unix *u,
		     struct err *err)
{
	switch (a->rta_type) {
	case UNIX_DIAG_PEER:
		u->has_peer = true;
		u->peer = attr_u32(a, 0);
		break;
	case UNIX_DIAG_VFS:
		u->has_file = true;
		u->file_ino = attr_u32(a, 0);
		u->file_dev = attr_u32(a, 4);
		break;
	case UNIX_DIAG_RQLEN:
		u->rqueue = attr_u32(a, 0);
		u->wqueue = attr_u32(a, 4);
		break;
	case UNIX_DIAG_SHUTDOWN:
		if (RTA_PAYLOAD(a) >= 1)
			u->shutdown = *(const uint8_t *)RTA_DATA(a);
		break;
	case UNIX_DIAG_ICONS:
		u->n_waiting = (unsigned)(RTA_PAYLOAD(a) / sizeof(uint32_t));
		u->waiting = arena_memdup(arena, RTA_DATA(a), u->n_waiting * sizeof(uint32_t));
		if (!u->waiting)
			return err_nomem(err);
		break;
	default:
		break;
	}
	return 0;
}

static int unix_message(const struct nlmsghdr *h, struct arena *arena, struct sockdiag_unix **list,
			unsigned *n, struct err *err)
{
	const struct unix_diag_msg *m = payload(h, sizeof *m);
	struct sockdiag_unix *u = m ? arena_push(arena, list, n, sizeof *u) : NULL;
	const uint8_t *at;
	size_t left;
	int rc = 0;

	if (!m)
		return err_set(err, -EPROTO, "sock_diag: a short answer");
	if (!u)
		return err_nomem(err);
	u->ino = m->udiag_ino;
	u->type = m->udiag_type;
	u->state = m->udiag_state;
	at = (const uint8_t *)m + MSG_LEN(sizeof *m);
	left = h->nlmsg_len - NLMSG_HDRLEN;
	left -= MIN(left, MSG_LEN(sizeof *m));
	while (rc == 0 && left >= sizeof(struct rtattr)) {
		const struct rtattr *a = (const void *)at;
		size_t step = RTA_ALIGN(a->rta_len);

		if (a->rta_len < sizeof *a || a->rta_len > left)
			return err_set(err, -EPROTO, "sock_diag: an attribute that is too long");
		rc = unix_attr(a, arena, u, err);
		at += MIN(step, left);
		left -= MIN(step, left);
	}
	return rc;
}

int sockdiag_unix_parse(const void *buf, size_t len, struct arena *a, struct sockdiag_unix **list,
			unsigned *n, bool *ret_done, struct err *err)
{
	const uint8_t *at = buf;
	const struct nlmsghdr *h;
	int rc = 0;

	while (rc == 0 && (h = next_message(&at, &len))) {
		if (h->nlmsg_flags & NLM_F_DUMP_INTR)
			return err_set(err, -EINTR, "the list of sockets changes all the time");
		if (h->nlmsg_type == NLMSG_DONE) {
			*ret_done = true;
			return 0;
		}
		if (h->nlmsg_type == NLMSG_ERROR)
			return failure(h, err);
		if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY)
			rc = unix_message(h, a, list, n, err);
	}
	return rc;
}

static int ask(const void *req, size_t len, struct nlmsghdr *h, int *ret_fd, struct err *err)
{
	CLEANUP_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	struct iovec iov[2] = { { h, sizeof *h }, { (void *)req, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	h->nlmsg_len = (uint32_t)(sizeof *h + len);
	if (!h->nlmsg_type)
		h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	h->nlmsg_flags |= NLM_F_REQUEST;
	if (fd < 0 || sendmsg(fd, &msg, 0) < 0)
		return err_set(err, -errno, "cannot ask the kernel for its sockets: %m");
	*ret_fd = fd_take(&fd);
	return 0;
}

static int unix_dump(struct arena *a, struct sockdiag_unix **ret, unsigned *ret_n, struct err *err)
{
	struct unix_diag_req req = { .sdiag_family = AF_UNIX,
				     .udiag_states = ALL_STATES,
				     .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_VFS |
						   UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN,
				     .udiag_cookie = { ~0U, ~0U } };
	struct nlmsghdr h = { .nlmsg_flags = NLM_F_DUMP };
	CLEANUP_FREE void *buf = malloc(ANSWER_BYTES);
	CLEANUP_FD int fd = -1;
	bool done = false;
	int rc;

	if (!buf)
		return err_nomem(err);
	rc = ask(&req, sizeof req, &h, &fd, err);
	while (rc == 0 && !done) {
		ssize_t n = recv(fd, buf, ANSWER_BYTES, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, n < 0 ? -errno : -EPROTO,
				       "cannot read the list of sockets: %m");
		rc = sockdiag_unix_parse(buf, (size_t)n, a, ret, ret_n, &done, err);
	}
	return rc;
}

static int by_ino(const void *pa, const void *pb)
{
	const struct sockdiag_unix *a = pa, *b = pb;

	return a->ino < b->ino ? -1 : a->ino > b->ino;
}

int sockdiag_unix_read(struct arena *a, struct sockdiag_unix **ret, unsigned *ret_n,
		       struct err *err)
{
	int rc = -EINTR;

	for (int i = 0; i < DUMP_TRIES && rc == -EINTR; i++) {
		*ret = NULL;
		*ret_n = 0;
		rc = unix_dump(a, ret, ret_n, err);
	}
	if (rc == -ENOENT || rc == -EINVAL || rc == -EPROTONOSUPPORT)
		err_hint(err, "it needs CONFIG_UNIX_DIAG");
	if (rc == 0 && *ret_n)
		qsort(*ret, *ret_n, sizeof **ret, by_ino);
	return rc;
}

const struct sockdiag_unix *sockdiag_unix_find(const struct sockdiag_unix *list, unsigned n,
					       uint64_t ino)
{
	struct sockdiag_unix key = { .ino = (uint32_t)ino };

	return n && ino && ino <= UINT32_MAX ? bsearch(&key, list, n, sizeof *list, by_ino) : NULL;
}

/* --- TCP -------------------------------------------------------------------------------------- */

static int tcp_message(const struct nlmsghdr *h, struct sockdiag_tcp *ret, struct err *err)
{
	const struct inet_diag_msg *m;

	if (h && h->nlmsg_type == NLMSG_ERROR)
		return failure(h, err);
	m = h && h->nlmsg_type == SOCK_DIAG_BY_FAMILY ? payload(h, sizeof *m) : NULL;
	if (!m)
		return err_set(err, -EPROTO, "sock_diag: an answer that cannot be understood");
	*ret = (struct sockdiag_tcp){ .ino = m->idiag_inode,
				      .state = m->idiag_state,
				      .family = m->idiag_family,
				      .rqueue = m->idiag_rqueue,
				      .wqueue = m->idiag_wqueue,
				      .local_port = ntohs(m->id.idiag_sport),
				      .peer_port = ntohs(m->id.idiag_dport),
				      .cookie = { m->id.idiag_cookie[0], m->id.idiag_cookie[1] } };
	memcpy(ret->local, m->id.idiag_src, sizeof ret->local);
	memcpy(ret->peer, m->id.idiag_dst, sizeof ret->peer);
	return 0;
}

int sockdiag_tcp_parse(const void *buf, size_t len, struct sockdiag_tcp *ret, struct err *err)
{
	const uint8_t *at = buf;

	return tcp_message(next_message(&at, &len), ret, err);
}

static void put_address(const struct sockaddr *sa, __be16 *port, __be32 addr[4], uint32_t *ifindex)
{
	if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)sa;

		*port = in6->sin6_port;
		memcpy(addr, &in6->sin6_addr, 16);
		if (in6->sin6_scope_id)
			*ifindex = in6->sin6_scope_id;
	} else {
		const struct sockaddr_in *in = (const void *)sa;

		*port = in->sin_port;
		memcpy(addr, &in->sin_addr, 4);
	}
}

int sockdiag_tcp_find(const struct sockaddr *local, const struct sockaddr *peer,
		      struct sockdiag_tcp *ret, struct err *err)
{
	struct inet_diag_req_v2 req = { .sdiag_family = (uint8_t)local->sa_family,
					.sdiag_protocol = IPPROTO_TCP,
					.idiag_states = ALL_STATES };
	struct nlmsghdr h = { 0 };
	uint8_t buf[8192];
	CLEANUP_FD int fd = -1;
	ssize_t n;
	int rc;

	put_address(local, &req.id.idiag_sport, req.id.idiag_src, &req.id.idiag_if);
	put_address(peer, &req.id.idiag_dport, req.id.idiag_dst, &req.id.idiag_if);
	req.id.idiag_cookie[0] = req.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	rc = ask(&req, sizeof req, &h, &fd, err);
	if (rc < 0)
		return rc;
	n = recv(fd, buf, sizeof buf, 0);
	if (n < 0)
		return err_set(err, -errno, "cannot read what the kernel says of a connection: %m");
	return sockdiag_tcp_parse(buf, (size_t)n, ret, err);
}

int sockdiag_tcp_destroy(const struct sockaddr *local, const struct sockaddr *peer,
			 const struct sockdiag_tcp *which, struct err *err)
{
	struct inet_diag_req_v2 req = { .sdiag_family = (uint8_t)local->sa_family,
					.sdiag_protocol = IPPROTO_TCP,
					.idiag_states = 1u << which->state };
	struct nlmsghdr h = { .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_ACK };
	CLEANUP_FD int fd = -1;

	put_address(local, &req.id.idiag_sport, req.id.idiag_src, &req.id.idiag_if);
	put_address(peer, &req.id.idiag_dport, req.id.idiag_dst, &req.id.idiag_if);
	memcpy(req.id.idiag_cookie, which->cookie, sizeof which->cookie);
	return ask(&req, sizeof req, &h, &fd, err);
}

/* A list of sockets, each given to `take` until that says other than 0; at the end, 0. */
static int tcp_dump(const struct inet_diag_req_v2 *req,
		    int (*take)(void *arg, const struct sockdiag_tcp *s), void *arg,
		    struct err *err)
{
	struct nlmsghdr h = { .nlmsg_flags = NLM_F_DUMP };
	CLEANUP_FREE uint8_t *buf = malloc(ANSWER_BYTES);
	CLEANUP_FD int fd = -1;
	int rc;

	if (!buf)
		return err_nomem(err);
	rc = ask(req, sizeof *req, &h, &fd, err);
	while (rc == 0) {
		ssize_t n = recv(fd, buf, ANSWER_BYTES, 0);
		const struct nlmsghdr *m;
		const uint8_t *at = buf;
		size_t left = (size_t)MAX(n, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, n < 0 ? -errno : -EPROTO,
				       "cannot read the list of connections: %m");
		while (rc == 0 && (m = next_message(&at, &left))) {
			struct sockdiag_tcp s;

			if (m->nlmsg_type == NLMSG_DONE)
				return 0;
			rc = tcp_message(m, &s, err);
			if (rc == 0)
				rc = take(arg, &s);
		}
	}
	return rc;
}

struct wanted {
	uint32_t ino;
	struct sockdiag_tcp *ret;
};

static int take_ino(void *arg, const struct sockdiag_tcp *s)
{
	struct wanted *w = arg;

	if (s->ino != w->ino)
		return 0;
	*w->ret = *s;
	return 1;
}

int sockdiag_tcp_by_ino(int family, uint32_t states, uint32_t ino, struct sockdiag_tcp *ret,
			struct err *err)
{
	const struct inet_diag_req_v2 req = { .sdiag_family = (uint8_t)family,
					      .sdiag_protocol = IPPROTO_TCP,
					      .idiag_states = states };
	struct wanted w = { ino, ret };
	int rc = tcp_dump(&req, take_ino, &w, err);

	if (rc == 0)
		return err_set(err, -ENOENT, "the kernel does not know the connection");
	return rc == 1 ? 0 : rc;
}

struct listed {
	struct arena *a;
	struct sockdiag_tcp **list;
	unsigned *n;
};

static int take_all(void *arg, const struct sockdiag_tcp *s)
{
	const struct listed *l = arg;
	struct sockdiag_tcp *more = arena_push(l->a, l->list, l->n, sizeof *more);

	if (!more)
		return -ENOMEM;
	*more = *s;
	return 0;
}

int sockdiag_tcp_at_port(int family, uint32_t states, unsigned port, struct arena *a,
			 struct sockdiag_tcp **list, unsigned *n, struct err *err)
{
	const struct inet_diag_req_v2 req = { .sdiag_family = (uint8_t)family,
					      .sdiag_protocol = IPPROTO_TCP,
					      .idiag_states = states,
					      .id.idiag_sport = htons((uint16_t)port) };
	struct listed l = { a, list, n };
	int rc = tcp_dump(&req, take_all, &l, err);

	return rc == -ENOMEM ? err_nomem(err) : rc;
}
