/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of able.c share. */
#pragma once

#include "proc/able.h"
#include "proc/proc.h"

#include <sys/stat.h>

struct looking {
	struct arena *a;
	struct able *able;
	struct proc_status own;
	pid_t *pids; /* of the tree; a parent before its children */
	unsigned n_pids;
	ino_t namespaces[PROC_NAMESPACES]; /* around the tree */
	pid_t pid;                         /* being looked at */
	int dirfd;
	char *unix_sockets, *netlink_sockets; /* tables that were read; NULL: not yet */
};

/* fd -1: not about a descriptor. hint NULL: of a descriptor, how to leave it out. */
__attribute__((format(printf, 4, 5))) int able_obstacle(struct looking *l, int fd, const char *hint,
							const char *fmt, ...);
bool able_in_tree(const struct looking *l, pid_t pid);

/* A descriptor of the tree; name: "fd/7". */
struct able_fd {
	pid_t pid;
	int dirfd, fd;
	const char *name;
};
typedef bool (*able_fd_fn)(void *arg, const struct able_fd *f);
/* Is it true of some descriptor of the tree? */
bool able_any_fd(const struct looking *l, able_fd_fn is, void *arg);

/* able_files.c: the process's descriptors. */
int able_look_at_files(struct looking *l, struct err *err);
/* able_kinds.c: one of them each. */
void able_look_at_socket(struct looking *l, int fd, const char *name, const char *link);
void able_look_at_queue(struct looking *l, int fd, const char *name, const char *path);
void able_look_at_epoll(struct looking *l, int fd, const struct proc_fdinfo *info);
void able_look_at_inotify(struct looking *l, int fd, const struct proc_fdinfo *info);
void able_look_at_terminal(struct looking *l, int fd, const char *link, dev_t rdev);
void able_look_at_master(struct looking *l, int fd);
