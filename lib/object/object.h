/* SPDX-License-Identifier: BSD-2-Clause */
/* Kinds of things a process holds: each kind's capture and restore stand side by side, behind
 * tables. */
#pragma once

#include "inject/remote.h"
#include "proc/proc.h"
#include "state/tree.h"
#include "trace/regs.h"
#include "util/arena.h"
#include "util/err.h"
#include "util/idmap.h"

#include <stdbool.h>
#include <sys/stat.h>

/* --- capture: everything of the tree is stopped
 * ---------------------------------------------------- */

struct watch_memory;

/* A process being captured. */
struct subject {
	struct process *process; /* what is being filled in */
	pid_t pid;               /* as seen from here (process->pid is as the job sees it) */
	int pidfd;
	int proc_dirfd; /* /proc/PID */
	/* What its files status and stat said before anything was asked inside: of the thread that
	 * runs calls, which is not the leader where that has ended. The kernel finds memory by
	 * status.ns_pid then, not by process->pid. */
	struct proc_status status;
	struct proc_stat stat;
	struct remote *remote; /* calls can be run in its leader */
	struct batch
		*batch; /* a batch of that remote, free for use between calls of this interface */
	bool has_continued; /* a child to be waited for with WCONTINUED */
};

/* What /proc shows of a process's descriptors, ascending. */
struct fd_look {
	int fd;
	struct proc_fdinfo info;
	char *link; /* " (deleted)" cut off */
	bool deleted;
};

struct fd_looks {
	struct fd_look *v;
	unsigned n;
};

/* Content that dump/ reads from a descriptor when it writes the pages of a space. */
struct space_source {
	uint32_t space;
	int fd;      /* pread at any offset; owned by the capture */
	bool theirs; /* it is the job's own description, whose offset must not be moved */
};

/* A descriptor that --fd leaves out of the image. */
struct left_out {
	dev_t dev;
	ino_t ino;
	bool reads, writes;
};

struct capture {
	struct arena *arena;
	struct tree *tree;
	struct subject *subjects; /* one for each tree->processes[i], same order */
	unsigned n_subjects;
	struct space_source *sources;
	unsigned n_sources;
	/* Where ckpt-run's own three standard streams lead is where the job's did: see
	 * object/outside.c. */
	/* Gives the id that `key` has had along this chain, or a new one. */
	uint32_t (*space_id)(void *arg, const char *key);
	void *space_id_arg;
	/* Somebody has looked at the descriptors of subject i ahead: NULL: nobody has. May be NULL
	 * itself. */
	const struct fd_looks *(*looked_at)(void *arg, unsigned i);
	void *looked_at_arg;
	struct open_file
		*open_files; /* working memory of object/files.c, parallel to tree->files */
	unsigned n_open_files;
	bool tcp_repair; /* --tcp repair */
	bool job_ends;   /* with this checkpoint */
	/* Unread inotify events: put_off says that they made this attempt fail; they are to be lost
	 * if they are still there. */
	bool put_off, lose_events;
	struct watch_memory
		*watches;          /* of inotify: where earlier checkpoints found them; or NULL */
	struct left_out *left_out; /* what --fd leaves out */
	unsigned n_left_out;
	int *held; /* connections that stay under repair until the job has ended */
	unsigned n_held;
	struct socket_fresh *fresh_sockets; /* working memory of object/socket_options.c */
	struct gathering *gathering;        /* of object/gather.c, while it is in there */
	unsigned *later;                    /* indices of open_files: what is left for files_ask */
	unsigned n_later;
	struct idmap job_pids;  /* working memory of object/socket_queue.c */
	struct subject *flight; /* stands for whoever has what is on its way in a socket */
	/* object/nspace.c: the namespaces that the job has from its surroundings, by inode number;
	 * 0: not known */
	bool namespaces_known;
	ino_t namespaces[PROC_NAMESPACES];
};

/*
 * Adds a space with content read from fd (taken over; -1: content comes from a process's memory,
 * see dump/) unless one with this key is there already; returns its id, 0 when out of memory. key:
 * "shm:DEV:INO" and the like.
 */
uint32_t capture_space(struct capture *c, enum space_kind kind, const char *key, const char *name,
		       uint64_t size, int fd);
void space_source_is_theirs(struct capture *c, uint32_t space);
void capture_close_sources(struct capture *c);
/* The space of a shared mapping of a named file in memory (tmpfs); 0: it is no such file. */
int tmpfs_capture_mapping(struct capture *c, const struct proc_map *m, uint32_t *ret,
			  struct err *err);
/* The space of an attached segment of System V shared memory; 0: out of memory. */
uint32_t sysv_space(struct capture *c, int id, uint64_t size, int fd);
/* When all mappings are captured: the job's System V IPC objects. */
int sysv_capture(struct capture *c, struct err *err);
/* The key of the shared memory (SPACE_SHM) or nameless file (SPACE_FILE) with this device and inode
 * number. */
#define SPACE_KEY_LEN 64
void space_key(char ret[SPACE_KEY_LEN], enum space_kind kind, unsigned dev_major,
	       unsigned dev_minor, uint64_t ino);

/* A descriptor of the job as seen from outside: what kinds look at to recognise it. */
struct open_file {
	struct subject *subject; /* through which it was seen first */
	int fd;                  /* its number there */
	int dup;                 /* our duplicate (pidfd_getfd); closed when the capture ends */
	struct stat st;
	char *link; /* readlink /proc/PID/fd/N, " (deleted)" cut off */
	bool deleted;
	int flags; /* F_GETFL */
	struct proc_fdinfo info;
	long fs_magic;    /* statfs f_type; 0 for what is neither a regular file nor a directory */
	bool substituted; /* --fd N=null: /dev/null is seen in its place */
	int stream; /* 0, 1, 2: leads out of the tree and stands for that standard stream; else -1
		     */
	/* Pseudo-terminals whose master is in the tree, or gone (object/pty.c). */
	enum pty_side { PTY_NO, PTY_MASTER, PTY_SLAVE, PTY_HUNG_UP } pty;
	unsigned pty_index;
	/* Pipes and FIFOs: what object/pipe.c found out about their other side. */
	bool outside;                /* the other side is held by someone outside the tree */
	bool no_readers, no_writers; /* nobody at all holds the other side */
	bool never_written;          /* a FIFO that no writer has opened yet */
	bool *content_taken;         /* one for all its ends: the image has what is in it */
	struct socket_seen *sock; /* sockets: what object/socket.c found out; NULL: none of ours */
	/* On its way in a socket's queue: the number of that socket's description, and then fd is
	 * that of our own duplicate; -1: a process has it. */
	int carrier;
	int carrier_fd; /* a number of that socket, for messages */
};

struct rebuild;
struct placer;

/* One kind of open file. Adding a kind: a file in object/ and a row in object/files.c. */
struct file_ops {
	enum file_kind kind;
	/* Is it of this kind? The first match in table order wins. */
	bool (*match)(const struct capture *c, const struct open_file *of);
	/* Fills f->detail (and whatever of the common fields the kind knows better). -EOPNOTSUPP
	 * with a message "pid 12 fd 3: WHAT is not supported" refuses the checkpoint. May be NULL.
	 */
	int (*capture)(struct capture *c, const struct open_file *of, struct file *f,
		       struct err *err);
	/* After all files are known (epoll needs the others' ids). May be NULL. */
	int (*link)(struct capture *c, const struct open_file *of, struct file *f, struct err *err);
	/* Before anything is created: can it be restored here? Message names path, fd and pid. May
	 * be NULL. */
	int (*check)(const struct rebuild *rb, const struct file *f, struct err *err);
	/* Makes the open file description; runs as ordinary C in the process that becomes the
	 * tree's root, in its namespaces. Sets offset and status flags itself where the common code
	 * (F_SETFL, lseek) will not do. */
	int (*open)(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err);
	/* When all descriptors of process p are in place, adds what is left to do to the batch
	 * (epoll_ctl), making room with placer_room. Called once for each file of p, with its
	 * lowest descriptor. May be NULL. */
	int (*finish)(struct rebuild *rb, const struct process *p, const struct fd *fd,
		      const struct file *f, struct placer *pl, struct err *err);
};

/* What /proc says of the descriptors of the process whose directory that is: whoever asks. */
int fds_look(int proc_dirfd, struct arena *a, struct fd_looks *ret, struct err *err);
/* Captures all descriptors of all subjects: tree->files and process->fds. Refuses by name what no
 * kind matches. */
int files_capture(struct capture *c, struct err *err);
/*
 * What files_capture has left to be asked, c->n_later answers in all, since each takes long and
 * another thread can do it: files_ask changes nothing in c. Before files_capture_done each is
 * handed in, or NULL: then it is asked here.
 */
int files_ask(struct capture *c, unsigned i, struct arena *a, void **ret, struct err *err);
int files_answered(struct capture *c, unsigned i, void *answer, struct err *err);
/* Closes our duplicates (sources stay). */
void files_capture_done(struct capture *c);
/* Whoever captured was killed, at any instant: what it had open of the job's is closed, and no
 * connection stays under repair. */
void files_forsaken(struct capture *c);
/* When the job has ended, or will not: lets go of the TCP connections that were held (job_ends). */
void files_let_go(struct capture *c, bool ended);
/* The file (of tree->files) behind a descriptor number of a subject, NULL if not open. */
struct file *files_by_fd(struct capture *c, const struct subject *s, int fd);

/* --- restore
 * -------------------------------------------------------------------------------------- */

struct path_map {
	const char *old_prefix, *new_prefix;
};

struct rebuild_opts {
	const struct path_map *maps;
	unsigned n_maps;
	const int *inherit; /* --inherit FD: descriptors of the caller to use in place of the
			       image's */
	unsigned n_inherit;
	bool tcp_repair; /* --tcp repair */
};

struct rebuild {
	const struct tree *tree;
	const struct rebuild_opts *opts;
	struct arena *arena;
	/* A line for the user; may be NULL. */
	void (*warn)(void *arg, const char *msg);
	void *warn_arg;
	int fd_base; /* descriptors made for the tree lie at fd_base and above until they are put in
			place */
	int *file_fds;     /* parallel to tree->files: made description, -1 = none */
	int *socket_temps; /* parallel to tree->files: ends of connections that are needed only
			      until all that is unread has been put back, -1 = none */
	int *space_fds; /* parallel to tree->spaces: memfd or file to be filled with a SHM or FILE
			   space, -1 = none */
	/* Parallel to tree->files, of pipes and FIFOs: which are ends of the same one (in the
	 * maker); next: -1: that is all. */
	struct pipe_end {
		int first, next;
	} * pipe_ends;
	bool *ipc_there; /* object/ipc_undo.c */
	int tag;         /* our process id, for names of files in the making */
	bool new_pids;   /* processes and threads did not get their recorded ids */
	/* recorded id -> id in the rebuilt tree (the same unless new_pids); 0 when unknown */
	int32_t (*new_id)(const struct rebuild *rb, int32_t recorded);
	const int32_t (*id_map)[2];
	unsigned n_id_map;
};

/* A recorded path with --map applied (arena-allocated when changed). */
const char *rebuild_path(const struct rebuild *rb, const char *path);
/*
 * A directory that is gone is as good as any other that is gone, but for what is above it: ".."
 * still leads there. So another is made where it was (its path), and deleted: in this directory,
 * with a slash at its end, or in /tmp if that may not be written to.
 */
const char *rebuild_above_gone(const struct rebuild *rb, const char *path);
/* For messages: "pid 12 fd 3" of some process that has the file. Arena-allocated. */
const char *rebuild_file_owner(const struct rebuild *rb, const struct file *f);
/* Opens a regular file of ours whose mode forbids that; -1 with errno. */
int open_lent(const char *path, int flags);
/* Is it a regular file that the job only reads, and longer than at the checkpoint? */
bool file_has_grown(const struct rebuild *rb, const struct file *f);

/* Index of a file in tree->files by id, -1 when there is none. */
int file_index(const struct tree *t, uint32_t id);
/* Everything that can be said before anything is created. */
int files_check(const struct rebuild *rb, struct err *err);
/* In the maker: opens all files (and a memfd for each shared space without a file) at fd_base and
 * above. */
int files_open(struct rebuild *rb, struct err *err);
/* Remote: puts process p's descriptors in place, closes everything at fd_base and above, then
 * finishes kinds. */
int files_place(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		struct err *err);
/* Remote, once for each process when all processes and threads of the tree exist: who gets SIGIO
 * (F_SETOWN_EX, O_ASYNC). */
int files_place_late(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		     struct err *err);
/*
 * When all content is filled in and all mappings are made: cuts output files back to their recorded
 * size, puts the seals on memfds, and modes and times on files without a name. get_fd turns a
 * number of rb->file_fds or rb->space_fds into a descriptor of the caller's own, which is closed
 * here (pidfd_getfd on a process that still holds it); NULL: the caller is the maker itself.
 */
int files_seal(struct rebuild *rb, int (*get_fd)(void *arg, int maker_fd), void *arg,
	       struct err *err);

/*
 * pty_make.c: in the leader of a session that has been started, before its members are born: takes
 * the pseudo-terminal of the tree that controls it, if one does. With a group, later: makes that
 * the foreground group.
 */
int ptys_control(const struct rebuild *rb, int32_t session, pid_t group);
/* The recorded foreground group of the terminal that controls the session, 0: none. */
int32_t ptys_foreground_group(const struct tree *t, int32_t session);
/* A file of this kind whose content is the space, NULL when only mappings refer to it. */
const struct file *space_file(const struct tree *t, uint32_t space, enum file_kind kind);
/* sysv_make.c: the segment whose content is this space, NULL if it is none. */
const struct sysv_shm *sysv_shm_of(const struct tree *t, uint32_t space);
/* Has the tree objects of an IPC namespace? */
bool ipc_any(const struct tree *t);
/* Remote, when the tree has attached its segments and the spaces are filled: their content. */
int sysv_put(struct rebuild *rb, int (*get_fd)(void *arg, int maker_fd), void *arg, struct batch *b,
	     pid_t tid, struct err *err);
/* semundo.c: remote, when the semaphores have their values: what is undone when p ends. */
int sem_undos_put(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		  struct err *err);
/* ipc_undo.c: which IPC objects are there before anything is made; after a failure: those that were
 * not go. */
int ipc_note(struct rebuild *rb, struct err *err);
void ipc_undo(const struct rebuild *rb);
/* After a failure: files in the making go. */
void tmpfs_undo(const struct rebuild *rb);

/* --- attributes of processes and threads (signals, timers, identity, scheduling)
 * --------------------- */

/*
 * Process attributes: signal dispositions, pending signals, itimers, POSIX timers, limits, umask,
 * cwd, root, exe, credentials, personality, prctl flags, oom_score_adj. Runs batches in the leader;
 * reads /proc and uses ptrace(PEEKSIGINFO) on the stopped threads. Refuses by name (seccomp filter,
 * foreign uid, non-dumpable, ...). With the facts of the leader, threads[0] (inject/live.h), and
 * the break (mm.brk).
 */
int attrs_capture_process(struct capture *c, struct subject *s, struct err *err);
/*
 * To be called for the leader first, and before live_begin: the threads then still have their own
 * signal masks, and this is where a process is refused by name in which no calls must be run
 * (seccomp filter, 32-bit, foreign uid, ...). Thread attributes that can be had from outside: name,
 * mask, pending signals, scheduling, affinity, ioprio, robust list, rseq. (Those that only the
 * thread itself can say - alternate stack, clear_child_tid, timer slack, parent-death signal - come
 * from inject/live.h.) regs: what it was stopped with. st: its status.
 */
int attrs_capture_thread(struct capture *c, struct subject *s, pid_t tid,
			 const struct thread_regs *regs, const struct proc_status *st,
			 struct thread *t, struct err *err);
/* Those, once they have been asked for. */
struct thread_facts;
void attrs_take_facts(struct thread *t, const struct thread_facts *facts);
/* Before anything is created: credentials that cannot be had, limits above the hard limit, missing
 * cwd... */
int attrs_check(const struct rebuild *rb, struct err *err);
/* Locks what was locked (mlock(2), mlockall(2)), once all memory is mapped and filled. */
int memlock_put(const struct process *p, struct batch *b, pid_t tid, struct err *err);
/* Remote, after memory and descriptors are in place, in the leader: everything process-wide but
 * what attrs_put_thread does. */
int attrs_put_process(struct rebuild *rb, const struct process *p, struct batch *b, pid_t tid,
		      struct err *err);
/*
 * Remote, in each thread (actual id tid), the leader last, since the others need what it gives up:
 * name, altstack, robust list, clear_child_tid, rseq, scheduling, pending signals; then
 * capabilities, credentials, no_new_privs. leader: timers armed, limits and the dumpable flag too.
 */
int attrs_put_thread(struct rebuild *rb, const struct process *p, const struct thread *t,
		     bool leader, struct batch *b, pid_t tid, struct err *err);
