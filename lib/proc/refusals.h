/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be restored, by the names under which /proc shows it: one table for the checkpoint
 * that refuses it, and for ckpt-inspect, which foretells that. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct refusal {
	const char *prefix; /* the beginning of what /proc/PID/fd or /proc/PID/maps shows */
	const char *name;
	const char *hint; /* what to do about it, or NULL */
};

/* A descriptor, by what readlink shows of it (without " (deleted)"); NULL: not by its name. */
const struct refusal *refusal_of_file(const char *link);
/* Descriptors without a path that can be restored, as readlink shows them. */
#define LINK_EPOLL    "anon_inode:[eventpoll]"
#define LINK_EVENTFD  "anon_inode:[eventfd]"
#define LINK_INOTIFY  "anon_inode:inotify"
#define LINK_PIDFD    "anon_inode:[pidfd]"
#define LINK_SIGNALFD "anon_inode:[signalfd]"
#define LINK_TIMERFD  "anon_inode:[timerfd]"
bool refusal_link_is_pidfd(const char *link);
/* What has neither a path nor is a socket, pipe or one of those: nothing knows it. */
bool refusal_knows_link(const char *link);
/* Sockets that can be restored: as socket(2) has them, or by the name of the protocol (the extended
 * attribute system.sockprotoname); netlink sockets of some protocols only. */
bool refusal_knows_socket(unsigned domain, unsigned type, unsigned protocol);
bool refusal_knows_protocol(const char *name);
bool refusal_knows_netlink(unsigned protocol);
/* A device, by its path. */
const struct refusal *refusal_of_device(const char *path);
/* A mapping, by its path. */
const struct refusal *refusal_of_mapping(const char *path);
/* What to do about what has no name. */
extern const char refusal_hint_hugetlb[], refusal_hint_32bit[], refusal_hint_shadow_stack[],
	refusal_hint_root[], refusal_hint_mapped[], refusal_hint_thread_creds[],
	refusal_hint_timer[], refusal_hint_netns[], refusal_hint_filter[], refusal_hint_pkey[],
	refusal_hint_uffd[], refusal_hint_device[];
/* A watch of inotify(7) that is on nobody knows what, and what to do about it. */
#define REFUSAL_WATCH                                                                              \
	"an inotify watch (number %d) on something that is not to be found near the job (inode "   \
	"%llu)"
#define REFUSAL_WATCH_HINT                                                                         \
	"root can ask the kernel where it is; ckpt-run --fd %d=close leaves the inotify out"
/* Who is to be told of a queue's next message, with the queue's path. */
#define REFUSAL_TOLD_OUTSIDE                                                                       \
	"mq_notify() on the message queue '%s' by process %d, which is not in the job,"
#define REFUSAL_TOLD_THREAD "mq_notify() with SIGEV_THREAD on the message queue '%s'"
#define REFUSAL_TOLD_VALUE                                                                         \
	"mq_notify() on the message queue '%s' with a signal (%u) whose value the program can see"
#define REFUSAL_TOLD_SHARED                                                                        \
	"mq_notify() on the message queue '%s' by process %d, which shares its descriptors with "  \
	"process %d,"
extern const char refusal_hint_told_value[], refusal_hint_told_shared[];
/* Is it a ckpt-run or ckpt-restart, by the process's name and its executable? */
bool refusal_is_ckpt(const char *name, const char *exe);
extern const char refusal_hint_ckpt[];
/* A file, by the type of its file system (statfs(2)); NULL: it is no such. */
const char *refusal_of_filesystem(long magic);
/* Of the kernel's own making, and no /proc: its files are opened by their paths as they are. */
bool refusal_is_kernels_own(long magic);
/* Character devices that can be opened again, or are handled otherwise: memory devices, terminals.
 */
int refusal_knows_device(unsigned maj, unsigned min);
