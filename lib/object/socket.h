/* SPDX-License-Identifier: BSD-2-Clause */
/* Sockets: what their families share. */
#pragma once

#include "object/kinds.h"
#include "proc/sockdiag.h"
#include "util/idmap.h"

#include <sys/socket.h>
#include <sys/un.h>

/* What is found out of a socket before files are captured. */
struct socket_seen {
	struct file_socket *d;
	char *path;   /* unix: where its name lies */
	bool ours;    /* we hold it too: it was given to the job */
	bool foreign; /* the other end is not in the tree */
	int code;     /* the checkpoint is refused, if it is not a standard stream */
	const char *why, *hint;
	unsigned local_port, peer_port; /* TCP: so that only few addresses are compared */
	uint32_t same_ports;            /* TCP: the next file whose ports are the same, 0: none */
	uint32_t age_ms;                /* TCP: since the other end was last heard of */
	uint32_t tcp;                   /* its state */
};

/* One answer each for the whole of a capture. */
struct sockets {
	struct capture *c;
	struct sockdiag_unix *unix_list;
	unsigned n_unix;
	uint64_t netns; /* cookie of our network namespace; 0: this kernel does not tell */
	/* unix: by inode number the file, of all of the tree; and for whoever waits for accept the
	 * listening socket in unix_list */
	struct idmap files, waiting;
	struct file_socket **listening; /* of the tree */
	unsigned n_listening;
};

/* Remembers why the checkpoint must be refused (the first reason stays). */
void socket_refuse(struct socket_seen *s, int code, const char *why, const char *hint);

static inline struct file_socket *socket_of(const struct file *f)
{
	return f->kind == FILE_SOCKET ? f->detail : NULL;
}

static inline bool blob_same(const struct blob *a, const struct blob *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

static inline bool socket_is_inet(const struct file_socket *d)
{
	return d->family == AF_INET || d->family == AF_INET6;
}

int socket_int(int fd, int level, int name);
/* What poll(2) shows at once. */
short socket_poll(int fd);
/* Stores what is in buf; false when out of memory. */
bool blob_put(struct arena *a, struct blob *b, const void *data, size_t len);

/* --- socket_options.c --------------------------------------------------------------------------
 */

/* Those that differ from a new socket's. */
int socket_options_capture(struct capture *c, const struct open_file *of, struct err *err);
/* Before bind: the ones without which that fails or means something else. */
int socket_options_early(const struct file_socket *d, int fd, struct err *err);
/* At the end: all of them. */
int socket_options_put(const struct file_socket *d, int fd, struct err *err);
const struct socket_option *socket_option(const struct file_socket *d, int level, int name);
/* As much room as we may have, so that what was unread fits. */
void socket_make_room(int fd, int name);

/* socket_queue.c: a process's id as the job sees it, 0: it has ended. */
int32_t socket_job_pid(struct capture *c, pid_t pid);
/* socket_queue.c: what is unread in the socket of description i, and the files on their way. */
int socket_queue_capture(struct capture *c, unsigned i, struct err *err);

/* --- IPv4 and IPv6 -----------------------------------------------------------------------------
 */

/* inet_capture.c: the state of one; then who is connected to whom. */
int inet_look(struct capture *c, unsigned i, struct err *err);
int inet_survey(struct sockets *s, struct err *err);
/* inet_address.c */
unsigned inet_port(const struct blob *addr);
bool inet_is_any(const struct blob *addr);
/* Is it the same address and port, be it in the other family's form? */
bool inet_same(const struct blob *a, const struct blob *b);
/* Does what is sent to addr reach a socket bound to local? */
bool inet_reaches(const struct blob *local, const struct blob *addr);
/* "127.0.0.1 port 8080" */
const char *inet_text(struct arena *a, const struct blob *addr);
/* inet_make.c, tcp_make.c, inet_fill.c */
int inet_check(const struct rebuild *rb, const struct file *f, struct err *err);
int inet_make(struct rebuild *rb, struct err *err);
/* A socket like d, with what must be set before bind. */
int inet_socket(const struct file_socket *d, int *ret, struct err *err);
int tcp_make_connections(struct rebuild *rb, struct err *err);
/* Instead of bind: the address without its port, which the kernel then chooses when it connects. */
int tcp_choose_port(int fd, const struct blob *from);
/* Those in accept's queues, once the sockets of the tree listen. */
int tcp_make_waiting(struct rebuild *rb, struct err *err);
int inet_fill(struct rebuild *rb, struct err *err);
/* tcp_leftovers.c: ends what is left (TIME_WAIT) of a connection with the addresses of d. */
void tcp_leftover_end(const struct rebuild *rb, const struct file_socket *d);
/* bind(2), with all such out of the way; patiently: waits for those that cannot be ended. */
int inet_bind(const struct rebuild *rb, const struct blob *local, int fd);
int inet_bind_patiently(const struct rebuild *rb, const struct blob *local, int fd);
/* tcp_repair.c */
int tcp_repair_capture(struct capture *c, const struct open_file *of, struct err *err);
int tcp_repair_make(struct rebuild *rb, unsigned i, struct err *err);

/* multicast.c: the groups that a UDP socket is in, as options. */
int multicast_capture(struct capture *c, const struct open_file *of, struct err *err);

/* --- netlink -----------------------------------------------------------------------------------
 */

int netlink_look(struct capture *c, unsigned i, struct err *err);
int netlink_make(struct rebuild *rb, struct err *err);

/* --- unix --------------------------------------------------------------------------------------
 */

/* unix_capture.c */
int unix_survey(struct sockets *s, struct err *err);
/* unix_peer.c: what SO_PEERCRED shows. */
struct unix_peer {
	int32_t pid; /* 0: whoever */
	uint32_t uid, gid;
};
void unix_peer_capture(struct capture *c, const struct open_file *of);
struct unix_peer unix_peer_of(const struct file_socket *d);
/* Of the first process that has that file. */
struct unix_peer unix_peer_holder(const struct tree *t, uint32_t file);
/* The calls that make it so, as if `who` did them. */
int unix_listen_as(const struct rebuild *rb, const struct unix_peer *who, int fd, int backlog);
int unix_connect_as(const struct rebuild *rb, const struct unix_peer *who, const struct file *to,
		    int fd);
int unix_pair_as(const struct rebuild *rb, const struct unix_peer *who, int type, int ret[2]);
/* unix_names.c */
bool unix_has_path(const struct blob *addr);
int unix_name_check(const struct rebuild *rb, const struct file *f, struct err *err);
/* Gives a socket the name of f (which may belong to another: a listening socket). */
int unix_name_bind(const struct rebuild *rb, const struct file *f, int fd, struct err *err);
/* Connects fd to the name of f. */
int unix_name_connect(const struct rebuild *rb, const struct file *f, int fd);
/* Takes the name off the file system, where nothing lay at its path. */
int unix_name_drop(const struct rebuild *rb, const struct file *f, struct err *err);
/* unix_make.c, unix_fill.c */
int unix_make(struct rebuild *rb, struct err *err);
int unix_fill(struct rebuild *rb, struct err *err);

/* --- restore -----------------------------------------------------------------------------------
 */

/* Keeps a socket as that of file number i. */
int socket_keep(struct rebuild *rb, unsigned i, int *fd, struct err *err);
/* The same for an end that goes when all queues are filled. */
int socket_keep_temp(struct rebuild *rb, unsigned i, int *fd, struct err *err);
/* The detail of file number i, if it is a socket of this family that is not made yet. */
struct file_socket *socket_to_make(const struct rebuild *rb, unsigned i, int family);
/* Shuts down the halves that were. */
int socket_shut(const struct file_socket *d, int fd, struct err *err);
