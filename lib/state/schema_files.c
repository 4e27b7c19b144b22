/* SPDX-License-Identifier: BSD-2-Clause */
/* The field tables of every struct in state/files.h, and the table of the kinds of open files. */
#include "state/files.h"

#include "state/schema_rows.h"

#define T struct file_lock
static const struct field lock_schema_fields[] = { VAL(T, type), VAL(T, write), VAL(T, start),
						   VAL(T, len) };
static SCHEMA(lock_schema, "lock", T);
#undef T

#define T struct file
static const struct field file_schema_fields[] = {
	VAL(T, id),
	VAL(T, kind),
	OCT(T, flags),
	OCT(T, mode),
	VAL(T, pos),
	VAL(T, path),
	HEX(T, dev),
	VAL(T, ino),
	HEX(T, rdev),
	VAL(T, size),
	VAL(T, mtime_ns),
	VAL(T, owner_type),
	VAL(T, owner_pid),
	VAL(T, owner_sig),
	LIST(T, locks, lock_schema),
	{ "detail", FIELD_DETAIL, SHOW_DEC, offsetof(T, detail), offsetof(T, kind), NULL },
	VAL(T, content),
	VAL(T, lease),
};
SCHEMA(file_schema, "file", T);
#undef T

#define T struct file_content
static const struct field content_schema_fields[] = {
	VAL(T, space),
	HEX(T, seals),
	HEX(T, memfd_flags),
	VAL(T, nlink_was_zero),
};
static SCHEMA(content_schema, "content", T);
#undef T

#define T struct pipe_packet
static const struct field packet_schema_fields[] = { VAL(T, data) };
static SCHEMA(packet_schema, "packet", T);
#undef T

#define T struct file_pipe
static const struct field pipe_schema_fields[] = {
	VAL(T, pipe),       VAL(T, capacity),   VAL(T, has_content),
	VAL(T, no_readers), VAL(T, no_writers), LIST(T, packets, packet_schema),
	VAL(T, deleted),
};
static SCHEMA(pipe_schema, "pipe", T);
#undef T

#define T struct file_eventfd
static const struct field eventfd_schema_fields[] = { VAL(T, count), VAL(T, semaphore) };
static SCHEMA(eventfd_schema, "eventfd", T);
#undef T

#define T struct file_timerfd
static const struct field timerfd_schema_fields[] = {
	VAL(T, clockid),  HEX(T, settime_flags), VAL(T, ticks),
	VAL(T, value_ns), VAL(T, interval_ns),
};
static SCHEMA(timerfd_schema, "timerfd", T);
#undef T

#define T struct file_signalfd
static const struct field signalfd_schema_fields[] = { HEX(T, mask) };
static SCHEMA(signalfd_schema, "signalfd", T);
#undef T

#define T struct epoll_watch
static const struct field epoll_watch_schema_fields[] = { VAL(T, fd), HEX(T, events), HEX(T, data),
							  VAL(T, file) };
static SCHEMA(epoll_watch_schema, "epoll_watch", T);
#undef T

#define T struct file_epoll
static const struct field epoll_schema_fields[] = { LIST(T, watches, epoll_watch_schema) };
static SCHEMA(epoll_schema, "epoll", T);
#undef T

#define T struct inotify_watch
static const struct field inotify_watch_schema_fields[] = {
	VAL(T, wd), HEX(T, mask), VAL(T, path), VAL(T, ino), HEX(T, dev),
};
static SCHEMA(inotify_watch_schema, "inotify_watch", T);
#undef T

#define T struct file_inotify
static const struct field inotify_schema_fields[] = { LIST(T, watches, inotify_watch_schema),
						      VAL(T, queued), VAL(T, unread) };
static SCHEMA(inotify_schema, "inotify", T);
#undef T

#define T struct file_outside
static const struct field outside_schema_fields[] = { VAL(T, stream), VAL(T, what) };
static SCHEMA(outside_schema, "outside", T);
#undef T

#define T struct mqueue_message
static const struct field mqueue_message_schema_fields[] = { VAL(T, priority), VAL(T, data) };
static SCHEMA(mqueue_message_schema, "mqueue_message", T);
#undef T

#define T struct file_mqueue
static const struct field mqueue_schema_fields[] = {
	VAL(T, max_messages), VAL(T, message_size), LIST(T, messages, mqueue_message_schema),
	VAL(T, removed),      VAL(T, notify_pid),   VAL(T, notify),
	VAL(T, notify_signo),
};
static SCHEMA(mqueue_schema, "mqueue", T);
#undef T

#define T struct file_pidfd
static const struct field pidfd_schema_fields[] = { VAL(T, pid) };
static SCHEMA(pidfd_schema, "pidfd", T);
#undef T

#define T struct file_pty
static const struct field pty_schema_fields[] = {
	VAL(T, index),     VAL(T, master),  VAL(T, hung_up),     VAL(T, locked), VAL(T, packet),
	VAL(T, exclusive), VAL(T, stopped), VAL(T, termios),     VAL(T, rows),   VAL(T, columns),
	VAL(T, xpixel),    VAL(T, ypixel),  VAL(T, session),     VAL(T, group),  OCT(T, slave_mode),
	VAL(T, input),     VAL(T, output),  VAL(T, input_marks),
};
static SCHEMA(pty_schema, "pty", T);
#undef T

#define T struct socket_option
static const struct field socket_option_schema_fields[] = { VAL(T, level), VAL(T, name),
							    VAL(T, value) };
static SCHEMA(socket_option_schema, "socket_option", T);
#undef T

#define T struct socket_right
static const struct field socket_right_schema_fields[] = { VAL(T, file) };
static SCHEMA(socket_right_schema, "socket_right", T);
#undef T

#define T struct socket_message
static const struct field socket_message_schema_fields[] = {
	VAL(T, data),      VAL(T, from), LIST(T, rights, socket_right_schema),
	VAL(T, has_creds), VAL(T, pid),  VAL(T, uid),
	VAL(T, gid),
};
static SCHEMA(socket_message_schema, "socket_message", T);
#undef T

#define T struct tcp_state
static const struct field tcp_schema_fields[] = {
	VAL(T, known),   VAL(T, send_seq),   VAL(T, recv_seq),   VAL(T, unsent),    HEX(T, options),
	VAL(T, mss),     VAL(T, snd_wscale), VAL(T, rcv_wscale), VAL(T, timestamp), VAL(T, snd_wl1),
	VAL(T, snd_wnd), VAL(T, max_window), VAL(T, rcv_wnd),    VAL(T, rcv_wup),   VAL(T, queued),
};
static SCHEMA(tcp_schema, "tcp", T);
#undef T

#define T struct file_socket
static const struct field socket_schema_fields[] = {
	VAL(T, family),
	VAL(T, type),
	VAL(T, protocol),
	VAL(T, state),
	HEX(T, traits),
	VAL(T, local),
	VAL(T, peer),
	VAL(T, peer_file),
	VAL(T, backlog),
	OCT(T, mode),
	LIST(T, options, socket_option_schema),
	LIST(T, messages, socket_message_schema),
	LIST(T, waiting, socket_right_schema),
	VAL(T, groups),
	SUB(T, tcp, tcp_schema),
	VAL(T, peer_pid),
	VAL(T, peer_uid),
	VAL(T, peer_gid),
	VAL(T, owner_uid),
	VAL(T, owner_gid),
	VAL(T, moved),
};
static SCHEMA(socket_schema, "socket", T);
#undef T

static const struct {
	const char *name;
	const struct schema *detail;
} file_kinds[FILE_KIND_COUNT] = {
	[FILE_REGULAR] = { "regular file", NULL },
	[FILE_DELETED] = { "deleted file", &content_schema },
	[FILE_DIRECTORY] = { "directory", NULL },
	[FILE_PATH] = { "O_PATH descriptor", NULL },
	[FILE_DEVICE] = { "device", NULL },
	[FILE_PIPE] = { "pipe", &pipe_schema },
	[FILE_FIFO] = { "FIFO", &pipe_schema },
	[FILE_EVENTFD] = { "eventfd", &eventfd_schema },
	[FILE_TIMERFD] = { "timerfd", &timerfd_schema },
	[FILE_SIGNALFD] = { "signalfd", &signalfd_schema },
	[FILE_EPOLL] = { "epoll", &epoll_schema },
	[FILE_INOTIFY] = { "inotify", &inotify_schema },
	[FILE_MEMFD] = { "memfd", &content_schema },
	[FILE_OUTSIDE] = { "standard stream", &outside_schema },
	[FILE_TTY] = { "terminal", NULL },
	[FILE_PROC] = { "/proc or /sys file", NULL },
	[FILE_PIDFD] = { "pidfd", &pidfd_schema },
	[FILE_SOCKET] = { "socket", &socket_schema },
	[FILE_MQUEUE] = { "POSIX message queue", &mqueue_schema },
	[FILE_PTY] = { "pseudo-terminal", &pty_schema },
};

const struct schema *file_kind_schema(uint32_t kind)
{
	return kind < FILE_KIND_COUNT ? file_kinds[kind].detail : NULL;
}

const char *file_kind_name(uint32_t kind)
{
	return kind < FILE_KIND_COUNT && file_kinds[kind].name ? file_kinds[kind].name : "unknown";
}
