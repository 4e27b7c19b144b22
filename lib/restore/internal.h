/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the restore room: a tree in the making. */
#pragma once

#include "inject/build.h"
#include "object/object.h"
#include "restore/restore.h"
#include "util/arena.h"

#include <stdbool.h>

/* Where in a process our own things lie while it is rebuilt: free in the image's layout and in
 * ours. */
struct workspace {
	uint64_t start, end; /* the whole */
	uint64_t stub;       /* one page, executable */
	uint64_t arena;      /* batches */
	uint64_t stack;      /* top of a few pages, for threads that run the stub */
	uint64_t scratch;    /* room to park the vdso */
};
#define WORKSPACE_BYTES (2u << 20)

/* A thread being rebuilt. */
struct build_thread {
	const struct thread *state;
	pid_t tid;    /* as seen from here */
	pid_t ns_tid; /* as it sees itself */
};

/* A process being rebuilt. */
struct build_process {
	const struct process *state;
	pid_t pid, ns_pid;
	struct workspace ws;
	struct remote *remote;
	struct batch *batch;
	struct build_thread *threads; /* parallel to state->threads */
};

/* What the maker (maker.c) opened for mappings, in memory that it shares with us. */
struct map_fds {
	int *by_vma; /* descriptor in the maker for each VMA, -1: none; one more at the end for
			/proc/PID/exe */
};

struct restoring {
	struct resolved *images;
	const struct tree *tree;
	const struct restore_opts *opts;
	struct arena *arena;
	struct rebuild rb;
	struct build_process
		proc; /* FIXME(trees): one process for now; the structures know several */
	struct map_fds map_fds;
	enum pids_mode pids; /* what was decided; PIDS_AUTO: new ids */
	bool own_userns;
	pid_t child;   /* our child: the maker, or init of the namespace */
	pid_t init;    /* == child with a pid namespace, else 0 */
	int control;   /* our end of a socket to the maker (and init) */
	int status_fd; /* init writes the root's wait status here; -1 */
	pid_t maker;   /* as seen from here */
};

void restore_warn(const struct restoring *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* plan.c: everything that can be checked before anything is created; decides on pids. */
int plan_check(struct restoring *r, struct err *err);
/* Settles for a new pid namespace; false if none can be had. */
bool plan_namespace(struct restoring *r);
int plan_workspace(const struct process *p, struct arena *a, struct workspace *ret,
		   struct err *err);
int plan_marker_signal(const struct tree *t);

/* spawn.c: creates the maker with its pid, in new namespaces if so decided; returns with it seized
 * and running. */
int spawn_maker(struct restoring *r, struct err *err);
/* After a failure: ends and reaps everything that spawn_maker made. */
void spawn_undo(struct restoring *r);

/* maker.c: what the maker itself does, as ordinary C, before it is taken over. Never returns. */
_Noreturn void maker_main(struct restoring *r, int control);
/* Its messages on the control socket. */
enum maker_kind { MAKER_PID = 1, MAKER_READY, MAKER_ERROR, MAKER_WARN };
struct maker_message {
	enum maker_kind kind;
	int32_t pid;
	struct err err;
};
/* The maker's tables, made in memory shared with us. */
int maker_share(struct restoring *r, struct err *err);

/* layout.c: empties the process's address space and maps the image's. */
int layout_clear(struct restoring *r, struct build_process *bp, struct err *err);
int layout_map(struct restoring *r, struct build_process *bp, struct err *err);
/* After the memory is filled: locks, seals, guard pages. */
int layout_finish(struct restoring *r, struct build_process *bp, struct err *err);

/* vdso.c: moves the vdso; bridge.c: when the image comes from another kernel, leads the old one to
 * the new. */
int vdso_bridge(struct restoring *r, struct build_process *bp, struct err *err);
int vdso_move_ours(struct restoring *r, struct build_process *bp, uint64_t to, uint64_t *ret_vdso,
		   size_t *ret_len, struct err *err);
int vdso_place(struct restoring *r, struct build_process *bp, struct err *err);

/* fill.c: memory and the content of shared spaces. */
int fill_all(struct restoring *r, struct err *err);

/* threads.c */
int threads_make(struct restoring *r, struct build_process *bp, struct err *err);
int threads_attributes(struct restoring *r, struct build_process *bp, struct err *err);
/* Unmaps the workspace, sets the final registers; the process stays stopped. */
int threads_complete(struct restoring *r, struct build_process *bp, struct err *err);
void threads_release(struct build_process *bp);
