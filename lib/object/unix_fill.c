/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Putting back what was unread in unix sockets: it is sent once more, with the descriptors that
 * were on their way, from the end that had sent it.
 *
 * Datagrams come from whoever has the address that they came from; where that is nobody any more,
 * from a socket that takes the address for this. A connected datagram socket takes datagrams from
 * its peer only, so that connecting it comes after.
 */
#include "object/socket.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#define MAX_RIGHTS 253 /* SCM_MAX_FD */

union control {
	struct cmsghdr align;
	char room[CMSG_SPACE(MAX_RIGHTS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

static void put_rights(const struct rebuild *rb, const struct socket_message *m, struct msghdr *msg)
{
	struct cmsghdr *h = (void *)((char *)msg->msg_control + msg->msg_controllen);

	if (!m->n_rights)
		return;
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(m->n_rights * sizeof(int));
	for (unsigned k = 0; k < m->n_rights; k++) {
		int at = file_index(rb->tree, m->rights[k].file);

		memcpy(CMSG_DATA(h) + k * sizeof(int), &rb->file_fds[at], sizeof(int));
	}
	msg->msg_controllen += CMSG_SPACE(m->n_rights * sizeof(int));
}

static void put_creds(const struct socket_message *m, struct msghdr *msg)
{
	struct ucred creds = { .pid = m->pid, .uid = m->uid, .gid = m->gid };
	struct cmsghdr *h = (void *)((char *)msg->msg_control + msg->msg_controllen);

	if (!m->has_creds || m->pid <= 0)
		return;
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_CREDENTIALS;
	h->cmsg_len = CMSG_LEN(sizeof creds);
	memcpy(CMSG_DATA(h), &creds, sizeof creds);
	msg->msg_controllen += CMSG_SPACE(sizeof creds);
}

/* Whose credentials may not be given (nobody has that id yet) sends with our own. */
static ssize_t send_once(const struct rebuild *rb, int fd, const struct socket_message *m,
			 size_t done, const struct blob *to, bool creds)
{
	union control control;
	struct iovec iov = { m->data.data ? m->data.data + done : NULL, m->data.len - done };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control };

	memset(&control, 0, sizeof control);
	if (to) {
		msg.msg_name = to->data;
		msg.msg_namelen = to->len;
	}
	if (!done)
		put_rights(rb, m, &msg);
	if (creds)
		put_creds(m, &msg);
	if (!msg.msg_controllen)
		msg.msg_control = NULL;
	return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int send_all(const struct rebuild *rb, int fd, const struct socket_message *m,
		    const struct blob *to)
{
	size_t done = 0;

	do {
		ssize_t n = send_once(rb, fd, m, done, to, true);

		if (n < 0 && (errno == EPERM || errno == ESRCH || errno == EINVAL))
			n = send_once(rb, fd, m, done, to, false);
		if (n < 0)
			return -errno;
		done += (size_t)n;
	} while (done < m->data.len);
	return 0;
}

static int fail(const struct rebuild *rb, const struct file *f, int code, struct err *err)
{
	errno = -code;
	err_set(err, code, "cannot put what was unread back into a unix socket: %m");
	if (code == -EAGAIN || code == -ENOBUFS)
		err_hint(err, "see /proc/sys/net/core/wmem_max and net/unix/max_dgram_qlen");
	return err_wrap(err, code, "%s", rebuild_file_owner(rb, f));
}

/* --- streams and packets ---------------------------------------------------------------------- */

static int sender_of(const struct rebuild *rb, unsigned i)
{
	const struct file_socket *d = socket_of(&rb->tree->files[i]);
	int at = d->state == SOCKET_CONNECTED ? file_index(rb->tree, d->peer_file) : -1;

	return rb->socket_temps[i] >= 0 ? rb->socket_temps[i] : at >= 0 ? rb->file_fds[at] : -1;
}

static int fill_connected(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;
	int from = sender_of(rb, i), rc = 0, old = -1;

	if (!d->n_messages || from < 0)
		return 0;
	old = socket_int(from, SOL_SOCKET, SO_SNDBUF);
	socket_make_room(from, SO_SNDBUF);
	for (unsigned k = 0; k < d->n_messages && rc == 0; k++)
		rc = send_all(rb, from, &d->messages[k], NULL);
	old /= 2; /* the kernel shows twice what is set */
	if (old > 0)
		(void)setsockopt(from, SOL_SOCKET, SO_SNDBUF, &old, sizeof old);
	return rc < 0 ? fail(rb, f, rc, err) : 0;
}

/* --- datagrams -------------------------------------------------------------------------------- */

static bool is_connected_to(const struct rebuild *rb, unsigned k, const struct file *f)
{
	const struct file_socket *o = socket_of(&rb->tree->files[k]);

	return o && o->state == SOCKET_CONNECTED && o->peer_file == f->id && rb->file_fds[k] >= 0;
}

/* A socket of the tree that has the address m came from, -1: none. */
static int find_sender(const struct rebuild *rb, const struct file *f,
		       const struct socket_message *m)
{
	int found = -1;

	for (unsigned k = 0; k < rb->tree->n_files; k++) {
		const struct file_socket *o = socket_of(&rb->tree->files[k]);

		if (!o || o->family != AF_UNIX || o->type != SOCK_DGRAM || rb->file_fds[k] < 0 ||
		    !blob_same(&o->local, &m->from))
			continue;
		if (is_connected_to(rb, k, f))
			return (int)k;
		if (m->from.len && found < 0)
			found = (int)k;
	}
	return found;
}

/* From a socket that exists for this only. */
static int send_from_new(struct rebuild *rb, const struct file *f, const struct socket_message *m)
{
	const struct file_socket *d = f->detail;
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (m->from.len && bind(fd, (const void *)m->from.data, m->from.len) == 0 &&
	    unix_has_path(&m->from)) {
		struct sockaddr_un sa = { 0 };

		memcpy(&sa, m->from.data, m->from.len);
		(void)unlink(sa.sun_path);
	}
	return send_all(rb, fd, m, &d->local);
}

static int fill_datagram(struct rebuild *rb, unsigned i, const struct socket_message *m)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;
	int k = find_sender(rb, f, m), rc;

	if (k >= 0 && is_connected_to(rb, (unsigned)k, f) && rb->socket_temps[i] < 0) {
		rc = send_all(rb, rb->file_fds[k], m, NULL);
		if (rc != -ENOTCONN)
			return rc;
	}
	if (k >= 0 && d->local.len && !(d->traits & SOCKET_UNLINKED))
		return send_all(rb, rb->file_fds[k], m, &d->local);
	if (rb->socket_temps[i] >= 0)
		return send_all(rb, rb->socket_temps[i], m, NULL);
	return d->local.len ? send_from_new(rb, f, m) : -EDESTADDRREQ;
}

static int fill_datagrams(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;

	for (unsigned k = 0; k < d->n_messages; k++) {
		int rc = fill_datagram(rb, i, &d->messages[k]);

		if (rc < 0)
			return fail(rb, f, rc, err);
	}
	return 0;
}

/* Connected to someone who is not there any more: sending says so, as it did. */
static int connect_to_nobody(int fd)
{
	CLEANUP_FD int nobody = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = sizeof sa.sun_family;

	if (nobody < 0 || bind(nobody, (void *)&sa, len) < 0)
		return -errno;
	len = sizeof sa;
	if (getsockname(nobody, (void *)&sa, &len) < 0 || connect(fd, (void *)&sa, len) < 0)
		return -errno;
	return 0;
}

static int connect_datagram(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;
	static const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	int at = file_index(rb->tree, d->peer_file), fd = rb->file_fds[i], rc = 0;
	const struct file_socket *o = at < 0 ? NULL : socket_of(&rb->tree->files[at]);

	switch (d->state) {
	case SOCKET_CONNECTED:
		if (o && o->local.len && !(o->traits & SOCKET_UNLINKED))
			rc = unix_name_connect(rb, &rb->tree->files[at], fd);
		break;
	case SOCKET_OUTSIDE: /* /dev/log and its like: whoever has that name now */
		if (d->peer.len && connect(fd, (const void *)d->peer.data, d->peer.len) == 0)
			break;
		/* fall through */
	case SOCKET_CLOSED:
		if (rb->socket_temps[i] < 0)
			rc = connect_to_nobody(fd);
		break;
	default:
		if (rb->socket_temps[i] >= 0 && !d->local.len)
			(void)connect(fd, &nowhere, sizeof nowhere);
		break;
	}
	return rc < 0 ? fail(rb, f, rc, err) : 0;
}

/* --- all of them ------------------------------------------------------------------------------ */

/* An end that is closed with something unread in it leaves ECONNRESET behind. */
static void close_temp(struct rebuild *rb, unsigned i)
{
	const struct file_socket *d = socket_of(&rb->tree->files[i]);
	bool reset = d->state == SOCKET_OUTSIDE || (d->traits & SOCKET_ERROR);

	if (reset && d->type != SOCK_DGRAM)
		(void)!send(rb->file_fds[i], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)close(rb->socket_temps[i]);
	rb->socket_temps[i] = -1;
}

int unix_fill(struct rebuild *rb, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_of(&rb->tree->files[i]);

		if (d && d->family == AF_UNIX && rb->file_fds[i] >= 0)
			rc = d->type == SOCK_DGRAM ? fill_datagrams(rb, i, err)
						   : fill_connected(rb, i, err);
	}
	for (unsigned i = 0; i < rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_of(&rb->tree->files[i]);

		if (!d || d->family != AF_UNIX || file_inherited(rb, &rb->tree->files[i]) >= 0)
			continue;
		if (d->type == SOCK_DGRAM)
			rc = connect_datagram(rb, i, err);
		if (rb->socket_temps[i] >= 0)
			close_temp(rb, i);
		if (rc == 0)
			rc = socket_shut(d, rb->file_fds[i], err);
	}
	return rc;
}
