/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making unix sockets, connected as they were.
 *
 * A connection without names is a socketpair. An end that accept gave has the name of the socket
 * that listened, so it has to come from there: from the tree's own listening socket if that is
 * there, else from one that exists for this only. An end that was closed, or is not in the tree, is
 * made too and goes when what it had sent is back in the queue (unix_fill.c).
 *
 * Names that have no file any more are dealt with before those that have: both may be one path.
 */
#include "object/socket.h"

#include <fcntl.h>
#include <unistd.h>

#define MANY_WAITING 4096

struct making {
	struct rebuild *rb;
	bool *named; /* parallel to tree->files: has its name, or gets none of its own */
};

static const struct file *file_at(const struct making *m, unsigned i)
{
	return &m->rb->tree->files[i];
}

static int fail(const struct making *m, unsigned i, int code, struct err *err, const char *what)
{
	errno = -code;
	err_set(err, code, "cannot %s: %m", what);
	return err_wrap(err, code, "%s", rebuild_file_owner(m->rb, file_at(m, i)));
}

static int new_socket(const struct making *m, unsigned i, int *ret, struct err *err)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	int fd = socket(AF_UNIX, (int)d->type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return fail(m, i, -errno, err, "make a unix socket");
	*ret = fd;
	return 0;
}

/* The number of the other end, -1: it is not made here. */
static int other_end(const struct making *m, unsigned i)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	int at = d->state == SOCKET_CONNECTED ? file_index(m->rb->tree, d->peer_file) : -1;

	return at >= 0 && at != (int)i && m->rb->file_fds[at] < 0 ? at : -1;
}

/* Takes both ends: of file number i and of its other end, or one that is there for a while. */
static int keep_pair(struct making *m, unsigned i, int *fd, int *other_fd, struct err *err)
{
	int other = other_end(m, i), rc = socket_keep(m->rb, i, fd, err);

	if (rc < 0)
		return rc;
	return other >= 0 ? socket_keep(m->rb, (unsigned)other, other_fd, err)
			  : socket_keep_temp(m->rb, i, other_fd, err);
}

/* --- names ------------------------------------------------------------------------------------ */

static int give_name(struct making *m, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	int rc;

	if (m->named[i])
		return 0;
	m->named[i] = true;
	if (!d->local.len)
		return 0;
	rc = unix_name_bind(m->rb, file_at(m, i), m->rb->file_fds[i], err);
	return rc < 0 ? err_wrap(err, rc, "%s", rebuild_file_owner(m->rb, file_at(m, i))) : 0;
}

/* --- connections through a listening socket --------------------------------------------------- */

/* The connection that has just been asked for as that peer: others may ask at the same time. */
static int accept_own(int listener, const struct unix_peer *peer)
{
	for (;;) {
		struct ucred who = { 0 };
		socklen_t len = sizeof who;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return -errno;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
		    (who.pid == getpid() || who.pid == peer->pid))
			return fd;
		(void)close(fd);
	}
}

/* File number i is an end that accept gave, through listener, which has the name of file `name`. */
static int make_accepted(struct making *m, unsigned i, int listener, const struct file *name,
			 struct err *err)
{
	CLEANUP_FD int fd = -1;
	CLEANUP_FD int accepted = -1;
	const struct unix_peer who = unix_peer_of(socket_of(file_at(m, i)));
	int other = other_end(m, i), rc = new_socket(m, i, &fd, err);

	if (rc == 0 && other >= 0) {
		rc = socket_keep(m->rb, (unsigned)other, &fd, err);
		if (rc == 0)
			rc = give_name(m, (unsigned)other, err);
	} else if (rc == 0) {
		rc = socket_keep_temp(m->rb, i, &fd, err);
	}
	if (rc < 0)
		return rc;
	rc = unix_connect_as(m->rb, &who, name,
			     other >= 0 ? m->rb->file_fds[other] : m->rb->socket_temps[i]);
	if (rc < 0)
		return fail(m, i, rc, err, "connect a unix socket again");
	accepted = accept_own(listener, &who);
	if (accepted < 0)
		return fail(m, i, accepted, err, "accept a connection again");
	m->named[i] = true;
	return socket_keep(m->rb, i, &accepted, err);
}

/* All that were accepted under this name. */
static int make_all_accepted(struct making *m, int listener, const struct file *name,
			     struct err *err)
{
	const struct file_socket *l = name->detail;
	int rc = 0;

	for (unsigned i = 0; i < m->rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_to_make(m->rb, i, AF_UNIX);

		if (d && (d->traits & SOCKET_ACCEPTED) && d->type == l->type &&
		    blob_same(&d->local, &l->local))
			rc = make_accepted(m, i, listener, name, err);
	}
	return rc;
}

/* The connecting ends of what accept has not taken, in their order. */
static int make_waiting(struct making *m, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	int rc;

	for (unsigned k = 0; k < d->n_waiting; k++) {
		int at = file_index(m->rb->tree, d->waiting[k].file);
		struct unix_peer who = unix_peer_holder(m->rb->tree, d->waiting[k].file);

		rc = give_name(m, (unsigned)at, err);
		if (rc < 0)
			return rc;
		rc = unix_connect_as(m->rb, &who, file_at(m, i), m->rb->file_fds[at]);
		if (rc < 0)
			return fail(m, (unsigned)at, rc, err, "connect a unix socket again");
	}
	return 0;
}

static int make_listening(struct making *m, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	const struct unix_peer who = unix_peer_of(d);
	int fd = m->rb->file_fds[i],
	    rc = unix_listen_as(m->rb, &who, fd, MAX(MANY_WAITING, (int)d->backlog));

	if (rc < 0)
		return fail(m, i, rc, err, "listen on a unix socket");
	rc = make_all_accepted(m, fd, file_at(m, i), err);
	if (rc == 0) /* a connection that waits for accept has them from here */
		rc = socket_options_put(d, fd, err);
	if (rc == 0)
		rc = make_waiting(m, i, err);
	if (rc < 0)
		return rc;
	rc = unix_listen_as(m->rb, &who, fd, (int)d->backlog);
	return rc < 0 ? fail(m, i, rc, err, "listen on a unix socket") : 0;
}

/* Those whose listening socket has gone. */
static int make_orphans(struct making *m, unsigned i, struct err *err)
{
	const struct file *f = file_at(m, i);
	int other = other_end(m, i);
	/* who listened is what the end that connected sees */
	const struct unix_peer who =
		unix_peer_of(other < 0 ? socket_of(f) : socket_of(file_at(m, (unsigned)other)));
	CLEANUP_FD int fd = -1;
	int rc = new_socket(m, i, &fd, err);

	if (rc == 0)
		rc = unix_name_bind(m->rb, f, fd, err);
	if (rc < 0)
		return rc;
	rc = unix_listen_as(m->rb, &who, fd, MANY_WAITING);
	if (rc < 0)
		return fail(m, i, rc, err, "listen on a unix socket");
	rc = make_all_accepted(m, fd, f, err);
	return rc < 0 ? rc : unix_name_drop(m->rb, f, err);
}

/* --- everything else -------------------------------------------------------------------------- */

static int make_pair(struct making *m, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	CLEANUP_FD int a = -1;
	CLEANUP_FD int b = -1;
	const struct unix_peer who = unix_peer_of(d);
	int fds[2], rc = unix_pair_as(m->rb, &who, (int)d->type, fds);

	if (rc < 0)
		return fail(m, i, rc, err, "make a pair of unix sockets");
	a = fds[0];
	b = fds[1];
	return keep_pair(m, i, &a, &b, err);
}

/* Both are connected to each other: so a socketpair, and no name is needed. */
static bool is_mutual(const struct making *m, unsigned i)
{
	int other = other_end(m, i);

	return other >= 0 && socket_of(file_at(m, (unsigned)other))->peer_file == file_at(m, i)->id;
}

/* A datagram socket without a name can be reached by an end that it is connected to only. */
static bool needs_helper(const struct file_socket *d)
{
	return d->type == SOCK_DGRAM && !d->local.len &&
	       (d->n_messages || d->state == SOCKET_CLOSED || d->state == SOCKET_OUTSIDE);
}

static bool is_end(const struct file_socket *d)
{
	return d->type != SOCK_DGRAM && (d->state == SOCKET_CONNECTED ||
					 d->state == SOCKET_CLOSED || d->state == SOCKET_OUTSIDE);
}

static int make_plain(struct making *m, unsigned i, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int rc = new_socket(m, i, &fd, err);

	return rc < 0 ? rc : socket_keep(m->rb, i, &fd, err);
}

/* All but those that come from accept. */
static int make_bare(struct making *m, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < m->rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_to_make(m->rb, i, AF_UNIX);
		int other;

		if (!d || (d->traits & SOCKET_ACCEPTED))
			continue;
		other = other_end(m, i);
		if (is_end(d) && other >= 0 &&
		    (socket_of(file_at(m, (unsigned)other))->traits & SOCKET_ACCEPTED))
			continue;
		rc = is_end(d) || needs_helper(d) || (d->type == SOCK_DGRAM && is_mutual(m, i))
			     ? make_pair(m, i, err)
			     : make_plain(m, i, err);
	}
	return rc;
}

/* A name that goes at once is of use only now. */
static int use_fading_name(struct making *m, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	CLEANUP_FD int fd = -1;
	int rc;

	if (d->type != SOCK_DGRAM)
		return 0;
	for (unsigned k = 0; k < m->rb->tree->n_files; k++) {
		const struct file_socket *o = socket_of(file_at(m, k));

		if (!o || o->family != AF_UNIX || o->peer_file != file_at(m, i)->id || k == i ||
		    m->rb->file_fds[k] < 0 || is_mutual(m, k))
			continue;
		rc = unix_name_connect(m->rb, file_at(m, i), m->rb->file_fds[k]);
		if (rc < 0)
			return fail(m, k, rc, err, "connect a unix socket again");
	}
	if (!d->n_messages || m->rb->socket_temps[i] >= 0)
		return 0;
	rc = new_socket(m, i, &fd, err);
	if (rc == 0)
		rc = unix_name_connect(m->rb, file_at(m, i), fd);
	return rc < 0 ? fail(m, i, rc, err, "reach a unix socket")
		      : socket_keep_temp(m->rb, i, &fd, err);
}

static int use_name(struct making *m, unsigned i, struct err *err)
{
	const struct file_socket *d = socket_of(file_at(m, i));
	int rc = give_name(m, i, err);

	if (rc == 0 && d->state == SOCKET_LISTENING)
		rc = make_listening(m, i, err);
	if (rc == 0 && (d->traits & SOCKET_UNLINKED))
		rc = use_fading_name(m, i, err);
	return rc < 0 ? rc : unix_name_drop(m->rb, file_at(m, i), err);
}

static int make_named(struct making *m, bool fading, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < m->rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_of(file_at(m, i));

		if (d && d->family == AF_UNIX && d->local.len && !m->named[i] &&
		    m->rb->file_fds[i] >= 0 && !(d->traits & SOCKET_ACCEPTED) &&
		    !!(d->traits & SOCKET_UNLINKED) == fading)
			rc = use_name(m, i, err);
	}
	for (unsigned i = 0; i < m->rb->tree->n_files && rc == 0; i++) {
		const struct file_socket *d = socket_to_make(m->rb, i, AF_UNIX);

		if (d && (d->traits & SOCKET_ACCEPTED) && !!(d->traits & SOCKET_UNLINKED) == fading)
			rc = make_orphans(m, i, err);
	}
	return rc;
}

int unix_make(struct rebuild *rb, struct err *err)
{
	CLEANUP_FREE bool *named = calloc(rb->tree->n_files + 1, sizeof *named);
	struct making m = { .rb = rb, .named = named };
	int rc;

	if (!named)
		return err_nomem(err);
	for (unsigned i = 0; i < rb->tree->n_files; i++) /* --inherit */
		named[i] = rb->file_fds[i] >= 0;
	rc = make_bare(&m, err);
	if (rc == 0)
		rc = make_named(&m, true, err);
	return rc < 0 ? rc : make_named(&m, false, err);
}
