/* SPDX-License-Identifier: BSD-2-Clause */
/* What sock_diag(7) says of sockets of this network namespace: parsers of its answers, and the
 * questions. */
#pragma once

#include "util/arena.h"
#include "util/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* A unix socket; inode numbers are those of the sockets' descriptors. */
struct sockdiag_unix {
	uint32_t ino;
	uint32_t type, state; /* SOCK_*; enum of TCP states: 1 connected, 7 not, 10 listening */
	bool has_peer;
	uint32_t peer; /* 0: the other end has no descriptor (closed, or not accepted yet) */
	bool has_file;
	uint32_t file_ino, file_dev; /* of the name; dev as the kernel encodes it */
	uint32_t shutdown;           /* 1 for reading, 2 for writing */
	uint32_t rqueue, wqueue;     /* listening: connections waiting, and how many may */
	uint32_t *waiting;           /* listening: the connecting ends, front first; 0: closed */
	unsigned n_waiting;
};

/* Adds what a buffer of netlink messages tells. ret_done: the end of the answer was in it. */
int sockdiag_unix_parse(const void *buf, size_t len, struct arena *a, struct sockdiag_unix **list,
			unsigned *n, bool *ret_done, struct err *err);
/* All unix sockets, ascending by inode number. */
int sockdiag_unix_read(struct arena *a, struct sockdiag_unix **ret, unsigned *ret_n,
		       struct err *err);
const struct sockdiag_unix *sockdiag_unix_find(const struct sockdiag_unix *list, unsigned n,
					       uint64_t ino);

/* A TCP socket. */
struct sockdiag_tcp {
	uint32_t ino; /* 0: nobody has a descriptor of it (not accepted yet, or closed) */
	uint32_t state;
	uint32_t family;
	uint32_t rqueue, wqueue;
	uint16_t local_port, peer_port;
	uint32_t cookie[2];          /* the kernel's, of this socket and no other */
	uint8_t local[16], peer[16]; /* network order; an IPv4 address is in the first four bytes */
};

int sockdiag_tcp_parse(const void *buf, size_t len, struct sockdiag_tcp *ret, struct err *err);
/* The connection with these addresses (both of the family of local); -ENOENT: there is none. */
int sockdiag_tcp_find(const struct sockaddr *local, const struct sockaddr *peer,
		      struct sockdiag_tcp *ret, struct err *err);
/* Ends `which`, which has these addresses, or nothing, with CAP_NET_ADMIN; whether it worked is to
 * be looked at. */
int sockdiag_tcp_destroy(const struct sockaddr *local, const struct sockaddr *peer,
			 const struct sockdiag_tcp *which, struct err *err);
/* The TCP socket of that family and inode number in one of the states (a bit each); -ENOENT. */
int sockdiag_tcp_by_ino(int family, uint32_t states, uint32_t ino, struct sockdiag_tcp *ret,
			struct err *err);
/* All TCP sockets of that family with this local port, in one of the states. */
int sockdiag_tcp_at_port(int family, uint32_t states, unsigned port, struct arena *a,
			 struct sockdiag_tcp **list, unsigned *n, struct err *err);
