/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making TCP and UDP sockets: first all that are bound, so that their ports are theirs; then
 * connections (tcp_make.c), through sockets that listen on the same port for a moment, which works
 * as long as no other socket listens there; then those of the tree listen.
 */
#include "object/socket.h"

#include <netinet/in.h>
#include <unistd.h>

static bool is_tcp(const struct file_socket *d)
{
	return d->type == SOCK_STREAM;
}

int inet_socket(const struct file_socket *d, int *ret, struct err *err)
{
	CLEANUP_FD int fd = socket((int)d->family, (int)d->type | SOCK_CLOEXEC, (int)d->protocol);
	int on = 1, rc;

	if (fd < 0)
		return err_set(err, -errno, "cannot make a socket: %m");
	rc = socket_options_early(d, fd, err);
	if (rc < 0)
		return rc;
	/* Several share a port while they are made; what was set comes back at the end. */
	if (is_tcp(d) && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		return err_set(err, -errno, "cannot set SO_REUSEADDR: %m");
	*ret = fd_take(&fd);
	return 0;
}

static int bind_failed(const struct rebuild *rb, const struct file_socket *d, int code,
		       struct err *err)
{
	const char *where = inet_text(rb->arena, &d->local), *proto = is_tcp(d) ? "TCP" : "UDP";
	unsigned port = inet_port(&d->local);

	errno = -code;
	switch (code) {
	case -EADDRINUSE:
		err_set(err, code, "port %u is in use by another program (%s %s)", port, proto,
			where);
		err_hint(err, "see: ss -%snp 'sport = :%u'", is_tcp(d) ? "ta" : "ua", port);
		break;
	case -EADDRNOTAVAIL:
		err_set(err, code, "this machine has not got the address of %s %s", proto, where);
		break;
	case -EACCES:
		err_set(err, code, "cannot use %s %s: %m", proto, where);
		err_hint(err,
			 "ports below %u are for root; see net.ipv4.ip_unprivileged_port_start",
			 1024);
		break;
	default:
		err_set(err, code, "cannot use %s %s: %m", proto, where);
		break;
	}
	return code;
}

/* Has it a port of its own that must be had? */
static bool is_bound(const struct file_socket *d)
{
	return inet_port(&d->local) && d->state != SOCKET_CONNECTING &&
	       (!is_tcp(d) || d->state == SOCKET_LISTENING || d->state == SOCKET_PLAIN);
}

int inet_check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_socket *d = f->detail;
	CLEANUP_FD int fd = -1;
	int rc;

	if (!is_bound(d))
		return 0;
	rc = inet_socket(d, &fd, err);
	if (rc < 0)
		return rc;
	/* A job that was killed just now may not have let go of its port yet. */
	rc = inet_bind_patiently(rb, &d->local, fd);
	return rc < 0 ? bind_failed(rb, d, rc, err) : 0;
}

static int make_bound(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(&rb->tree->files[i]);
	CLEANUP_FD int fd = -1;
	int rc = inet_socket(d, &fd, err);

	if (rc < 0)
		return rc;
	if (is_bound(d))
		rc = inet_bind(rb, &d->local, fd);
	if (rc < 0)
		return bind_failed(rb, d, rc, err);
	return socket_keep(rb, i, &fd, err);
}

static bool stands_alone(const struct file_socket *d)
{
	return !is_tcp(d) || d->state == SOCKET_LISTENING || d->state == SOCKET_PLAIN ||
	       d->state == SOCKET_CONNECTING;
}

static int listen_all(struct rebuild *rb, struct err *err)
{
	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file *f = &rb->tree->files[i];
		const struct file_socket *d = socket_of(f);
		int rc;

		if (!d || !socket_is_inet(d) || d->state != SOCKET_LISTENING ||
		    file_inherited(rb, f) >= 0)
			continue;
		if (listen(rb->file_fds[i], (int)d->backlog) < 0)
			return err_wrap(err, bind_failed(rb, d, -errno, err), "%s",
					rebuild_file_owner(rb, f));
		/* a connection that waits for accept has them from here */
		rc = socket_options_put(d, rb->file_fds[i], err);
		if (rc < 0)
			return err_wrap(err, rc, "%s", rebuild_file_owner(rb, f));
	}
	return 0;
}

int inet_make(struct rebuild *rb, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_of(&rb->tree->files[i]);

		if (!d || !socket_is_inet(d) || rb->file_fds[i] >= 0 || !stands_alone(d))
			continue;
		rc = make_bound(rb, i, err);
		if (rc < 0)
			return err_wrap(err, rc, "%s", rebuild_file_owner(rb, &rb->tree->files[i]));
	}
	if (rc == 0)
		rc = tcp_make_connections(rb, err);
	if (rc == 0)
		rc = listen_all(rb, err);
	return rc < 0 ? rc : tcp_make_waiting(rb, err);
}
