/* SPDX-License-Identifier: BSD-2-Clause */
/* What an open file is: the description that descriptors share, and what is peculiar to each kind.
 */
#pragma once

#include "state/schema.h"

#include <stdint.h>

enum file_kind {
	FILE_REGULAR = 1, /* named regular file: reopened by path */
	FILE_DELETED =
		2, /* regular file without a name (unlinked, O_TMPFILE): content in a space */
	FILE_DIRECTORY = 3,
	FILE_PATH = 4,   /* O_PATH of anything */
	FILE_DEVICE = 5, /* /dev/null, zero, full, random, urandom: reopened by path */
	FILE_PIPE = 6,   /* one end of a pipe inside the tree */
	FILE_FIFO = 7,   /* one end of a named FIFO inside the tree */
	FILE_EVENTFD = 8,
	FILE_TIMERFD = 9,
	FILE_SIGNALFD = 10,
	FILE_EPOLL = 11,
	FILE_INOTIFY = 12,
	FILE_MEMFD = 13,
	FILE_OUTSIDE =
		14, /* standard stream that leads out of the tree: taken from ckpt-restart's own */
	FILE_TTY = 15,  /* the controlling terminal opened by name: ckpt-restart's own terminal */
	FILE_PROC = 16, /* a file below /proc or /sys: reopened by path */
	FILE_PIDFD = 17,
	FILE_SOCKET = 18,
	FILE_PTY = 19,
	FILE_MQUEUE = 20, /* POSIX message queue */
	FILE_KIND_COUNT
};

struct file_lock {
	uint32_t type;       /* enum lock_type */
	uint32_t write;      /* 1 = exclusive */
	uint64_t start, len; /* len 0 = to the end; flock: 0, 0 */
};

enum lock_type { LOCK_TYPE_FLOCK = 1, LOCK_TYPE_OFD = 2, LOCK_TYPE_POSIX = 3 };

/* An open file description: what dup'ed and inherited descriptors share. */
struct file {
	uint32_t id;
	uint32_t kind;  /* enum file_kind */
	uint32_t flags; /* F_GETFL: access mode and status flags, plus O_DIRECTORY, O_NOFOLLOW,
			   O_PATH as opened */
	uint32_t mode;  /* st_mode */
	uint64_t pos;   /* file offset */
	char *path;     /* as /proc/PID/fd says, without " (deleted)"; NULL where it has none */
	uint64_t dev, ino, rdev, size; /* from fstat */
	int64_t mtime_ns;
	int32_t owner_type, owner_pid, owner_sig; /* F_GETOWN_EX, F_GETSIG; pid 0 = none */
	struct file_lock *locks; /* flock and OFD locks held through this description */
	unsigned n_locks;
	void *detail;     /* struct for the kind (below), or NULL */
	uint32_t lease;   /* F_GETLEASE + 1: 1 a read lease, 2 a write lease; 0 none */
	uint32_t content; /* FILE_REGULAR on tmpfs: the space that holds its content, or 0 */
};

struct fd {
	int32_t fd;
	uint32_t cloexec;
	uint32_t file; /* struct file id */
};

/* FILE_DELETED, FILE_MEMFD: the content is a space. */
struct file_content {
	uint32_t space;
	uint32_t seals;       /* F_GET_SEALS; memfd only */
	uint32_t memfd_flags; /* MFD_*: as far as they can be known */
	uint32_t nlink_was_zero;
};

/* FILE_PIPE, FILE_FIFO: one end; the first description captured of a pipe carries its content. */
struct file_pipe {
	uint64_t pipe;     /* the same for all ends of one pipe (its inode number) */
	uint32_t capacity; /* F_GETPIPE_SZ */
	uint32_t has_content;
	uint32_t no_readers, no_writers; /* the other side was closed at the checkpoint */
	struct pipe_packet
		*packets; /* unread bytes, front first; one element unless in packet mode */
	unsigned n_packets;
	uint32_t deleted; /* FILE_FIFO: it has no name any more */
};

struct pipe_packet {
	struct blob data;
};

struct file_eventfd {
	uint64_t count;
	uint32_t semaphore;
};

struct file_timerfd {
	int32_t clockid;
	uint32_t settime_flags; /* TFD_TIMER_* */
	uint64_t ticks;
	uint64_t value_ns, interval_ns; /* value is relative */
};

struct file_signalfd {
	uint64_t mask;
};

struct epoll_watch {
	int32_t fd; /* the number under which it was added */
	uint32_t events;
	uint64_t data;
	uint32_t file; /* struct file id of the watched description */
};

struct file_epoll {
	struct epoll_watch *watches;
	unsigned n_watches;
};

struct inotify_watch {
	int32_t wd;
	uint32_t mask;
	char *path;
	uint64_t ino, dev;
};

struct file_inotify {
	struct inotify_watch *watches;
	unsigned n_watches;
	struct blob queued; /* always empty */
	uint32_t unread;    /* bytes of events that are lost: the program is told (IN_Q_OVERFLOW) */
};

/* FILE_OUTSIDE: which of the caller's descriptors stands in for it. */
struct file_outside {
	uint32_t stream; /* 0, 1 or 2; or the number named with --inherit */
	char *what;      /* "terminal /dev/pts/3", "pipe", "socket" */
};

struct mqueue_message {
	uint32_t priority;
	struct blob data;
};

/* FILE_MQUEUE: the first description captured of a queue carries its messages. */
struct file_mqueue {
	uint64_t max_messages, message_size;
	struct mqueue_message *messages; /* as they would be received */
	unsigned n_messages;
	uint32_t removed; /* mq_unlink'ed: it has no name any more */
	/* mq_notify(3): who is told of a message, 0 nobody, and how: SIGEV_* */
	int32_t notify_pid;
	uint32_t notify, notify_signo;
};

/* FILE_PIDFD: of a process of the tree. */
struct file_pidfd {
	int32_t pid; /* 0: it has been waited for */
};

/* FILE_PTY: one side of a pseudo-terminal. What both sides share is recorded with the master. */
struct file_pty {
	uint32_t index;      /* N of /dev/pts/N */
	uint32_t master;     /* 1: this is the master, 0: a slave */
	uint32_t hung_up;    /* master: all slaves have been closed; slave: the master has */
	uint32_t locked;     /* TIOCSPTLCK */
	uint32_t packet;     /* TIOCPKT */
	uint32_t exclusive;  /* TIOCEXCL of the slave side */
	uint32_t stopped;    /* output is held back (Ctrl-S) */
	struct blob termios; /* struct termios2 */
	uint32_t rows, columns, xpixel, ypixel;
	int32_t session, group; /* whose controlling terminal it is, and its foreground group */
	uint32_t slave_mode;    /* permissions of /dev/pts/N */
	struct blob input;      /* unread by the slave */
	struct blob output;     /* unread by the master */
	uint32_t input_marks;   /* 1: zero bytes of the input are ends of file (Ctrl-D) */
};

/* FILE_SOCKET. Addresses are as getsockname and getpeername show them: a sockaddr of the length
 * that counts, empty where there is none. */
enum socket_state {
	SOCKET_PLAIN = 1,     /* not connected (perhaps bound) */
	SOCKET_LISTENING = 2, /* waiting: whose connections accept has not taken yet */
	SOCKET_CONNECTED = 3, /* to peer_file */
	SOCKET_WAITING = 4,   /* connected, in the accept queue of the listening socket peer_file */
	SOCKET_CLOSED = 5,    /* the other end was closed: what is unread still comes */
	SOCKET_OUTSIDE = 6,   /* the other end is not in the tree: comes back as reset by it */
	SOCKET_CONNECTING = 7, /* a TCP connection that is not there yet */
	SOCKET_RESET = 8,      /* a TCP connection that is no more */
};

enum socket_trait {
	SOCKET_ACCEPTED = 1 << 0, /* made by accept: its name is that of a listening socket */
	SOCKET_ERROR = 1 << 1,    /* an error (ECONNRESET) was waiting to be read */
	SOCKET_RELATIVE = 1 << 2, /* unix: the name is relative, the file's path says to what */
	SOCKET_UNLINKED = 1 << 3, /* unix: nothing lay at that path any more */
	SOCKET_SHUT_READ = 1 << 4,
	SOCKET_SHUT_WRITE = 1 << 5,
};

struct socket_option {
	uint32_t level, name; /* setsockopt(2) */
	struct blob value;
};

struct socket_right {
	uint32_t file; /* struct file id of a descriptor on its way (SCM_RIGHTS) */
};

/* Unread data; one message for all where there are no boundaries. */
struct socket_message {
	struct blob data;
	struct blob from; /* address of the sender */
	struct socket_right *rights;
	unsigned n_rights;
	uint32_t has_creds; /* SCM_CREDENTIALS */
	int32_t pid;
	uint32_t uid, gid;
};

/* What takes a TCP connection's place (--tcp repair): tcp(7), TCP_REPAIR. */
struct tcp_state {
	uint32_t known;              /* 0: was not asked for */
	uint32_t send_seq, recv_seq; /* of the next byte behind what is queued */
	uint32_t unsent;             /* how many of the queued bytes were never sent */
	uint32_t options, mss, snd_wscale, rcv_wscale, timestamp; /* options: TCPI_OPT_* */
	uint32_t snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup;
	struct blob queued; /* not acknowledged */
};

struct file_socket {
	uint32_t family, type, protocol;
	uint32_t state;  /* enum socket_state */
	uint32_t traits; /* enum socket_trait */
	struct blob local, peer;
	uint32_t peer_file;            /* struct file id, 0 = none */
	uint32_t backlog;              /* listen(2) */
	uint32_t mode;                 /* unix: st_mode of the socket's file */
	struct socket_option *options; /* those that differ from a new socket's */
	unsigned n_options;
	struct socket_message *messages; /* unread, front first */
	unsigned n_messages;
	struct socket_right *waiting; /* accept's queue, front first: the connecting ends */
	unsigned n_waiting;
	struct blob groups; /* netlink: the multicast groups, a bit each */
	struct tcp_state tcp;
	int32_t peer_pid; /* unix: SO_PEERCRED; 0: none, or not known */
	uint32_t peer_uid, peer_gid;
	uint32_t owner_uid, owner_gid; /* unix: of the socket's file, plus one; 0: not known */
	char *moved;                   /* unix, SOCKET_UNLINKED: where the file lies now, or NULL */
};

/* The schema of struct file's detail for a kind; NULL when the kind has none (or is unknown). */
const struct schema *file_kind_schema(uint32_t kind);
/* "regular file", "pipe", ...; "unknown" for a kind that is not known. */
const char *file_kind_name(uint32_t kind);
