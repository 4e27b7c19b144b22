/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kinds of open files share: the table, refusals, helpers of capture and restore. */
#pragma once

#include "object/object.h"
#include "util/cleanup.h"

#include <string.h>

/* Rows of the table in files.c. */
extern const struct file_ops path_ops, outside_ops, tty_ops, device_ops, pipe_ops, fifo_ops,
	eventfd_ops;
extern const struct file_ops timerfd_ops, signalfd_ops, epoll_ops, inotify_ops, memfd_ops,
	procfile_ops, pty_ops, mqueue_ops, pidfd_ops;
extern const struct file_ops socket_ops;
extern const struct file_ops directory_ops, deleted_ops, regular_ops, unsupported_ops;
/* NULL when this version cannot restore the kind. */
const struct file_ops *file_ops_of(uint32_t kind);

/* --- capture ---------------------------------------------------------------------------------- */

/* Sets "pid 12 fd 3: MESSAGE" and returns -EOPNOTSUPP: the checkpoint is refused. */
int refuse(const struct open_file *of, struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Like refuse, with another error. */
int fd_error(const struct open_file *of, struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* For tests: do as if kcmp were forbidden; as if fdinfo did not show whether an eventfd is a
 * semaphore. */
extern bool gather_force_no_kcmp, eventfd_force_try;

/*
 * gather.c: duplicates every descriptor of every subject and groups them by open file description.
 */
int files_gather(struct capture *c, struct err *err);
/* files_forsaken in the middle of that; a descriptor of somebody who was killed. */
void gather_forsaken(struct capture *c);
void forsake(int *fd);

/* A descriptor of the same file that can be read at any offset, whatever the original was opened
 * for. 1: not of a description of our own, which the job's user may not open
 * (space_source_is_theirs).
 */
int open_readable(const struct open_file *of, int *ret_fd, struct err *err);
/* 0: the same open file description; 1, 2: not, in a stable order; -errno: this system does not
 * tell. */
int same_description(int a, int b);

/* Are a and b (of our own descriptors) one file? */
static inline bool same_inode(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* pipe.c: which pipes and FIFOs lead out of the tree. */
struct inode_list {
	struct inode_ref {
		dev_t dev;
		ino_t ino;
	} * v;
	unsigned n;
};
/* The pipes and sockets that we ourselves hold (to be listed before anything of the job is
 * duplicated). */
int pipes_own(struct arena *a, struct inode_list *ret, struct err *err);
bool inode_listed(const struct inode_list *l, const struct stat *st);
int pipes_survey(struct capture *c, const struct inode_list *own, struct err *err);
/* In the maker, before any file is opened: which files are ends of one pipe (rb->pipe_ends). */
int pipes_link(struct rebuild *rb, struct err *err);
/* pty.c: which terminals are pseudo-terminals of the job's own. */
int ptys_survey(struct capture *c, struct err *err);
/* socket.c: what sockets are connected to, and what is unread in them; adds the files that are on
 * their way in them to the table. */
int sockets_survey(struct capture *c, const struct inode_list *own, struct err *err);
/* A socket whose other end, or another descriptor, is with someone outside the tree. */
bool socket_leads_outside(const struct open_file *of);
/* flight.c: the id of the file that fd (which is taken over) refers to, on its way in the socket of
 * number carrier; a negative errno on failure. */
int flight_add(struct capture *c, unsigned carrier, int fd, struct err *err);
/* gather.c */
int file_look_closer(struct capture *c, struct open_file *of, struct err *err);
/*
 * outside.c: marks what stands for a standard stream; gives each of 0, 1 and 2 a file of its own.
 */
int outside_survey(struct capture *c, struct err *err);
/* The modes of the job's terminal. */
int terminal_capture(struct capture *c, struct err *err);
bool is_terminal(const struct open_file *of);
/* 0..2 when a description that is open as those (bit n of mask) should stand for one stream. */
int outside_pick(unsigned mask, int flags);

/* locks.c */
int locks_capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err);
int locks_capture_posix(struct capture *c, struct process *p, uint32_t file,
			const struct proc_fdinfo *info, struct err *err);
int locks_open(const struct file *f, int fd, struct err *err);
int locks_put_posix(struct rebuild *rb, const struct process *p, struct placer *pl,
		    struct err *err);

/* lease.c; a file with a write lease must not be opened once more: that would break the lease */
bool lease_is_write(const struct open_file *of);
int lease_capture(const struct capture *c, const struct open_file *of, struct file *f,
		  struct err *err);
int lease_put(struct rebuild *rb, const struct process *p, const struct file *f, int fd,
	      struct placer *pl, struct err *err);

/* --- restore ---------------------------------------------------------------------------------- */

/* A batch that is run whenever it is full. */
struct placer {
	struct batch *b;
	pid_t tid;
};
int placer_room(struct placer *pl, unsigned n_calls, size_t len, struct err *err);

/*
 * open.c: the caller's descriptor that --inherit names to be used in place of f, -1: f is restored.
 */
int file_inherited(const struct rebuild *rb, const struct file *f);
/* Index of a space in tree->spaces by id, -1 when there is none. */
int space_index(const struct tree *t, uint32_t id);
/* The first process (in tree order) that has the file; ret_fd: its lowest descriptor of it. NULL:
 * none has. */
const struct process *file_first_holder(const struct tree *t, uint32_t file,
					const struct fd **ret_fd);

/* open(2) flags that make the recorded description again by path. */
int reopen_flags(const struct file *f);
/* Opens f->path as it was; the message names the path and says what to do. */
int reopen_path(const struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err);
/* Opens what fd refers to once more with the given flags. */
int reopen_fd(int fd, int flags);
/* stat of f's path as it is now; the message names the path. */
int check_path(const struct rebuild *rb, const struct file *f, struct stat *ret, struct err *err);
/* Moves a descriptor to rb->fd_base or above (closing the old number), raising RLIMIT_NOFILE when
 * needed. */
int lift_fd(struct rebuild *rb, int *fd, struct err *err);
/* A copy at rb->fd_base or above of a descriptor that stays. */
int lift_copy(struct rebuild *rb, int fd, int *ret_fd, struct err *err);

/* spaces.c: makes what holds the content of each shared space; fills rb->space_fds. */
int spaces_open(struct rebuild *rb, struct err *err);
/* deleted.c, memfd.c: make the file or memfd of space number i. */
int deleted_make(struct rebuild *rb, unsigned i, int *ret_fd, struct err *err);
int memfd_make(struct rebuild *rb, unsigned i, int *ret_fd, struct err *err);
/* socket.c: makes all sockets, connected to each other as they were; puts back what was unread in
 * them, when all files are open, and gives them their options. */
int sockets_make(struct rebuild *rb, struct err *err);
int sockets_fill(struct rebuild *rb, struct err *err);
/* relay.c: is the description one that several processes get from the first who has it? */
bool relay_needed(const struct tree *t, const struct file *f);
/* In the maker: what stands for such a description until then. */
int relay_make(int *ret_fd, struct err *err);
/* How it is opened: by path if there is one, else with arg; what is for the message. */
struct relay_call {
	const char *what, *path;
	long nr;
	uint64_t arg, flags;
};
/* Has p the description of its n'th descriptor by an earlier number too, and so been given it? */
bool relay_opened(const struct process *p, unsigned n);
/* Before descriptors are put in place: p gets description number at of the tree, shared or not. */
int relay_open(const struct rebuild *rb, const struct process *p, int at, struct placer *pl,
	       const struct relay_call *call, struct err *err);
/* pidfd.c: before descriptors are put in place, when all processes are there. */
int pidfds_place(struct rebuild *rb, const struct process *p, struct placer *pl, struct err *err);
/* procfile.c: the same for files about processes; and, in place of what stands at their numbers,
 * for those about threads, when all of these are there. */
int procfiles_place(struct rebuild *rb, const struct process *p, struct placer *pl,
		    struct err *err);
int procfiles_place_late(struct rebuild *rb, const struct process *p, struct placer *pl,
			 struct err *err);
/* rules.c: what --fd says of the descriptor. */
enum fd_action fd_rule(const struct settings *s, int fd);
/* Capturing f has ended in rc: true if it is left out of the image, for --unsupported close. */
bool rules_drop(struct capture *c, struct file *f, int rc);
/* sysv_make.c: in the maker, all but the content of shared memory. */
int sysv_make(struct rebuild *rb, struct err *err);
/* semundo.c: when all semaphores are known. */
int sem_undos_capture(struct capture *c, struct err *err);
/* tmpfs.c: the content of named files in memory. */
int tmpfs_capture_file(struct capture *c, const struct open_file *of, struct file *f,
		       struct err *err);
/* Is the file made anew, rather than opened by its path? */
bool tmpfs_remakes(const struct rebuild *rb, const struct file *f);
/* ret_fd -1: it is there. */
int tmpfs_make(struct rebuild *rb, unsigned i, int *ret_fd, struct err *err);
int tmpfs_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err);
/* Filled: it gets its name. */
int tmpfs_finish(struct rebuild *rb, const struct space *s, int fd, struct err *err);
/* regular.c: can the file be opened again by its path, as it was opened, by us? Else errno says why
 * not. */
bool regular_reachable(const struct open_file *of);
/* regular.c: cuts a file that was open for writing back to its recorded size. */
int regular_cut_back(const struct file *f, int fd, struct err *err);
/* Shared by FILE_DELETED and FILE_MEMFD. */
int content_check(const struct rebuild *rb, const struct file *f, struct err *err);
int content_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err);
