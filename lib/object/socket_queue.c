/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is unread in a socket, with its boundaries and the descriptors on their way.
 *
 * MSG_PEEK leaves everything where it is, and gives us descriptors of our own for those in the
 * queue. It shows the first message only, unless SO_PEEK_OFF says where to begin; that is set on
 * the socket itself, so it is put back at once (by the job, should we be killed), and it is not set
 * at all for a stream without descriptors in it, which can be had in one piece.
 *
 * In a stream, a read goes on into a message that brings descriptors and ends with it. Where that
 * begins is found by a read whose last byte has no memory to go to: it ends before the message that
 * does not fit.
 */
#include "object/socket.h"

#include "util/fault.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_RIGHTS 256

struct peeked {
	ssize_t len;
	struct sockaddr_storage from;
	socklen_t from_len;
	int rights[MAX_RIGHTS];
	unsigned n_rights;
	bool has_creds;
	struct ucred creds;
};

struct queue {
	struct capture *c;
	unsigned i; /* number of the description */
	int fd;
	struct file_socket *d;
	uint8_t *buf;
	size_t size;
};

static void drop_rights(struct peeked *p)
{
	for (unsigned k = 0; k < p->n_rights; k++)
		if (p->rights[k] >= 0)
			(void)close(p->rights[k]);
	p->n_rights = 0;
}

static void take_control(struct msghdr *msg, struct peeked *p)
{
	for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
		size_t len = m->cmsg_len - CMSG_LEN(0);

		if (m->cmsg_level != SOL_SOCKET)
			continue;
		if (m->cmsg_type == SCM_CREDENTIALS && len >= sizeof p->creds) {
			memcpy(&p->creds, CMSG_DATA(m), sizeof p->creds);
			p->has_creds = true;
		} else if (m->cmsg_type == SCM_RIGHTS) {
			for (size_t k = 0; k < len / sizeof(int) && p->n_rights < MAX_RIGHTS; k++)
				memcpy(&p->rights[p->n_rights++], CMSG_DATA(m) + k * sizeof(int),
				       sizeof(int));
		} else if (m->cmsg_type == 4 /* SCM_PIDFD */ && len >= sizeof(int)) {
			int pidfd;

			memcpy(&pidfd, CMSG_DATA(m), sizeof pidfd);
			if (pidfd >= 0)
				(void)close(pidfd);
		}
	}
}

/* Up to len bytes from the place that SO_PEEK_OFF says, or the front. */
static int peek(const struct queue *q, size_t len, struct peeked *p)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(MAX_RIGHTS * sizeof(int)) + 256];
	} control;
	struct iovec iov = { q->buf, len };
	struct msghdr msg = { .msg_name = &p->from,
			      .msg_namelen = sizeof p->from,
			      .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof control };

	memset(p, 0, sizeof *p);
	/* MSG_TRUNC gives a datagram's whole length, but would throw a TCP stream's bytes away */
	p->len = recvmsg(q->fd, &msg,
			 MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC |
				 (q->d->type == SOCK_STREAM ? 0 : MSG_TRUNC));
	if (p->len < 0)
		return -errno;
	p->from_len = msg.msg_namelen;
	take_control(&msg, p);
	return 0;
}

static int peek_at(const struct queue *q, size_t off, size_t len, struct peeked *p)
{
	int at = (int)off;

	if (off > INT_MAX || setsockopt(q->fd, SOL_SOCKET, SO_PEEK_OFF, &at, sizeof at) < 0)
		return off > INT_MAX ? -EOVERFLOW : -errno;
	return peek(q, len, p);
}

/* The sender's id as the job sees it; one that has ended has none. Asked for once: sockets are many
 * more than processes. */
int32_t socket_job_pid(struct capture *c, pid_t pid)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_status st = { 0 };
	uint32_t known;

	if (pid <= 0)
		return 0;
	if (idmap_get(&c->job_pids, pid, &known))
		return (int32_t)known;
	if (proc_open_pid(pid, &dirfd, NULL) < 0 ||
	    proc_status_read(dirfd, c->arena, &st, NULL) < 0)
		st.ns_tgid = 0;
	(void)idmap_put(&c->job_pids, pid, (uint32_t)st.ns_tgid);
	return st.ns_tgid;
}

/* Takes the descriptors of p over. */
static int add_message(const struct queue *q, const uint8_t *data, size_t len, struct peeked *p,
		       struct err *err)
{
	struct arena *a = q->c->arena;
	struct socket_message *m = arena_push(a, &q->d->messages, &q->d->n_messages, sizeof *m);

	if (!m || !blob_put(a, &m->data, data, len))
		return err_nomem(err);
	if (q->d->type == SOCK_DGRAM && p->from_len > sizeof(sa_family_t) &&
	    !blob_put(a, &m->from, &p->from, p->from_len))
		return err_nomem(err);
	if (p->has_creds) {
		m->has_creds = 1;
		m->pid = socket_job_pid(q->c, p->creds.pid);
		m->uid = p->creds.uid;
		m->gid = p->creds.gid;
	}
	for (unsigned k = 0; k < p->n_rights; k++) {
		struct socket_right *r;
		int id = flight_add(q->c, q->i, p->rights[k], err);

		p->rights[k] = -1;
		if (id < 0)
			return id;
		r = arena_push(a, &m->rights, &m->n_rights, sizeof *r);
		if (!r)
			return err_nomem(err);
		r->file = (uint32_t)id;
	}
	return 0;
}

static int failed(const struct queue *q, int rc, struct err *err)
{
	return fd_error(&q->c->open_files[q->i], err, rc, "cannot look at what is unread: %m");
}

/* --- streams ---------------------------------------------------------------------------------- */

/* A read of len bytes at off ends with a message that brings descriptors: where does that begin? */
static int find_rights(const struct queue *q, size_t off, size_t len, size_t *ret)
{
	struct iovec iov[2] = { { q->buf, len - 1 }, { NULL, 1 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	int at = (int)off;
	ssize_t n;

	if (setsockopt(q->fd, SOL_SOCKET, SO_PEEK_OFF, &at, sizeof at) < 0)
		return -errno;
	n = recvmsg(q->fd, &msg, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && errno != EFAULT)
		return -errno;
	*ret = off + (n > 0 ? (size_t)n : 0);
	return 0;
}

static int peek_pieces(const struct queue *q, size_t unread, struct err *err)
{
	size_t off = 0, at = 0;
	int rc = 0;

	while (off < unread && rc == 0) {
		struct peeked p, none = { 0 };
		size_t len;

		rc = peek_at(q, off, unread - off, &p);
		if (rc < 0 || p.len == 0)
			return failed(q, rc < 0 ? rc : -EAGAIN, err);
		len = (size_t)p.len;
		at = off;
		if (p.n_rights) {
			rc = find_rights(q, off, len, &at); /* reads the same bytes again */
			if (rc < 0) {
				drop_rights(&p);
				return failed(q, rc, err);
			}
		}
		none.has_creds = p.has_creds;
		none.creds = p.creds;
		if (at > off)
			rc = add_message(q, q->buf, at - off, &none, err);
		if (rc == 0)
			rc = add_message(q, q->buf + (at - off), off + len - at, &p, err);
		drop_rights(&p);
		off += len;
	}
	return rc;
}

/* From here on the job would put SO_PEEK_OFF back; one on its way in another socket has no number
 * in the job. */
static int begin_moving(const struct queue *q, int old_off, struct err *err)
{
	const struct open_file *of = &q->c->open_files[q->i];

	return of->carrier >= 0 ? 0
				: batch_undo_option(of->subject->batch, of->fd, SOL_SOCKET,
						    SO_PEEK_OFF, old_off, err);
}

static int end_moving(const struct queue *q, int rc, int old_off, struct err *err)
{
	const struct open_file *of = &q->c->open_files[q->i];
	int end = 0;

	if (rc == 0)
		rc = fault_point("capture-peeked", err);
	(void)setsockopt(q->fd, SOL_SOCKET, SO_PEEK_OFF, &old_off, sizeof old_off);
	if (of->carrier < 0)
		end = batch_undone(of->subject->batch, rc < 0 ? NULL : err);
	return rc < 0 ? rc : end;
}

static int capture_stream(struct queue *q, size_t unread, int old_off, struct err *err)
{
	struct peeked p;
	bool whole;
	int rc;

	if (old_off < 0) {
		rc = peek(q, unread, &p);
		if (rc < 0)
			return failed(q, rc, err);
		whole = (size_t)p.len == unread && !p.n_rights;
		if (whole)
			return add_message(q, q->buf, unread, &p, err);
		drop_rights(&p);
	}
	rc = begin_moving(q, old_off, err);
	return rc < 0 ? rc : end_moving(q, peek_pieces(q, unread, err), old_off, err);
}

/* --- datagrams and packets -------------------------------------------------------------------- */

static int make_room(struct queue *q, size_t len)
{
	uint8_t *more = realloc(q->buf, len);

	if (!more)
		return -ENOMEM;
	q->buf = more;
	q->size = len;
	return 0;
}

/*
 * A message of no bytes that was looked at before is passed over where SO_PEEK_OFF is set: the
 * kernel marks it. Without, the first message of all can be seen even so. *ret: that one has no
 * bytes.
 */
static int peek_first_empty(struct queue *q, bool *ret, struct err *err)
{
	const int none = -1;
	struct peeked p;
	int rc = setsockopt(q->fd, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof none) < 0
			 ? -errno
			 : peek(q, q->size, &p);

	if (rc < 0)
		return rc == -EAGAIN || rc == -EWOULDBLOCK ? 0 : failed(q, rc, err);
	*ret = p.len == 0;
	if (*ret)
		rc = add_message(q, q->buf, 0, &p, err);
	drop_rights(&p);
	return rc;
}

static int peek_packets(struct queue *q, struct err *err)
{
	bool empty = false;
	int rc = peek_first_empty(q, &empty, err);
	bool first = !empty;
	size_t off = 0;

	while (rc == 0) {
		struct peeked p;

		rc = peek_at(q, off, q->size, &p);
		if (rc == -EAGAIN || rc == -EWOULDBLOCK)
			return 0;
		if (rc < 0)
			return failed(q, rc, err);
		if (p.len == 0 && q->d->type == SOCK_SEQPACKET && !p.n_rights && !first &&
		    (socket_poll(q->fd) & POLLRDHUP))
			return 0; /* the end */
		if ((size_t)p.len > q->size) {
			drop_rights(&p);
			if (make_room(q, (size_t)p.len) < 0)
				return err_nomem(err);
			continue;
		}
		rc = add_message(q, q->buf, (size_t)p.len, &p, err);
		drop_rights(&p);
		off += (size_t)p.len;
		first = false;
	}
	return rc;
}

static int capture_packets(struct queue *q, int old_off, struct err *err)
{
	int rc = begin_moving(q, old_off, err);

	return rc < 0 ? rc : end_moving(q, peek_packets(q, err), old_off, err);
}

/* --- all of them ------------------------------------------------------------------------------ */

int socket_queue_capture(struct capture *c, unsigned i, struct err *err)
{
	struct socket_seen *s = c->open_files[i].sock;
	struct queue q = { .c = c, .i = i, .fd = c->open_files[i].dup, .d = s->d };
	int unread = 0, off, rc;
	bool has_end;
	short shows;

	if (socket_int(q.fd, SOL_SOCKET, SO_ACCEPTCONN) > 0)
		return 0;
	shows = socket_poll(q.fd);
	if (shows & POLLERR)
		q.d->traits |= SOCKET_ERROR;
	if (!(shows & POLLIN) || ioctl(q.fd, SIOCINQ, &unread) < 0)
		return 0;
	/* With nothing to read, looking for it would take the error, or see the end. Packets may
	 * have no bytes. */
	has_end = shows & (POLLERR | POLLHUP | POLLRDHUP);
	if (unread <= 0 && (q.d->type == SOCK_STREAM || (q.d->type == SOCK_SEQPACKET && has_end)))
		return 0;
	if (socket_is_inet(q.d) && q.d->type == SOCK_DGRAM && (shows & POLLERR))
		return 0; /* looking would take the error; datagrams may be lost */
	if (q.d->type == SOCK_DGRAM && (shows & POLLERR)) {
		socket_refuse(s, -EAGAIN, "a unix socket with an error that nobody has read", NULL);
		return 0;
	}
	off = socket_int(q.fd, SOL_SOCKET, SO_PEEK_OFF);
	rc = make_room(&q, MAX((size_t)unread, 4096u));
	if (rc < 0)
		return err_nomem(err);
	rc = q.d->type == SOCK_STREAM ? capture_stream(&q, (size_t)unread, off, err)
				      : capture_packets(&q, off, err);
	free(q.buf);
	return rc;
}
