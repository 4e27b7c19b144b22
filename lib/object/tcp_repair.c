/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP connections to another machine that stay open (--tcp repair), where CAP_NET_ADMIN allows it.
 *
 * A socket under TCP_REPAIR lets its sequence numbers, queues, window and options be read; a new
 * one is given them, and takes the connection's place. The other end knows nothing of it, so this
 * works only as long as it has not heard anything else meanwhile: the job must end with its
 * checkpoint (--kill, --on-term checkpoint), and then its sockets stay under repair, so that
 * closing them says nothing. What the other end sends before the restart must be dropped by a
 * firewall, or is answered by a reset.
 */
#include "object/socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ESTABLISHED    1
#define OPT_MSS        2
#define OPT_WINDOW     3
#define OPT_SACK       4
#define OPT_TIMESTAMP  8
#define REPAIR_OFF     0
#define REPAIR_ON      1
#define REPAIR_OFF_NOW (-1) /* without a packet that asks for the window */

static int set(int fd, int name, int value)
{
	return setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value) < 0 ? -errno : 0;
}

static uint32_t get(int fd, int name)
{
	uint32_t value = 0;
	socklen_t len = sizeof value;

	(void)getsockopt(fd, IPPROTO_TCP, name, &value, &len);
	return value;
}

static uint32_t unread_bytes(const struct file_socket *d)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < d->n_messages; i++)
		sum += d->messages[i].data.len;
	return sum;
}

/* --- capture ---------------------------------------------------------------------------------- */

/* More may have come since the unread data was read: then it is tried again. */
static int read_queues(struct capture *c, int fd, struct file_socket *d, struct err *err)
{
	struct tcp_state *t = &d->tcp;
	CLEANUP_FREE uint8_t *buf = NULL;
	int queued = 0, unsent = 0, unread = 0;
	ssize_t n = 0;

	(void)ioctl(fd, SIOCOUTQ, &queued);
	(void)ioctl(fd, SIOCOUTQNSD, &unsent);
	if (set(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE) < 0)
		return err_set(err, -errno, "cannot look at a connection's queue: %m");
	t->recv_seq = get(fd, TCP_QUEUE_SEQ);
	(void)ioctl(fd, SIOCINQ, &unread);
	if ((uint32_t)unread != unread_bytes(d))
		return err_set(err, -EAGAIN, "data has just come");
	if (set(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE) < 0)
		return err_set(err, -errno, "cannot look at a connection's queue: %m");
	t->send_seq = get(fd, TCP_QUEUE_SEQ);
	t->unsent = (uint32_t)MAX(unsent, 0);
	if (queued > 0) {
		buf = malloc((size_t)queued);
		if (!buf)
			return err_nomem(err);
		n = recv(fd, buf, (size_t)queued, MSG_PEEK | MSG_DONTWAIT);
		if (n != queued)
			return err_set(err, n < 0 ? -errno : -EAGAIN,
				       "cannot read what a connection has not sent yet: %m");
	}
	if (!blob_put(c->arena, &t->queued, buf ? buf : (uint8_t *)"", (size_t)n))
		return err_nomem(err);
	return set(fd, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
}

static void read_options(int fd, struct tcp_state *t)
{
	struct tcp_repair_window w = { 0 };
	struct tcp_info info = { 0 };
	socklen_t len = sizeof info;

	(void)getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
	t->options = info.tcpi_options;
	t->snd_wscale = info.tcpi_snd_wscale;
	t->rcv_wscale = info.tcpi_rcv_wscale;
	t->mss = get(fd, TCP_MAXSEG);
	t->timestamp = get(fd, TCP_TIMESTAMP);
	len = sizeof w;
	if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &len) < 0)
		return;
	t->snd_wl1 = w.snd_wl1;
	t->snd_wnd = w.snd_wnd;
	t->max_window = w.max_window;
	t->rcv_wnd = w.rcv_wnd;
	t->rcv_wup = w.rcv_wup;
}

static int begin(struct capture *c, const struct open_file *of, struct err *err)
{
	int rc, *held;

	/*
	 * What has come is acknowledged now, not by a timer that the socket does not live to see
	 * (__tcp_sock_set_quickack, net/ipv4/tcp.c): the other end would send it once more, to
	 * nobody, and be told that there is no such connection.
	 */
	if (c->job_ends)
		(void)set(of->dup, TCP_QUICKACK, 1);
	rc = set(of->dup, TCP_REPAIR, REPAIR_ON);
	if (rc < 0) {
		fd_error(of, err, rc, "cannot keep a TCP connection open (--tcp repair): %m");
		err_hint(err, "that needs CAP_NET_ADMIN");
		return rc;
	}
	if (!c->job_ends)
		return 0;
	held = arena_push(c->arena, &c->held, &c->n_held, sizeof *held);
	if (!held)
		return err_nomem(err);
	*held = fcntl(of->dup, F_DUPFD_CLOEXEC, 3);
	return *held < 0 ? fd_error(of, err, -errno, "cannot hold the connection: %m") : 0;
}

int tcp_repair_capture(struct capture *c, const struct open_file *of, struct err *err)
{
	struct file_socket *d = of->sock->d;
	int rc;

	if (!c->tcp_repair || d->state != SOCKET_OUTSIDE || of->sock->tcp != ESTABLISHED)
		return 0;
	rc = begin(c, of, err);
	if (rc == 0)
		rc = read_queues(c, of->dup, d, err);
	if (rc == 0) {
		read_options(of->dup, &d->tcp);
		d->tcp.known = 1;
	}
	if (rc < 0 || !c->job_ends)
		(void)set(of->dup, TCP_REPAIR, REPAIR_OFF_NOW);
	return rc < 0 ? err_wrap(err, rc, "pid %d fd %d", of->subject->pid, of->fd) : 0;
}

void files_let_go(struct capture *c, bool ended)
{
	for (unsigned i = 0; i < c->n_held; i++) {
		if (!ended)
			(void)set(c->held[i], TCP_REPAIR, REPAIR_OFF_NOW);
		(void)close(c->held[i]);
	}
	c->n_held = 0;
}

/* --- restore ---------------------------------------------------------------------------------- */

static int set_queue(int fd, int queue, uint32_t seq)
{
	int rc = set(fd, TCP_REPAIR_QUEUE, queue);

	return rc < 0 ? rc : set(fd, TCP_QUEUE_SEQ, (int)seq);
}

static int put_options(int fd, const struct tcp_state *t)
{
	struct tcp_repair_opt opts[4];
	struct tcp_repair_window w = { .snd_wl1 = t->snd_wl1,
				       .snd_wnd = t->snd_wnd,
				       .max_window = t->max_window,
				       .rcv_wnd = t->rcv_wnd,
				       .rcv_wup = t->rcv_wup };
	unsigned n = 0;

	opts[n++] = (struct tcp_repair_opt){ OPT_MSS, t->mss };
	if (t->options & TCPI_OPT_WSCALE)
		opts[n++] =
			(struct tcp_repair_opt){ OPT_WINDOW, t->snd_wscale | t->rcv_wscale << 16 };
	if (t->options & TCPI_OPT_SACK)
		opts[n++] = (struct tcp_repair_opt){ OPT_SACK, 0 };
	if (t->options & TCPI_OPT_TIMESTAMPS)
		opts[n++] = (struct tcp_repair_opt){ OPT_TIMESTAMP, 0 };
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, opts, n * sizeof opts[0]) < 0)
		return -errno;
	if ((t->options & TCPI_OPT_TIMESTAMPS) && set(fd, TCP_TIMESTAMP, (int)t->timestamp) < 0)
		return -errno;
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof w) < 0 ? -errno : 0;
}

static int put(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, MIN(len, (size_t)32768), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int put_unread(int fd, const struct file_socket *d)
{
	int rc = set(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);

	for (unsigned i = 0; rc == 0 && i < d->n_messages; i++)
		rc = put(fd, d->messages[i].data.data, d->messages[i].data.len);
	return rc;
}

static int take_place(const struct file_socket *d, int fd)
{
	const struct tcp_state *t = &d->tcp;
	size_t sent = t->queued.len - MIN(t->unsent, t->queued.len);
	int rc = set(fd, TCP_REPAIR, REPAIR_ON);

	if (rc == 0 && bind(fd, (const void *)d->local.data, d->local.len) < 0)
		rc = -errno;
	if (rc == 0)
		rc = set_queue(fd, TCP_SEND_QUEUE, t->send_seq - t->queued.len);
	if (rc == 0)
		rc = set_queue(fd, TCP_RECV_QUEUE, t->recv_seq - unread_bytes(d));
	if (rc == 0 && connect(fd, (const void *)d->peer.data, d->peer.len) < 0)
		rc = -errno;
	if (rc == 0)
		rc = put_unread(fd, d);
	if (rc == 0)
		rc = set(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	if (rc == 0)
		rc = put(fd, t->queued.data, sent);
	if (rc == 0)
		rc = put_options(fd, t);
	if (rc == 0)
		rc = set(fd, TCP_REPAIR, REPAIR_OFF);
	return rc < 0 ? rc : put(fd, t->queued.data + sent, t->queued.len - sent);
}

int tcp_repair_make(struct rebuild *rb, unsigned i, struct err *err)
{
	const struct file *f = &rb->tree->files[i];
	const struct file_socket *d = f->detail;
	CLEANUP_FD int fd = -1;
	int rc = inet_socket(d, &fd, err);

	if (rc < 0)
		return rc;
	rc = take_place(d, fd);
	if (rc < 0) {
		errno = -rc;
		err_set(err, rc, "cannot go on with the connection of %s to %s: %m",
			inet_text(rb->arena, &d->local), inet_text(rb->arena, &d->peer));
		err_hint(err, "--tcp repair needs CAP_NET_ADMIN; --tcp reset does without");
		return err_wrap(err, rc, "%s", rebuild_file_owner(rb, f));
	}
	return socket_keep(rb, i, &fd, err);
}
