/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP and UDP sockets: their states, and who is connected to whom.
 *
 * Both ends of a connection in the tree are found by their addresses. What one has sent and the
 * other has no room for stays in the sender's queue, where it cannot be read; so the receiver's
 * buffer is made larger until all has come over, as the kernel itself makes it larger while a
 * program reads: SO_RCVLOWAT grows it, and looking at the data tells the sender.
 */
#include "object/socket.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* netinet/tcp.h and linux/tcp.h do not go together. */
enum {
	ESTABLISHED = 1,
	SYN_SENT,
	SYN_RECV,
	FIN_WAIT1,
	FIN_WAIT2,
	TIME_WAIT,
	CLOSE,
	CLOSE_WAIT,
	LAST_ACK,
	LISTEN,
	CLOSING
};

#define PASS_ON_TRIES 400
#define PASS_ON_NS    250000

static bool tcp_info(int fd, struct tcp_info *ret)
{
	socklen_t len = sizeof *ret;

	memset(ret, 0, sizeof *ret);
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &len) == 0;
}

static bool is_inet(const struct socket_seen *s, int type)
{
	return s && !s->code && socket_is_inet(s->d) && s->d->type == (uint32_t)type;
}

/* --- one socket ------------------------------------------------------------------------------- */

static bool has_urgent(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) > 0;
}

static bool has_ulp(int fd)
{
	char name[16] = "";
	socklen_t len = sizeof name;

	return getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &len) == 0 && len && name[0];
}

static bool fin_was_sent(uint32_t state)
{
	return state == FIN_WAIT1 || state == FIN_WAIT2 || state == CLOSING || state == LAST_ACK;
}

static bool fin_has_come(uint32_t state)
{
	return state == CLOSE_WAIT || state == CLOSING || state == LAST_ACK;
}

static int look_connecting(struct capture *c, const struct open_file *of, struct file_socket *d,
			   struct err *err)
{
	struct sockdiag_tcp diag;
	int rc = sockdiag_tcp_by_ino((int)d->family, 1 << SYN_SENT, (uint32_t)of->st.st_ino, &diag,
				     err);

	/* a thread that waits in connect(2) makes the call again */
	d->state = rc == 0 && (of->flags & O_NONBLOCK) ? SOCKET_CONNECTING : SOCKET_PLAIN;
	if (rc < 0 && rc != -ENOENT)
		return rc;
	if (d->state == SOCKET_PLAIN) {
		d->local.len = 0;
		return 0;
	}
	if (d->family == AF_INET6) {
		struct sockaddr_in6 sa = { .sin6_family = AF_INET6,
					   .sin6_port = htons(diag.peer_port) };

		memcpy(&sa.sin6_addr, diag.peer, 16);
		return blob_put(c->arena, &d->peer, &sa, sizeof sa) ? 0 : err_nomem(err);
	}
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(diag.peer_port) };

	memcpy(&sa.sin_addr, diag.peer, 4);
	return blob_put(c->arena, &d->peer, &sa, sizeof sa) ? 0 : err_nomem(err);
}

static int look_tcp(struct capture *c, unsigned i, struct err *err)
{
	const struct open_file *of = &c->open_files[i];
	struct socket_seen *s = of->sock;
	struct file_socket *d = s->d;
	short shows = socket_poll(of->dup);
	struct tcp_info info;

	s->local_port = inet_port(&d->local);
	s->peer_port = inet_port(&d->peer);
	if (!tcp_info(of->dup, &info))
		return fd_error(of, err, -errno, "cannot ask for the state of the connection: %m");
	s->tcp = info.tcpi_state;
	s->age_ms = info.tcpi_last_ack_recv;
	if (shows & POLLERR)
		d->traits |= SOCKET_ERROR;
	if (s->tcp == LISTEN) {
		d->state = SOCKET_LISTENING;
		d->backlog = info.tcpi_sacked; /* of a listening socket: how many may wait */
		return 0;
	}
	if (s->tcp == SYN_SENT)
		return look_connecting(c, of, d, err);
	if (s->tcp == CLOSE) {
		d->state = shows & (POLLERR | POLLRDHUP) ? SOCKET_RESET : SOCKET_PLAIN;
		return 0;
	}
	d->state = SOCKET_OUTSIDE; /* until the other end is found */
	if (fin_was_sent(s->tcp))
		d->traits |= SOCKET_SHUT_WRITE;
	if ((shows & POLLRDHUP) && !fin_has_come(s->tcp))
		d->traits |= SOCKET_SHUT_READ;
	if (s->tcp == SYN_RECV)
		socket_refuse(s, -EAGAIN, "a connection that is being made", NULL);
	if (has_urgent(of->dup))
		socket_refuse(s, -EOPNOTSUPP, "a TCP connection with urgent data in it", NULL);
	if (has_ulp(of->dup))
		socket_refuse(s, -EOPNOTSUPP, "a TCP connection with TLS in the kernel", NULL);
	return 0;
}

int inet_look(struct capture *c, unsigned i, struct err *err)
{
	struct file_socket *d = c->open_files[i].sock->d;
	int rc;

	if (d->type == SOCK_STREAM)
		return look_tcp(c, i, err);
	d->state = d->peer.len ? SOCKET_CONNECTED : SOCKET_PLAIN;
	if (!inet_port(&d->local))
		d->local.len = 0;
	rc = multicast_capture(c, &c->open_files[i], err);
	return rc < 0 ? rc : socket_queue_capture(c, i, err);
}

/* --- passing on ------------------------------------------------------------------------------- */

/* What is held back to be sent in larger pieces goes now. */
static void push(int fd)
{
	int on = 1, off = 0, corked = socket_int(fd, IPPROTO_TCP, TCP_CORK),
	    eager = socket_int(fd, IPPROTO_TCP, TCP_NODELAY);

	if (corked > 0) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
	}
	if (eager == 0) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &off, sizeof off);
	}
}

static void widen(int fd, int want)
{
	int low = socket_int(fd, SOL_SOCKET, SO_RCVLOWAT), buf;
	char c;

	if (low >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &want, sizeof want) == 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
	buf = socket_int(fd, SOL_SOCKET, SO_RCVBUF);
	/* a size that the program has set itself does not grow so */
	if (buf >= 0 && buf < want) {
		want += want / 2;
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &want, sizeof want);
	}
	(void)recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
}

/* Has `to` received all that `from` was given to send? */
static bool all_came(int from, int to)
{
	int queued = 0, unsent = 0;
	struct tcp_info a, b;
	uint64_t sent;

	if (ioctl(from, SIOCOUTQNSD, &unsent) < 0 || unsent > 0)
		return false;
	if (ioctl(from, SIOCOUTQ, &queued) == 0 && queued == 0)
		return true; /* and acknowledged */
	if (!tcp_info(from, &a) || !tcp_info(to, &b))
		return false;
	sent = a.tcpi_bytes_sent - a.tcpi_bytes_retrans;
	return b.tcpi_bytes_received == sent ||
	       (fin_has_come(b.tcpi_state) && b.tcpi_bytes_received == sent + 1);
}

static bool pass_on(int from, int to)
{
	const struct timespec moment = { .tv_nsec = PASS_ON_NS };

	for (int try = 0; try < PASS_ON_TRIES; try++) {
		int unsent = 0, unread = 0, buf = socket_int(to, SOL_SOCKET, SO_RCVBUF);

		if (all_came(from, to))
			return true;
		push(from);
		if (ioctl(from, SIOCOUTQ, &unsent) == 0 && ioctl(to, SIOCINQ, &unread) == 0 &&
		    (try == 0 || unsent + unread > buf / 2))
			widen(to, unsent + unread + 65536);
		if (try)
			(void)nanosleep(&moment, NULL);
	}
	return false;
}

/* --- who is connected to whom ----------------------------------------------------------------- */

struct linking {
	struct capture *c;
	struct idmap by_ports; /* the first file whose ports these are: connections only */
	uint32_t *listening;   /* files, ascending */
	unsigned n_listening;
};

static int32_t ports(unsigned local, unsigned peer)
{
	return (int32_t)(local << 16 | peer);
}

static int index_ports(struct linking *l, struct err *err)
{
	for (unsigned i = l->c->n_open_files; i-- > 0;) {
		struct socket_seen *s = l->c->open_files[i].sock;

		if (!is_inet(s, SOCK_STREAM) || !s->d->peer.len ||
		    !ports(s->local_port, s->peer_port))
			continue;
		(void)idmap_get(&l->by_ports, ports(s->local_port, s->peer_port), &s->same_ports);
		if (idmap_put(&l->by_ports, ports(s->local_port, s->peer_port), i + 1) < 0)
			return err_nomem(err);
	}
	for (unsigned i = 0; i < l->c->n_open_files; i++) {
		const struct socket_seen *s = l->c->open_files[i].sock;
		uint32_t *slot;

		if (!is_inet(s, SOCK_STREAM) || s->d->state != SOCKET_LISTENING)
			continue;
		slot = arena_push(l->c->arena, &l->listening, &l->n_listening, sizeof *slot);
		if (!slot)
			return err_nomem(err);
		*slot = i + 1;
	}
	return 0;
}

static uint32_t find_other(const struct linking *l, unsigned i)
{
	const struct socket_seen *s = l->c->open_files[i].sock;
	const struct file_socket *d = s->d;
	uint32_t k = 0;

	(void)idmap_get(&l->by_ports, ports(s->peer_port, s->local_port), &k);
	for (; k; k = l->c->open_files[k - 1].sock->same_ports) {
		const struct socket_seen *o = l->c->open_files[k - 1].sock;

		if (k != i + 1 && !o->code && inet_same(&o->d->local, &d->peer) &&
		    inet_same(&o->d->peer, &d->local))
			return k;
	}
	return 0;
}

static uint32_t find_listener(const struct linking *l, const struct blob *addr)
{
	uint32_t found = 0;

	for (unsigned k = 0; k < l->n_listening; k++) {
		const struct blob *local = &l->c->open_files[l->listening[k] - 1].sock->d->local;

		if (!inet_reaches(local, addr))
			continue;
		/* the one with the address itself goes before one with any */
		if (!found || !inet_is_any(local))
			found = l->listening[k];
	}
	return found;
}

static void wait_in_queue(struct capture *c, unsigned i, uint32_t listener,
			  const struct sockdiag_tcp *diag)
{
	struct socket_seen *s = c->open_files[i].sock;
	int unsent = 0;

	s->d->state = SOCKET_WAITING;
	s->d->peer_file = listener;
	(void)ioctl(c->open_files[i].dup, SIOCOUTQNSD, &unsent);
	if (diag->rqueue || unsent)
		socket_refuse(s, -EAGAIN, "data sent on a connection that accept has not taken yet",
			      "it can be read after accept only");
}

static void link_one(const struct linking *l, unsigned i)
{
	struct socket_seen *s = l->c->open_files[i].sock;
	struct file_socket *d = s->d;
	struct sockdiag_tcp diag;
	struct err ignored;
	uint32_t listener;

	d->peer_file = find_other(l, i);
	if (find_listener(l, &d->local))
		d->traits |= SOCKET_ACCEPTED;
	if (d->peer_file) {
		d->state = SOCKET_CONNECTED;
		return;
	}
	/* the other end, if it is on this machine */
	if (sockdiag_tcp_find((const void *)d->peer.data, (const void *)d->local.data, &diag,
			      &ignored) == 0) {
		listener = find_listener(l, &d->peer);
		if (!diag.ino && listener && !fin_was_sent(diag.state))
			wait_in_queue(l->c, i, listener, &diag);
		else if (!diag.ino && fin_has_come(s->tcp))
			d->state = SOCKET_CLOSED;
	}
	s->foreign = d->state == SOCKET_OUTSIDE;
}

/* Who came first is known to a millisecond. */
static int enqueue(struct capture *c, unsigned i, struct err *err)
{
	const struct socket_seen *s = c->open_files[i].sock;
	struct file_socket *l = c->open_files[s->d->peer_file - 1].sock->d;
	struct socket_right *w = arena_push(c->arena, &l->waiting, &l->n_waiting, sizeof *w);
	unsigned k = l->n_waiting - 1;

	if (!w)
		return err_nomem(err);
	while (k > 0) {
		const struct open_file *before = &c->open_files[l->waiting[k - 1].file - 1];

		if (before->sock->age_ms > s->age_ms ||
		    (before->sock->age_ms == s->age_ms &&
		     before->st.st_ino < c->open_files[i].st.st_ino))
			break;
		l->waiting[k] = l->waiting[k - 1];
		k--;
	}
	l->waiting[k].file = i + 1;
	return 0;
}

static int take_queue(struct capture *c, unsigned i, struct err *err)
{
	struct socket_seen *s = c->open_files[i].sock;
	struct file_socket *d = s->d;
	int rc;

	if (d->state == SOCKET_CONNECTED &&
	    !pass_on(c->open_files[d->peer_file - 1].dup, c->open_files[i].dup)) {
		socket_refuse(s, -EAGAIN, "data on its way that does not arrive", NULL);
		return 0;
	}
	rc = socket_queue_capture(c, i, err);
	return rc < 0 ? rc : tcp_repair_capture(c, &c->open_files[i], err);
}

static bool is_connection(const struct socket_seen *s)
{
	return is_inet(s, SOCK_STREAM) &&
	       (s->d->state == SOCKET_OUTSIDE || s->d->state == SOCKET_RESET);
}

int inet_survey(struct sockets *s, struct err *err)
{
	struct capture *c = s->c;
	struct linking l = { .c = c };
	int rc = index_ports(&l, err);

	for (unsigned i = 0; i < c->n_open_files && rc == 0; i++)
		if (is_connection(c->open_files[i].sock) && c->open_files[i].sock->d->peer.len)
			link_one(&l, i);
	idmap_fini(&l.by_ports);
	for (unsigned i = 0; i < c->n_open_files && rc == 0; i++)
		if (is_inet(c->open_files[i].sock, SOCK_STREAM) &&
		    c->open_files[i].sock->d->state == SOCKET_WAITING)
			rc = enqueue(c, i, err);
	for (unsigned i = 0; i < c->n_open_files && rc == 0; i++)
		if (is_inet(c->open_files[i].sock, SOCK_STREAM) &&
		    c->open_files[i].sock->d->state != SOCKET_LISTENING &&
		    c->open_files[i].sock->d->state != SOCKET_PLAIN)
			rc = take_queue(c, i, err);
	return rc;
}
