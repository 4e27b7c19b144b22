/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the inodes of inotify(7) watches lie in the file system. */
#pragma once

#include "state/files.h"
#include "state/tree.h"
#include "util/arena.h"

struct watch_search {
	struct arena *arena;
	struct file_inotify *d; /* whose watches get paths; what is not found stays NULL */
	unsigned n_open;        /* watches without one */
	struct string *dirs;    /* places, see below */
	unsigned n_dirs;
};

/*
 * Where watches were found before. What is there still need not be looked for: that reads
 * directories, of which a program that watches them would hear each time (IN_OPEN, IN_ACCESS).
 */
struct watch_memory {
	struct arena *arena; /* NULL: nothing is remembered yet */
	struct string *paths;
	unsigned n;
};
void watches_by_memory(struct watch_search *s, const struct watch_memory *m);
void watches_remember(struct watch_memory *m, const char *path);
void watches_forget(struct watch_memory *m);

/* Asks the kernel, who tells root only. proc_dirfd: /proc/PID; inotify: the descriptor there. */
void watches_by_handle(struct watch_search *s, int proc_dirfd, int inotify);
/* Where else they may be: the places that a process is about, and those of an open file. */
void watches_near_process(struct watch_search *s, int proc_dirfd);
void watches_near_file(struct watch_search *s, const char *path);
/* In all of these, one level down, and below what has been found. */
void watches_look_around(struct watch_search *s);
