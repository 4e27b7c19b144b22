/* SPDX-License-Identifier: BSD-2-Clause */
/* What stands in the way of single kinds of descriptors: sockets, queues, epoll, inotify,
 * terminals. */
#include "proc/able_int.h"

#include "proc/refusals.h"
#include "proc/watches.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- sockets ---------------------------------------------------------------------------------- */

/* The line of a table in /proc/PID/net that ends with this inode number, or has it as a word. */
static const char *line_of(const char *table, const char *inode)
{
	char end[32], word[32];
	const char *at;

	(void)snprintf(end, sizeof end, " %s\n", inode);
	(void)snprintf(word, sizeof word, " %s ", inode);
	at = strstr(table, end);
	if (!at)
		at = strstr(table, word);
	while (at && at > table && at[-1] != '\n')
		at--;
	return at;
}

/* The table is read once, and again where the socket is not in it. NULL: it is not there. */
static const char *find_line(struct looking *l, const char *file, char **table, const char *inode)
{
	const char *line = *table ? line_of(*table, inode) : NULL;
	CLEANUP_FREE char *text = NULL;

	if (line || io_read_file(l->dirfd, file, &text, NULL) < 0)
		return line;
	*table = arena_strdup(l->a, text);
	return *table ? line_of(*table, inode) : NULL;
}

static void look_at_netlink(struct looking *l, int fd, const char *line)
{
	unsigned protocol;

	/* "sk Eth Pid Groups ... Inode": Eth is the protocol */
	if (sscanf(line, "%*s %u", &protocol) == 1 && !refusal_knows_netlink(protocol))
		(void)able_obstacle(l, fd, NULL, "a netlink socket (protocol %u)", protocol);
}

void able_look_at_socket(struct looking *l, int fd, const char *name, const char *link)
{
	char path[64], kind[64] = "", inode[24];
	const char *line = NULL;
	bool netlink, is_unix;
	struct stat st;

	(void)snprintf(path, sizeof path, "/proc/%d/%s", l->pid, name);
	if (getxattr(path, "system.sockprotoname", kind, sizeof kind - 1) < 0)
		return; /* closed since */
	netlink = !strcmp(kind, "NETLINK");
	is_unix = !strncmp(kind, "UNIX", 4);
	(void)snprintf(inode, sizeof inode, "%.*s", (int)strcspn(link + 8, "]"), link + 8);
	if (!refusal_knows_protocol(kind))
		(void)able_obstacle(l, fd, NULL,
				    "a socket that is neither unix nor TCP, UDP or netlink (%s)",
				    kind);
	else if (netlink)
		line = find_line(l, "net/netlink", &l->netlink_sockets, inode);
	else if (is_unix)
		line = find_line(l, "net/unix", &l->unix_sockets, inode);
	/* a netlink socket is in its table once it is bound only */
	if (!line && is_unix && fstatat(l->dirfd, name, &st, 0) == 0)
		(void)able_obstacle(l, fd, refusal_hint_netns,
				    "a socket of another network namespace");
	else if (line && netlink)
		look_at_netlink(l, fd, line);
}

/* --- message queues --------------------------------------------------------------------------- */

/* Blocked by all threads, a signal is for sigwaitinfo() or a signalfd, which show its value. */
static bool is_blocked(const struct looking *l, pid_t pid, int signo)
{
	CLEANUP_FD int dirfd = -1;
	bool blocked = true;
	unsigned n;
	pid_t *tids;

	if (proc_open_pid(pid, &dirfd, NULL) < 0 || proc_threads(dirfd, l->a, &tids, &n, NULL) < 0)
		return false;
	for (unsigned i = 0; i < n && blocked; i++) {
		struct proc_status st;

		blocked = proc_thread_status_read(dirfd, tids[i], l->a, &st, NULL) == 0 &&
			  (st.sig_blocked & 1ULL << (signo - 1));
	}
	return blocked;
}

/* The first process of the tree with the same table of descriptors, where that is another. */
static pid_t shares_files_with(const struct looking *l, pid_t pid)
{
	for (unsigned i = 0; i < l->n_pids && l->pids[i] != pid; i++)
		if (syscall(SYS_kcmp, pid, l->pids[i], KCMP_FILES, 0, 0) == 0)
			return l->pids[i];
	return 0;
}

/* The queue's file says who is to be told of a message. Whether a handler is shown the signal's
 * value, nobody but the process can say. */
void able_look_at_queue(struct looking *l, int fd, const char *name, const char *path)
{
	CLEANUP_FD int queue = openat(l->dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct mq_told told;
	pid_t other;

	if (queue < 0 || !proc_mq_told(queue, &told))
		return;
	other = shares_files_with(l, told.pid);
	if (!able_in_tree(l, told.pid))
		(void)able_obstacle(l, fd, NULL, REFUSAL_TOLD_OUTSIDE, path, told.pid);
	else if (told.how == SIGEV_THREAD)
		(void)able_obstacle(l, fd, NULL, REFUSAL_TOLD_THREAD, path);
	else if (told.how == SIGEV_SIGNAL && told.signo > 0 && told.signo <= 64 &&
		 is_blocked(l, told.pid, told.signo))
		(void)able_obstacle(l, fd, refusal_hint_told_value, REFUSAL_TOLD_VALUE, path,
				    (unsigned)told.signo);
	else if (other)
		(void)able_obstacle(l, fd, refusal_hint_told_shared, REFUSAL_TOLD_SHARED, path,
				    told.pid, other);
}

/* --- epoll ------------------------------------------------------------------------------------ */

struct epoll_search {
	const struct looking *l;
	pid_t pid;
	int fd;
	struct kcmp_epoll_slot slot;
	uint64_t ino, dev;
};

/* Does the process have the epoll, too, and so can add the watch? */
static bool has_epoll(const struct epoll_search *s, const struct able_fd *f)
{
	unsigned n;
	int *fds;

	if (f->pid == s->pid || proc_fds(f->dirfd, s->l->a, &fds, &n, NULL) < 0)
		return true;
	for (unsigned i = 0; i < n; i++)
		if (syscall(SYS_kcmp, f->pid, s->pid, KCMP_FILE, (unsigned long)fds[i],
			    (unsigned long)s->fd) == 0)
			return true;
	return false;
}

static bool is_watched(void *arg, const struct able_fd *f)
{
	struct epoll_search *s = arg;
	struct stat st;
	long rc;

	if (fstatat(f->dirfd, f->name, &st, 0) < 0 || st.st_ino != s->ino ||
	    ((uint64_t)major(st.st_dev) << 20 | minor(st.st_dev)) != s->dev)
		return false;
	rc = syscall(SYS_kcmp, f->pid, s->pid, KCMP_EPOLL_TFD, (unsigned long)f->fd, &s->slot);
	/* where it may not be asked, the inode must do */
	return rc < 0 || (rc == 0 && has_epoll(s, f));
}

/* What an epoll watches must be open somewhere still, or the watch could not be added again. */
void able_look_at_epoll(struct looking *l, int fd, const struct proc_fdinfo *info)
{
	for (unsigned i = 0; i < info->n_watches; i++) {
		const struct proc_fdinfo_watch *w = &info->watches[i];
		struct epoll_search s = { .l = l,
					  .pid = l->pid,
					  .fd = fd,
					  .slot = { .efd = (uint32_t)fd, .tfd = (uint32_t)w->fd },
					  .ino = w->ino,
					  .dev = w->dev };
		struct able_fd same = { .pid = l->pid, .dirfd = l->dirfd, .fd = w->fd };
		char name[32];

		(void)snprintf(name, sizeof name, "fd/%d", w->fd);
		same.name = name;
		for (unsigned k = 0; k < i; k++) /* several with one number: in fdinfo's order */
			s.slot.toff += info->watches[k].fd == w->fd;
		if (w->ino && !is_watched(&s, &same) && !able_any_fd(l, is_watched, &s))
			(void)able_obstacle(l, fd, NULL,
					    "epoll that watches a file (added as descriptor %d) "
					    "which is no longer open beside it",
					    w->fd);
	}
}

/* --- inotify ---------------------------------------------------------------------------------- */

static bool add_place(void *arg, const struct able_fd *f)
{
	struct watch_search *s = arg;
	char *path;

	if (proc_link(f->dirfd, f->name, s->arena, &path, NULL, NULL) == 0)
		watches_near_file(s, path);
	return false;
}

static void look_near(struct looking *l, struct watch_search *s)
{
	for (unsigned i = 0; i < l->n_pids; i++) {
		CLEANUP_FD int dirfd = -1;

		if (proc_open_pid(proc_live_thread(l->pids[i]), &dirfd, NULL) == 0)
			watches_near_process(s, dirfd);
	}
	(void)able_any_fd(l, add_place, s);
	watches_look_around(s);
}

void able_look_at_inotify(struct looking *l, int fd, const struct proc_fdinfo *info)
{
	struct file_inotify d = { .n_watches = info->n_watches };
	struct watch_search s = { .arena = l->a, .d = &d, .n_open = info->n_watches };

	d.watches = arena_array(l->a, info->n_watches, sizeof *d.watches);
	if (!d.watches)
		return;
	for (unsigned i = 0; i < info->n_watches; i++)
		d.watches[i] = (struct inotify_watch){ .wd = info->watches[i].fd,
						       .ino = info->watches[i].ino,
						       .dev = info->watches[i].dev };
	watches_by_handle(&s, l->dirfd, fd);
	if (s.n_open)
		look_near(l, &s);
	for (unsigned i = 0; i < d.n_watches; i++)
		if (!d.watches[i].path)
			(void)able_obstacle(l, fd, arena_printf(l->a, REFUSAL_WATCH_HINT, fd),
					    REFUSAL_WATCH, d.watches[i].wd,
					    (unsigned long long)d.watches[i].ino);
}

/* --- terminals -------------------------------------------------------------------------------- */

struct terminal_search {
	dev_t slave; /* /dev/pts/N, or another terminal */
	bool streams;
};

/* As standard stream of anybody, or (streams unset) as any descriptor. */
static bool is_terminal(void *arg, const struct able_fd *f)
{
	const struct terminal_search *s = arg;
	struct stat st;

	return (!s->streams || f->fd <= 2) && fstatat(f->dirfd, f->name, &st, 0) == 0 &&
	       S_ISCHR(st.st_mode) && st.st_rdev == s->slave;
}

/* The N of /dev/pts/N whose master the descriptor is; -1: it is none. */
static int master_index(int dirfd, int fd)
{
	CLEANUP_FREE char *text = NULL;
	const char *at;
	char name[32];

	(void)snprintf(name, sizeof name, "fdinfo/%d", fd);
	if (io_read_file(dirfd, name, &text, NULL) < 0)
		return -1;
	at = strstr(text, "tty-index:");
	return at ? atoi(at + 10) : -1;
}

static dev_t slave_device(int index)
{
	return makedev(136 + (unsigned)index / (1 << 20), (unsigned)index % (1 << 20));
}

static bool is_its_master(void *arg, const struct able_fd *f)
{
	const struct terminal_search *s = arg;
	struct stat st;
	int index;

	if (fstatat(f->dirfd, f->name, &st, 0) < 0 || !S_ISCHR(st.st_mode) ||
	    st.st_rdev != makedev(5, 2))
		return false;
	index = master_index(f->dirfd, f->fd);
	return index >= 0 && slave_device(index) == s->slave;
}

/* A terminal must be the job's own, or both ends of it in the job. */
void able_look_at_terminal(struct looking *l, int fd, const char *link, dev_t rdev)
{
	struct terminal_search s = { .slave = rdev, .streams = true };
	struct proc_stat st;

	if (rdev == makedev(5, 0))
		return;
	if (proc_stat_read(l->dirfd, &st, NULL) == 0 && st.tty_nr && proc_tty_device(&st) == rdev)
		return;
	if (!able_any_fd(l, is_terminal, &s) && !able_any_fd(l, is_its_master, &s))
		(void)able_obstacle(l, fd, NULL,
				    "'%s', which is not the terminal that the job runs on,", link);
}

/* The session on that terminal, 0: none that we see. */
static pid_t session_on(dev_t slave)
{
	CLEANUP_DIR DIR *d = opendir("/proc");
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		pid_t pid = (pid_t)atoi(e->d_name);
		struct proc_stat st;

		if (pid > 0 && proc_stat_of(dirfd(d), pid, &st, NULL) == 0 && st.tty_nr &&
		    proc_tty_device(&st) == slave)
			return st.session;
	}
	return 0;
}

/* The slave of this pseudo-terminal may be the terminal of somebody outside. */
void able_look_at_master(struct looking *l, int fd)
{
	int index = master_index(l->dirfd, fd);
	struct terminal_search s = { .slave = slave_device(MAX(index, 0)) };
	pid_t session;

	if (index < 0 || able_any_fd(l, is_terminal, &s))
		return;
	session = session_on(s.slave);
	if (session && !able_in_tree(l, session))
		(void)able_obstacle(l, fd, NULL,
				    "the terminal (/dev/pts/%d) of session %d, which is not in the "
				    "job,",
				    index, session);
}
