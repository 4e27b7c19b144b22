/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making TCP connections with the addresses that they had at both ends.
 *
 * One end listens on its own address for a moment, the other connects from its own. When a job is
 * killed, an end may stay behind in TIME_WAIT for a minute and keep its port from being bound; that
 * is ended first (tcp_leftovers.c). Where it cannot be, connecting is allowed all the same, a
 * second after the last packet (tcp_tw_reuse, which is on for the loopback device), if the kernel
 * chooses the port: it gets a range of one to choose from.
 *
 * Ends whose other end is not in the tree are made likewise; only if their address cannot be had
 * they get another, since all that comes of them is an error.
 */
#include "object/socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif

#define FEW        32
#define APART_NS   10000000 /* more than a tick of any kernel */
#define CONNECT_MS 8000
#define TRIES      60 /* of TRY_NS each: longer than a TIME_WAIT that may be reused */
#define TRY_NS     50000000

static int wait_connected(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int rc = poll(&p, 1, CONNECT_MS);

	if (rc == 0)
		return -ETIMEDOUT;
	rc = rc < 0 ? -errno : -socket_int(fd, SOL_SOCKET, SO_ERROR);
	return rc;
}

static int tcp_connect(int fd, const struct blob *to)
{
	const struct timespec moment = { .tv_nsec = TRY_NS };
	int flags = fcntl(fd, F_GETFL), rc = -EADDRNOTAVAIL;

	(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	for (int try = 0; try < TRIES && rc == -EADDRNOTAVAIL; try++) {
		if (try)
			(void)nanosleep(&moment, NULL);
		rc = connect(fd, (const void *)to->data, to->len) < 0 ? -errno : 0;
		if (rc == -EINPROGRESS)
			rc = wait_connected(fd);
	}
	(void)fcntl(fd, F_SETFL, flags);
	return rc;
}

int tcp_choose_port(int fd, const struct blob *from)
{
	unsigned port = inet_port(from);
	uint32_t range = port << 16 | port;
	struct sockaddr_storage sa = { 0 };
	int on = 1, off = 0;

	memcpy(&sa, from->data, from->len);
	((struct sockaddr_in *)(void *)&sa)->sin_port = 0; /* at the same place in sockaddr_in6 */
	if (setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof range) < 0)
		return -EADDRINUSE;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof off);
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
	if (bind(fd, (void *)&sa, from->len) < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &off, sizeof off);
	return 0;
}

static void forget_range(int fd)
{
	uint32_t none = 0;

	(void)setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &none, sizeof none);
}

/* from: where it must come from; NULL: anywhere. */
static int connect_from(const struct rebuild *rb, int fd, const struct blob *from,
			const struct blob *to)
{
	int rc = from ? inet_bind(rb, from, fd) : 0;

	if (rc == -EADDRINUSE)
		rc = tcp_choose_port(fd, from);
	if (rc == 0)
		rc = tcp_connect(fd, to);
	if (from)
		forget_range(fd);
	return rc;
}

static int listen_at(const struct rebuild *rb, const struct file_socket *d, const struct blob *at,
		     int *ret, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int rc = inet_socket(d, &fd, err);

	if (rc == 0)
		rc = inet_bind(rb, at, fd);
	if (rc < 0)
		return rc;
	if (listen(fd, 16) < 0)
		return -errno;
	*ret = fd_take(&fd);
	return 0;
}

/* The connection that comes from there: someone else may connect at the same moment. */
static int accept_from(int listener, int connecting)
{
	struct sockaddr_storage want, sa;
	socklen_t len = sizeof want;

	if (getsockname(connecting, (void *)&want, &len) < 0)
		return -errno;
	for (;;) {
		struct blob a = { (void *)&want, len }, b = { (void *)&sa, 0 };
		socklen_t got = sizeof sa;
		int fd = accept4(listener, (void *)&sa, &got, SOCK_CLOEXEC);

		if (fd < 0)
			return -errno;
		b.len = got;
		if (inet_same(&a, &b))
			return fd;
		(void)close(fd);
	}
}

static int failed(const struct rebuild *rb, const struct file *f, int code, struct err *err)
{
	const struct file_socket *d = f->detail;

	errno = -code;
	err_set(err, code, "cannot make the connection of %s to %s again: %m",
		inet_text(rb->arena, &d->local), inet_text(rb->arena, &d->peer));
	if (code == -EADDRINUSE || code == -EADDRNOTAVAIL)
		err_hint(err, "another program has the port, or the connection that was killed has "
			      "it for a minute: try again");
	return err_wrap(err, code, "%s", rebuild_file_owner(rb, f));
}

/* a listens at its address, b connects to it from its own. */
static int join(const struct rebuild *rb, const struct file_socket *a, const struct file_socket *b,
		int *ret_a, int *ret_b, struct err *err)
{
	CLEANUP_FD int listener = -1;
	CLEANUP_FD int fd = -1;
	int rc = listen_at(rb, a, &a->local, &listener, err), accepted;

	if (rc == 0)
		rc = inet_socket(b, &fd, err);
	if (rc == 0)
		rc = connect_from(rb, fd, &b->local, &b->peer);
	if (rc < 0)
		return rc;
	accepted = accept_from(listener, fd);
	if (accepted < 0)
		return accepted;
	*ret_a = accepted;
	*ret_b = fd_take(&fd);
	return 0;
}

static int make_pair(struct rebuild *rb, unsigned i, unsigned k, struct err *err)
{
	const struct file_socket *a = socket_of(&rb->tree->files[i]),
				 *b = socket_of(&rb->tree->files[k]);
	bool swap = (b->traits & SOCKET_ACCEPTED) && !(a->traits & SOCKET_ACCEPTED);
	CLEANUP_FD int fa = -1;
	CLEANUP_FD int fb = -1;
	int rc;

	tcp_leftover_end(rb, a);
	tcp_leftover_end(rb, b);
	rc = swap ? join(rb, b, a, &fb, &fa, err) : join(rb, a, b, &fa, &fb, err);
	if (rc == -EADDRINUSE) /* the other way round? */
		rc = swap ? join(rb, a, b, &fa, &fb, err) : join(rb, b, a, &fb, &fa, err);
	if (rc < 0)
		return failed(rb, &rb->tree->files[i], rc, err);
	rc = socket_keep(rb, i, &fa, err);
	return rc < 0 ? rc : socket_keep(rb, k, &fb, err);
}

/* --- ends without another --------------------------------------------------------------------- */

/* Some port of the loopback device, in the family of d. */
static struct blob loopback(const struct file_socket *d, struct sockaddr_storage *room)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	if (d->family == AF_INET6)
		memcpy(room, &in6, sizeof in6);
	else
		memcpy(room, &in, sizeof in);
	return (struct blob){ (void *)room, d->family == AF_INET6 ? sizeof in6 : sizeof in };
}

/* Where the socket that listens has come to lie. */
static int address_of(int fd, struct sockaddr_storage *room, struct blob *ret)
{
	socklen_t len = sizeof *room;

	if (getsockname(fd, (void *)room, &len) < 0)
		return -errno;
	*ret = (struct blob){ (void *)room, len };
	return 0;
}

/* The other end only has to be where it was if what it sent ends as it did, without an error. */
static int make_end(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(&rb->tree->files[i]);
	struct sockaddr_storage room;
	struct blob at;
	CLEANUP_FD int listener = -1;
	CLEANUP_FD int helper = -1;
	CLEANUP_FD int end = -1;
	int rc = listen_at(rb, d, &d->local, &listener, err);

	if (rc < 0) {
		at = loopback(d, &room);
		rc = listen_at(rb, d, &at, &listener, err);
	}
	if (rc == 0)
		rc = address_of(listener, &room, &at);
	if (rc == 0)
		rc = inet_socket(d, &helper, err);
	if (rc == 0)
		rc = connect_from(rb, helper, d->state == SOCKET_CLOSED ? &d->peer : NULL, &at);
	if (rc < 0 && d->state == SOCKET_CLOSED && helper >= 0) {
		(void)close(fd_take(&helper));
		rc = inet_socket(d, &helper, err);
		if (rc == 0)
			rc = connect_from(rb, helper, NULL, &at);
	}
	if (rc == 0)
		rc = end = accept_from(listener, helper);
	if (rc < 0)
		return failed(rb, &rb->tree->files[i], rc, err);
	rc = socket_keep(rb, i, &end, err);
	return rc < 0 ? rc : socket_keep_temp(rb, i, &helper, err);
}

int tcp_make_connections(struct rebuild *rb, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_of(&rb->tree->files[i]);
		int k;

		if (!d || !socket_is_inet(d) || d->type != SOCK_STREAM || rb->file_fds[i] >= 0 ||
		    d->state == SOCKET_WAITING)
			continue;
		if (d->tcp.known && d->state == SOCKET_OUTSIDE && rb->opts &&
		    rb->opts->tcp_repair) {
			rc = tcp_repair_make(rb, i, err);
			continue;
		}
		k = d->state == SOCKET_CONNECTED ? file_index(rb->tree, d->peer_file) : -1;
		if (k >= 0 && rb->file_fds[k] < 0 &&
		    socket_of(&rb->tree->files[k])->state == SOCKET_CONNECTED)
			rc = make_pair(rb, i, (unsigned)k, err);
		else
			rc = make_end(rb, i, err);
	}
	return rc;
}

/* Their sockets are there already, so that each listening one finds its own in order. */
int tcp_make_waiting(struct rebuild *rb, struct err *err)
{
	const struct timespec apart = { .tv_nsec = APART_NS };

	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file_socket *l = socket_of(&rb->tree->files[i]);

		for (unsigned k = 0; l && socket_is_inet(l) && k < l->n_waiting; k++) {
			int at = file_index(rb->tree, l->waiting[k].file), rc;
			const struct file_socket *d = socket_of(&rb->tree->files[at]);
			CLEANUP_FD int fd = -1;

			if (rb->file_fds[at] >= 0) /* --inherit */
				continue;
			/* who came first is known by the time only, at the next checkpoint */
			if (k && l->n_waiting <= FEW)
				(void)nanosleep(&apart, NULL);
			rc = inet_socket(d, &fd, err);
			if (rc < 0)
				return rc;
			rc = connect_from(rb, fd, &d->local, &d->peer);
			if (rc < 0)
				return failed(rb, &rb->tree->files[at], rc, err);
			rc = socket_keep(rb, (unsigned)at, &fd, err);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}
