/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What connections leave behind that were open when the job was killed: TIME_WAIT, which keeps a
 * port for a minute. SO_REUSEADDR gets over it only if the connection's own socket had that set.
 *
 * Where the other end was on this machine too it can be ended exactly. A SYN from that end's
 * address, to a port where nobody listens, is answered from TIME_WAIT with an acknowledgement of
 * what had come last; whoever sent the SYN did not expect that and answers with a reset for just
 * that place in the stream, which ends TIME_WAIT (RFC 1337, section 2; not if net.ipv4.tcp_rfc1337
 * is set). All this happens within one connect(2), and only what has ended already is touched.
 *
 * Both ends may be in TIME_WAIT (they were closed at the same moment). Then the other one's port
 * cannot be bound either; connecting from it works a second later, where the addresses are those
 * of the loopback device and the kernel had chosen that port (tcp_make.c). With CAP_NET_ADMIN any
 * can simply be ended. What is left after that must be waited for.
 */
#include "object/socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define STATE(n)   (1u << (n))
#define TIME_WAIT  6
#define LISTEN     10
#define ENDING     (STATE(4) | STATE(5) | STATE(TIME_WAIT) | STATE(9) | STATE(11))
#define ALL_STATES 0xfffu

#define MOMENT_NS  50000000
#define TRIES      20 /* until what was killed just now is gone */
#define WAIT_S     65 /* TIME_WAIT lasts 60 s */
#define WAIT_TRIES (WAIT_S * 20)

static int list(uint32_t states, unsigned port, struct arena *a, struct sockdiag_tcp **ret,
		unsigned *ret_n)
{
	int rc = sockdiag_tcp_at_port(AF_INET, states, port, a, ret, ret_n, NULL);

	return rc < 0 ? rc : sockdiag_tcp_at_port(AF_INET6, states, port, a, ret, ret_n, NULL);
}

/* --- one connection --------------------------------------------------------------------------- */

/* which: what is in TIME_WAIT at local; peer: the end that the SYN comes from. */
static void end_one(const struct sockdiag_tcp *which, const struct blob *local,
		    const struct blob *peer)
{
	sa_family_t family;
	CLEANUP_FD int fd = -1;
	int on = 1, off = 0;

	memcpy(&family, peer->data, sizeof family);
	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	/* an address of another machine cannot be bound */
	if (bind(fd, (const void *)peer->data, peer->len) == 0 ||
	    (errno == EADDRINUSE && tcp_choose_port(fd, peer) == 0))
		(void)!connect(fd, (const void *)local->data, local->len);
	(void)sockdiag_tcp_destroy((const void *)local->data, (const void *)peer->data, which,
				   NULL);
}

/* A SYN would be a new connection to him. */
static bool somebody_listens(const struct rebuild *rb, unsigned port)
{
	struct sockdiag_tcp *v = NULL;
	unsigned n = 0;

	return list(STATE(LISTEN), port, rb->arena, &v, &n) < 0 || n;
}

void tcp_leftover_end(const struct rebuild *rb, const struct file_socket *d)
{
	struct sockdiag_tcp diag;

	if (d->local.len && d->peer.len &&
	    sockdiag_tcp_find((const void *)d->local.data, (const void *)d->peer.data, &diag,
			      NULL) == 0 &&
	    diag.state == TIME_WAIT && !somebody_listens(rb, inet_port(&d->local)))
		end_one(&diag, &d->local, &d->peer);
}

/* --- all of a port ---------------------------------------------------------------------------- */

static void address(const struct sockdiag_tcp *s, bool peer, struct sockaddr_storage *room,
		    struct blob *ret)
{
	const uint8_t *from = peer ? s->peer : s->local;
	in_port_t port = htons(peer ? s->peer_port : s->local_port);
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = port };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = port };

	memcpy(&in.sin_addr, from, sizeof in.sin_addr);
	memcpy(&in6.sin6_addr, from, sizeof in6.sin6_addr);
	if (s->family == AF_INET)
		memcpy(room, &in, sizeof in);
	else
		memcpy(room, &in6, sizeof in6);
	*ret = (struct blob){ (void *)room, s->family == AF_INET ? sizeof in : sizeof in6 };
}

/*
 * Returns how many there were, or a negative errno: somebody listens at the port, or this system
 * does not tell. ret_others: it is held by the living, too.
 */
static int end_all(const struct rebuild *rb, unsigned port, bool *ret_others)
{
	struct sockdiag_tcp *v = NULL;
	unsigned n = 0;
	int left = 0, rc = list(ALL_STATES, port, rb->arena, &v, &n);

	if (rc < 0)
		return rc;
	*ret_others = false;
	for (unsigned i = 0; i < n; i++) {
		/* a SYN would be a new connection to them */
		if (v[i].state == LISTEN)
			return -EADDRINUSE;
		*ret_others = *ret_others || v[i].ino;
	}
	for (unsigned i = 0; i < n; i++) {
		struct sockaddr_storage room[2];
		struct blob local, peer;

		if (v[i].ino || !(STATE(v[i].state) & ENDING))
			continue;
		left++;
		address(&v[i], false, &room[0], &local);
		address(&v[i], true, &room[1], &peer);
		if (v[i].state == TIME_WAIT)
			end_one(&v[i], &local, &peer);
	}
	return left;
}

/* ret_left: how many such connections, and nothing else, kept it from being bound. */
static int bind_over(const struct rebuild *rb, const struct blob *local, int fd, int *ret_left)
{
	bool others;
	int n;

	*ret_left = 0;
	if (bind(fd, (const void *)local->data, local->len) == 0)
		return 0;
	if (errno != EADDRINUSE || socket_int(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM)
		return -errno;
	n = end_all(rb, inet_port(local), &others);
	if (n <= 0)
		return -EADDRINUSE;
	*ret_left = others ? 0 : n;
	return bind(fd, (const void *)local->data, local->len) < 0 ? -errno : 0;
}

int inet_bind(const struct rebuild *rb, const struct blob *local, int fd)
{
	int left;

	return bind_over(rb, local, fd, &left);
}

static void say(const struct rebuild *rb, const struct blob *local)
{
	char text[256];

	(void)snprintf(text, sizeof text,
		       "waiting for %s, at most %d s: connections that ended with the job still "
		       "hold it (TIME_WAIT)",
		       inet_text(rb->arena, local), WAIT_S);
	if (rb->warn)
		rb->warn(rb->warn_arg, text);
}

int inet_bind_patiently(const struct rebuild *rb, const struct blob *local, int fd)
{
	const struct timespec moment = { .tv_nsec = MOMENT_NS };
	int others = 0, waits = 0, rc = -EADDRINUSE;

	while (others < TRIES && waits < WAIT_TRIES) {
		int left;

		rc = bind_over(rb, local, fd, &left);
		if (rc != -EADDRINUSE)
			return rc;
		if (left <= 0)
			others++; /* killed just now, and not gone yet? */
		else if (++waits == 3)
			say(rb, local);
		(void)nanosleep(&moment, NULL);
	}
	return rc;
}
