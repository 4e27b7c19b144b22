/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets: the row in the table of kinds, and what is looked at before any file is captured.
 *
 * A survey comes first, since it decides what the tree holds: descriptors on their way in queues
 * become files of the tree, and whether a standard stream leads outside depends on who has its
 * other end. What cannot be restored is only noted then, for it does not matter of a standard
 * stream.
 */
#include "object/socket.h"

#include "proc/refusals.h"
#include "util/fault.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#define ADDRESS_MAX sizeof(struct sockaddr_storage)

int socket_int(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof value;

	return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

short socket_poll(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

bool blob_put(struct arena *a, struct blob *b, const void *data, size_t len)
{
	b->data = arena_memdup(a, data, len);
	b->len = (uint32_t)len;
	return b->data != NULL;
}

void socket_refuse(struct socket_seen *s, int code, const char *why, const char *hint)
{
	if (s->code)
		return;
	s->code = code;
	s->why = why;
	s->hint = hint;
}

bool socket_leads_outside(const struct open_file *of)
{
	return S_ISSOCK(of->st.st_mode) && (!of->sock || of->sock->ours || of->sock->foreign);
}

/* --- capture ---------------------------------------------------------------------------------- */

static bool is_supported(const struct file_socket *d)
{
	return refusal_knows_socket(d->family, d->type, d->protocol);
}

static uint64_t netns_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof cookie;

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

static int look_at_names(struct capture *c, int fd, struct file_socket *d, struct err *err)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof sa;

	if (getsockname(fd, (void *)&sa, &len) == 0 && len > sizeof(sa_family_t) &&
	    !blob_put(c->arena, &d->local, &sa, MIN(len, sizeof sa)))
		return err_nomem(err);
	len = sizeof sa;
	if (getpeername(fd, (void *)&sa, &len) == 0 && len > sizeof(sa_family_t) &&
	    !blob_put(c->arena, &d->peer, &sa, MIN(len, sizeof sa)))
		return err_nomem(err);
	return 0;
}

static int look_at(struct sockets *s, unsigned i, const struct inode_list *own, struct err *err)
{
	struct open_file *of = &s->c->open_files[i];
	struct socket_seen *seen = arena_alloc(s->c->arena, sizeof *seen);
	struct file_socket *d = arena_alloc(s->c->arena, sizeof *d);

	if (!seen || !d)
		return err_nomem(err);
	d->family = (uint32_t)socket_int(of->dup, SOL_SOCKET, SO_DOMAIN);
	d->type = (uint32_t)socket_int(of->dup, SOL_SOCKET, SO_TYPE);
	d->protocol = (uint32_t)socket_int(of->dup, SOL_SOCKET, SO_PROTOCOL);
	if (!is_supported(d))
		return 0;
	seen->d = d;
	seen->ours = inode_listed(own, &of->st);
	of->sock = seen;
	if (s->netns && netns_cookie(of->dup) != s->netns) {
		socket_refuse(seen, -EOPNOTSUPP, "a socket of another network namespace",
			      refusal_hint_netns);
		return 0;
	}
	return look_at_names(s->c, of->dup, d, err);
}

/* Queues may hold sockets with queues: the table grows while it is walked. */
static int look_at_all(struct sockets *s, const struct inode_list *own, bool *ret_any,
		       struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < s->c->n_open_files; i++) {
		const struct open_file *of = &s->c->open_files[i];

		if (!S_ISSOCK(of->st.st_mode) || (of->flags & O_PATH))
			continue;
		if (!*ret_any) {
			CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

			*ret_any = true;
			s->netns = fd < 0 ? 0 : netns_cookie(fd);
		}
		rc = look_at(s, i, own, err);
		of = &s->c->open_files[i];
		if (rc < 0 || !of->sock || of->sock->code)
			continue;
		/* What TCP has not passed on yet is passed on first: inet_survey. */
		if (socket_is_inet(of->sock->d))
			rc = inet_look(s->c, i, err);
		else if (of->sock->d->family == AF_NETLINK)
			rc = netlink_look(s->c, i, err);
		else
			rc = socket_queue_capture(s->c, i, err);
	}
	return rc;
}

int sockets_survey(struct capture *c, const struct inode_list *own, struct err *err)
{
	struct sockets s = { .c = c };
	bool any = false;
	int rc = look_at_all(&s, own, &any, err);

	if (rc == 0 && any)
		rc = fault_point("sockets_survey", err);
	if (rc == 0 && any)
		rc = unix_survey(&s, err);
	if (rc == 0 && any)
		rc = inet_survey(&s, err);
	idmap_fini(&s.files);
	idmap_fini(&s.waiting);
	return rc;
}

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return of->sock != NULL;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	const struct socket_seen *s = of->sock;

	if (s->code) {
		fd_error(of, err, s->code, "%s%s", s->why,
			 s->code == -EOPNOTSUPP ? " is not supported" : "");
		if (s->hint)
			err_hint(err, "%s", s->hint);
		return s->code;
	}
	f->path = s->path;
	f->detail = s->d;
	return socket_options_capture(c, of, err);
}

/* --- restore: what an image may not say ------------------------------------------------------- */

static bool address_is_sane(const struct file_socket *d, const struct blob *b)
{
	sa_family_t family;

	if (!b->len)
		return true;
	if (b->len < sizeof family || b->len > ADDRESS_MAX || !b->data)
		return false;
	memcpy(&family, b->data, sizeof family);
	if (family != d->family)
		return false;
	switch (family) {
	case AF_INET:
		return b->len == sizeof(struct sockaddr_in);
	case AF_INET6:
		return b->len == sizeof(struct sockaddr_in6);
	case AF_NETLINK:
		return b->len == sizeof(struct sockaddr_nl);
	default:
		return b->len <= sizeof(struct sockaddr_un);
	}
}

static bool refers_to_socket(const struct rebuild *rb, const struct file_socket *d, uint32_t id)
{
	int at = file_index(rb->tree, id);
	const struct file_socket *o = at < 0 ? NULL : socket_of(&rb->tree->files[at]);

	return o && o->type == d->type &&
	       (o->family == d->family || (socket_is_inet(o) && socket_is_inet(d)));
}

static bool messages_are_sane(const struct rebuild *rb, const struct file_socket *d)
{
	for (unsigned i = 0; i < d->n_messages; i++) {
		const struct socket_message *m = &d->messages[i];

		if (!address_is_sane(d, &m->from) || m->n_rights > 253)
			return false;
		for (unsigned k = 0; k < m->n_rights; k++)
			if (file_index(rb->tree, m->rights[k].file) < 0)
				return false;
	}
	return true;
}

static bool is_sane(const struct rebuild *rb, const struct file *f)
{
	const struct file_socket *d = f->detail;
	bool connected = d->state == SOCKET_CONNECTED || d->state == SOCKET_WAITING,
	     by_address = socket_is_inet(d) && d->type == SOCK_DGRAM,
	     needs_peer = connected && !by_address;

	if (!is_supported(d) || d->state < SOCKET_PLAIN || d->state > SOCKET_RESET ||
	    !address_is_sane(d, &d->local) || !address_is_sane(d, &d->peer))
		return false;
	if (needs_peer && (d->peer_file == f->id || !refers_to_socket(rb, d, d->peer_file)))
		return d->type == SOCK_DGRAM && d->peer_file == f->id;
	for (unsigned i = 0; i < d->n_waiting; i++)
		if (!refers_to_socket(rb, d, d->waiting[i].file))
			return false;
	if (d->type == SOCK_STREAM && socket_is_inet(d) && d->state != SOCKET_PLAIN &&
	    !d->local.len)
		return false;
	if ((connected || d->state == SOCKET_CONNECTING) && socket_is_inet(d) && !d->peer.len)
		return false;
	if (d->family == AF_UNIX && unix_has_path(&d->local) && (!f->path || f->path[0] != '/'))
		return false;
	return messages_are_sane(rb, d);
}

static int check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_socket *d = f->detail;

	if (!is_sane(rb, f))
		return err_image(err, -EINVAL, "the image describes a socket that cannot be");
	if (d->family == AF_UNIX)
		return unix_name_check(rb, f, err);
	return socket_is_inet(d) ? inet_check(rb, f, err) : 0;
}

/* --- restore: making them --------------------------------------------------------------------- */

struct file_socket *socket_to_make(const struct rebuild *rb, unsigned i, int family)
{
	struct file_socket *d = socket_of(&rb->tree->files[i]);

	return d && d->family == (uint32_t)family && rb->file_fds[i] < 0 ? d : NULL;
}

int socket_keep(struct rebuild *rb, unsigned i, int *fd, struct err *err)
{
	int rc = lift_fd(rb, fd, err);

	if (rc == 0)
		rb->file_fds[i] = fd_take(fd);
	return rc;
}

int socket_keep_temp(struct rebuild *rb, unsigned i, int *fd, struct err *err)
{
	int rc = lift_fd(rb, fd, err);

	if (rc == 0)
		rb->socket_temps[i] = fd_take(fd);
	return rc;
}

int socket_shut(const struct file_socket *d, int fd, struct err *err)
{
	if ((d->traits & SOCKET_SHUT_WRITE) && shutdown(fd, SHUT_WR) < 0 && errno != ENOTCONN)
		return err_set(err, -errno, "cannot shut down a socket for writing: %m");
	if ((d->traits & SOCKET_SHUT_READ) && shutdown(fd, SHUT_RD) < 0 && errno != ENOTCONN)
		return err_set(err, -errno, "cannot shut down a socket for reading: %m");
	return 0;
}

static bool any_sockets(const struct tree *t)
{
	for (unsigned i = 0; i < t->n_files; i++)
		if (t->files[i].kind == FILE_SOCKET)
			return true;
	return false;
}

int sockets_make(struct rebuild *rb, struct err *err)
{
	int rc;

	if (!any_sockets(rb->tree))
		return 0;
	rb->socket_temps = arena_array(rb->arena, rb->tree->n_files, sizeof *rb->socket_temps);
	if (!rb->socket_temps)
		return err_nomem(err);
	for (unsigned i = 0; i < rb->tree->n_files; i++)
		rb->socket_temps[i] = -1;
	rc = fault_point("sockets_make", err);
	if (rc == 0)
		rc = unix_make(rb, err);
	if (rc == 0)
		rc = netlink_make(rb, err);
	return rc < 0 ? rc : inet_make(rb, err);
}

int sockets_fill(struct rebuild *rb, struct err *err)
{
	int rc;

	if (!any_sockets(rb->tree))
		return 0;
	rc = fault_point("sockets_fill", err);
	if (rc == 0)
		rc = unix_fill(rb, err);
	if (rc == 0)
		rc = inet_fill(rb, err);
	for (unsigned i = 0; rc == 0 && i < rb->tree->n_files; i++) {
		const struct file *f = &rb->tree->files[i];

		if (!socket_of(f) || rb->file_fds[i] < 0 || file_inherited(rb, f) >= 0)
			continue;
		rc = socket_options_put(f->detail, rb->file_fds[i], err);
		if (rc < 0)
			return err_wrap(err, rc, "%s", rebuild_file_owner(rb, f));
	}
	return rc;
}

/* All sockets were made together: here is one that was not. */
static int open_socket(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	(void)rb;
	(void)ret_fd;
	return err_image(err, -EINVAL, "socket %u belongs to no connection", f->id);
}

const struct file_ops socket_ops = {
	.kind = FILE_SOCKET,
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_socket,
};
