/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Putting back what was unread in TCP and UDP sockets: it is sent once more from the other end.
 *
 * A datagram comes from a socket of the tree with the address that it came from, or from one that
 * has it for this only. While it is sent the receiver is connected to that address, so that nobody
 * else's gets in between, and no other socket of the same port gets it. One from another machine
 * cannot be sent again with its address; it is left out, as datagrams may be.
 */
#include "object/socket.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS    5000
#define MOMENT_NS  500000
#define MOMENTS    10000
#define SPARE_ROOM 65536

static const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };

static int fail(const struct rebuild *rb, const struct file *f, int code, struct err *err)
{
	errno = -code;
	err_set(err, code, "cannot put what was unread back into a socket: %m");
	return err_wrap(err, code, "%s", rebuild_file_owner(rb, f));
}

/* --- TCP -------------------------------------------------------------------------------------- */

static int send_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n < 0 && poll(&p, 1, WAIT_MS) <= 0)
			return -EAGAIN;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* Until all has come over: the end that sent it may be closed hard. */
static int wait_for(int fd, size_t len)
{
	const struct timespec moment = { .tv_nsec = MOMENT_NS };

	for (int i = 0; i < MOMENTS; i++) {
		int there = 0;

		if (ioctl(fd, SIOCINQ, &there) == 0 && (size_t)there >= len)
			return 0;
		(void)nanosleep(&moment, NULL);
	}
	return -ETIMEDOUT;
}

static int fill_tcp(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;
	int at = d->state == SOCKET_CONNECTED ? file_index(rb->tree, d->peer_file) : -1,
	    from = rb->socket_temps[i] >= 0 ? rb->socket_temps[i]
		   : at >= 0                ? rb->file_fds[at]
					    : -1;
	int want, one = 1, rc = 0;
	size_t total = 0;

	if (!d->n_messages || from < 0)
		return 0;
	for (unsigned k = 0; k < d->n_messages; k++)
		total += d->messages[k].data.len;
	/* it grows the buffer, without fixing its size */
	want = (int)MIN(total + SPARE_ROOM, (size_t)1 << 30);
	(void)setsockopt(rb->file_fds[i], SOL_SOCKET, SO_RCVLOWAT, &want, sizeof want);
	(void)setsockopt(rb->file_fds[i], SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
	(void)setsockopt(from, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
	for (unsigned k = 0; k < d->n_messages && rc == 0; k++)
		rc = send_all(from, d->messages[k].data.data, d->messages[k].data.len);
	if (rc == 0)
		rc = wait_for(rb->file_fds[i], total);
	return rc < 0 ? fail(rb, f, rc, err) : 0;
}

/* The other end goes as it did: with the last of its data, or hard. */
static int end_tcp(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;
	const struct linger hard = { .l_onoff = 1 };
	bool reset = d->state == SOCKET_OUTSIDE || (d->traits & SOCKET_ERROR);

	if (rb->socket_temps[i] >= 0) {
		if (reset)
			(void)setsockopt(rb->socket_temps[i], SOL_SOCKET, SO_LINGER, &hard,
					 sizeof hard);
		else if (d->state == SOCKET_RESET)
			(void)shutdown(rb->file_fds[i], SHUT_WR);
		(void)close(rb->socket_temps[i]);
		rb->socket_temps[i] = -1;
	}
	if (d->state == SOCKET_LISTENING || d->state == SOCKET_PLAIN || reset)
		return 0;
	/* a failure shows at the next call, as it would have */
	if (d->state == SOCKET_CONNECTING)
		(void)!connect(rb->file_fds[i], (const void *)d->peer.data, d->peer.len);
	return socket_shut(d, rb->file_fds[i], err);
}

/* --- UDP -------------------------------------------------------------------------------------- */

static int find_sender(const struct rebuild *rb, const struct socket_message *m)
{
	for (unsigned k = 0; k < rb->tree->n_files; k++) {
		const struct file_socket *o = socket_of(&rb->tree->files[k]);

		if (o && socket_is_inet(o) && o->type == SOCK_DGRAM && rb->file_fds[k] >= 0 &&
		    inet_same(&o->local, &m->from))
			return rb->file_fds[k];
	}
	return -1;
}

/* Where the receiver is reached: it is connected for the moment, so its address is a definite one.
 */
static int own_address(int fd, struct sockaddr_storage *room, struct blob *ret)
{
	socklen_t len = sizeof *room;

	if (getsockname(fd, (void *)room, &len) < 0)
		return -errno;
	*ret = (struct blob){ (void *)room, len };
	return 0;
}

static int send_datagram(const struct rebuild *rb, const struct file_socket *d, int fd,
			 const struct socket_message *m)
{
	struct sockaddr_storage room;
	CLEANUP_FD int made = -1;
	int from = find_sender(rb, m), on = 1, rc;
	struct blob to = { 0 };

	if (from < 0) {
		from = made = socket((int)d->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (made < 0)
			return -errno;
		(void)setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (bind(made, (const void *)m->from.data, m->from.len) < 0)
			return 0; /* from another machine, or the port is taken */
	}
	if (connect(fd, (const void *)m->from.data, m->from.len) < 0)
		return 0;
	rc = own_address(fd, &room, &to);
	if (rc == 0 && sendto(from, m->data.data, m->data.len, MSG_DONTWAIT | MSG_NOSIGNAL,
			      (void *)&room, to.len) < 0)
		rc = errno == EISCONN || errno == EPERM ? 0 : -errno;
	(void)connect(fd, &nowhere, sizeof nowhere);
	return rc;
}

static int fill_udp(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;
	int fd = rb->file_fds[i], rc = 0;

	for (unsigned k = 0; k < d->n_messages && rc == 0; k++)
		if (d->messages[k].from.len && d->local.len)
			rc = send_datagram(rb, d, fd, &d->messages[k]);
	return rc < 0 ? fail(rb, f, rc, err) : 0;
}

static int connect_udp(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;

	if (!d->peer.len || connect(rb->file_fds[i], (const void *)d->peer.data, d->peer.len) == 0)
		return 0;
	err_set(err, -errno, "cannot connect a UDP socket to %s: %m",
		inet_text(rb->arena, &d->peer));
	return err_wrap(err, err ? err->code : -EIO, "%s", rebuild_file_owner(rb, f));
}

/* --- all of them ------------------------------------------------------------------------------ */

static int each(struct rebuild *rb, uint32_t type,
		int (*fn)(struct rebuild *rb, unsigned i, struct err *err), struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_of(&rb->tree->files[i]);

		if (d && socket_is_inet(d) && d->type == type && rb->file_fds[i] >= 0 &&
		    file_inherited(rb, &rb->tree->files[i]) < 0)
			rc = fn(rb, i, err);
	}
	return rc;
}

int inet_fill(struct rebuild *rb, struct err *err)
{
	int rc = each(rb, SOCK_STREAM, fill_tcp, err);

	if (rc == 0)
		rc = each(rb, SOCK_STREAM, end_tcp, err);
	if (rc == 0)
		rc = each(rb, SOCK_DGRAM, fill_udp, err);
	return rc < 0 ? rc : each(rb, SOCK_DGRAM, connect_udp, err);
}
