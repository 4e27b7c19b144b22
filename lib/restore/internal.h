/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the restore room: a tree in the making. */
#pragma once

#include "inject/build.h"
#include "inject/snapshot.h"
#include "object/object.h"
#include "restore/restore.h"
#include "state/births.h"
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
	struct build_process *memory; /* the first with the same memory (CLONE_VM), or itself */
	pid_t pid, ns_pid;
	struct workspace ws;
	struct remote *remote;
	struct batch *batch;
	struct build_thread *threads; /* parallel to state->threads */
	/* What the maker (maker.c) opened for mappings, in memory that it shares with us: a
	 * descriptor for each VMA, -1: none; one more at the end for /proc/PID/exe. */
	int *map_fds;
	uint64_t *touched; /* pages that were touched while it was mapped */
	unsigned n_touched;
	bool huge_always; /* the kernel gives huge pages to everybody here */
	/* Pages of 2 MiB that are huge ones, or with --lazy will be (huge.h), ascending. */
	struct range *huge;
	unsigned n_huge;
	struct snapshot *companion; /* who will join them; NULL: nobody */
	int pidfd;                  /* of the process; with a companion */
};

/* Once the ids have wrapped round, none below it is given out (RESERVED_PIDS, kernel/pid.c). */
#define LOWEST_ID 300

/*
 * What those that are being made share with us. They wait for each other at gates: pipes whose
 * other end only we have, so that nobody waits any more once we are gone.
 */
enum gate { GATE_BORN, GATE_LED, GATE_JOINED, GATE_MADE, GATES };
struct nursery {
	int32_t opened;  /* gates that were opened, not just left by us */
	int32_t next_id; /* for steps: above all ids that were recorded */
	int32_t pids[];  /* for each birth, as it sees itself */
};

/* What a process that shares its maker's memory is told. */
struct newborn {
	struct restoring *r;
	unsigned birth;
};

/* Where a zombie's core dump was made. */
struct core_dir {
	char path[32];
};

/* A process that sees to what is left should we be killed (keeper.h). */
struct guard {
	pid_t pid;
	int fd;
};

struct restoring {
	struct resolved *images;
	const struct tree *tree;
	const struct restore_opts *opts;
	struct arena *arena;
	struct rebuild rb;
	struct build_process *procs; /* parallel to tree->processes */
	struct batch_store *batches; /* of their batches */
	int marker_signal;           /* plan_marker_signal */
	struct births births;
	struct nursery *nursery;
	struct newborn *newborns; /* parallel to births */
	int32_t pid_limit;        /* all ids are below it */
	pid_t *heard; /* parallel to births: who has spoken, as seen from here; 0: not yet */
	struct core_dir *core_dirs; /* parallel to tree->zombies, shared too */
	int gates[GATES][2];        /* pipes; [1] is ours alone, -1: closed */
	int top_fd;                 /* in the maker: above all that it has opened for the tree */
	enum pids_mode pids;        /* what was decided; PIDS_AUTO: new ids */
	bool own_userns;
	pid_t child;   /* our child: the maker, or init of the namespace */
	pid_t init;    /* == child with a pid namespace, else 0 */
	int control;   /* our end of a socket to the maker (and init); in the maker: its own */
	int status_fd; /* init writes the root's wait status here; -1 */
	pid_t maker;   /* as seen from here */
	bool lazy;     /* memory may come while the job runs */
	struct filler *filler; /* and this much of it will; NULL: all is there */
	struct guard guard;    /* while it will; of a tree, while it is let go */
};

void restore_warn(const struct restoring *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* plan.c: everything that can be checked before anything is created; decides on pids. */
int plan_check(struct restoring *r, struct err *err);
/* Settles for a new pid namespace; false if none can be had. */
bool plan_namespace(struct restoring *r);
/* Finds room for each process. */
int plan_workspaces(struct restoring *r, struct err *err);
int plan_marker_signal(const struct tree *t);

/* spawn.c: creates the maker with its pid, in new namespaces if so decided, and through it the
 * whole tree; returns with all processes seized and stopped. */
int spawn_maker(struct restoring *r, struct err *err);
/* After a failure: ends and reaps everything that spawn_maker made. */
void spawn_undo(struct restoring *r);

/* Creates a process; tid 0: with any id; CLONE_PARENT: with the exit signal of its sibling. */
pid_t spawn_clone(uint64_t flags, pid_t tid, int exit_signal);
/* The same with CLONE_VM: it runs main. */
pid_t spawn_twin(uint64_t flags, pid_t tid, int exit_signal, void (*main)(void *arg), void *arg);
/* Opens or closes the gates' pipes. */
int gates_make(struct restoring *r, struct err *err);
void gates_close(struct restoring *r);

/* maker.c: what the maker itself does, as ordinary C, before it is taken over. Never returns. */
_Noreturn void maker_main(struct restoring *r, int control);
/* Its messages on the control socket, and those of the processes that it makes. */
enum maker_kind { MAKER_HERE = 1, MAKER_READY, MAKER_ERROR, MAKER_WARN };
struct maker_message {
	enum maker_kind kind;
	int32_t birth;  /* which process speaks */
	struct err err; /* only sent with MAKER_ERROR and MAKER_WARN */
};
/* err: NULL unless the message is about one. */
void maker_say(int control, enum maker_kind kind, int32_t birth, const struct err *err);
/* The maker's tables, made in memory shared with us. */
int maker_share(struct restoring *r, struct err *err);
/* Of all that were recorded, at least LOWEST_ID. */
int32_t maker_highest_id(const struct tree *t);
/* In the process itself: the room from which it is driven. */
int maker_map_workspace(const struct workspace *ws, struct err *err);

/* birth.c: in each process: makes its children, takes its place, and waits to be taken over. */
_Noreturn void birth_main(struct restoring *r, unsigned birth);

/* muster.c: hears from all that are made until they are ready, and seizes them. */
int muster(struct restoring *r, struct err *err);

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

/* protect.c: around it, where nobody may write to read-only memory. */
int protect_open(struct restoring *r, struct build_process *bp, struct err *err);
int protect_close(struct restoring *r, struct build_process *bp, struct err *err);
/* fill.c: memory and the content of shared spaces; with r->lazy, only what must be there when the
 * process begins to run, and r->filler has the rest. */
int fill_all(struct restoring *r, struct err *err);

/* threads.c */
int threads_make(struct restoring *r, struct build_process *bp, struct err *err);
int threads_attributes(struct restoring *r, struct build_process *bp, struct err *err);
/* Unmaps the workspace, sets the final registers; the process stays stopped. */
int threads_complete(struct restoring *r, struct build_process *bp, struct err *err);
/* restore/continued.c: the process has one thread still. */
int continued_again(struct build_process *bp, struct err *err);
/* NULL: it is not of the tree. */
struct build_process *restore_parent_of(struct restoring *r, const struct build_process *bp);
/* Into a group stop, by SIGSTOP or what its parent waits for: it stays so when it is let go. */
int threads_stop(struct restoring *r, struct build_process *bp, struct err *err);
/* Where the leader has ended before other threads: it does so again. It runs no more calls then. */
int threads_end_leader(struct build_process *bp, struct err *err);
void threads_release(struct build_process *bp);

/*
 * release.c: complete: from here on it runs. keeper_channel: who is told there, or -1. *released:
 * after a failure the processes are not restore.c's to undo any more.
 */
int restore_release(struct restoring *r, int keeper_channel, bool *released, struct restored *ret,
		    struct err *err);

/* lazy.c: before anybody is told that the job is there. */
int lazy_guard(struct restoring *r, struct err *err);
/* Lets the process run and sees to its memory, until all is there (0; it is then let go of)
 * or it has ended (0 too). After a failure the process has been killed. */
int lazy_serve(struct restoring *r, struct err *err);

/* keeper.c: restore_tree in a process of its own, which stays until all memory is there. */
int keeper_run(struct resolved *state, const struct tree *tree, const struct restore_opts *opts,
	       struct restored *ret, struct err *err);
/* restore.c: rebuilds, tells the keeper's parent (-1: there is none), and lets go. */
int restore_with(struct resolved *state, const struct tree *tree, const struct restore_opts *opts,
		 int keeper_channel, struct restored *ret, struct err *err);
/* keeper.c: in the keeper, once all has been rebuilt: its parent goes on. */
int keeper_tell(int channel, const struct restored *what, pid_t foreground, struct err *err);
