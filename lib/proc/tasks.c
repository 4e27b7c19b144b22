/* SPDX-License-Identifier: BSD-2-Clause */
/* Which threads a process has, and which children: /proc/PID/task. */
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>

static int open_dir(const char *path, const char *what, int *ret_dirfd, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return err_set(err, -ESRCH, "cannot look at %s: there is no such process", what);
	if (fd < 0)
		return err_set(err, -errno, "cannot look at %s: cannot open '%s': %m", what, path);
	*ret_dirfd = fd;
	return 0;
}

int proc_open_pid(pid_t pid, int *ret_dirfd, struct err *err)
{
	char path[32], what[32];

	(void)snprintf(path, sizeof path, "/proc/%d", pid);
	(void)snprintf(what, sizeof what, "pid %d", pid);
	return open_dir(path, what, ret_dirfd, err);
}

int proc_open_tid(pid_t pid, pid_t tid, int *ret_dirfd, struct err *err)
{
	char path[48], what[48];

	(void)snprintf(path, sizeof path, "/proc/%d/task/%d", pid, tid);
	(void)snprintf(what, sizeof what, "thread %d of pid %d", tid, pid);
	return open_dir(path, what, ret_dirfd, err);
}

int proc_threads(int dirfd, struct arena *a, pid_t **ret, unsigned *ret_n, struct err *err)
{
	return text_numbers(dirfd, "task", a, ret, ret_n, err);
}

static bool is_alive(pid_t pid, pid_t tid)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_stat st;

	return proc_open_tid(pid, tid, &dirfd, NULL) == 0 &&
	       proc_stat_read(dirfd, &st, NULL) == 0 && st.state != 'Z' && st.state != 'X';
}

pid_t proc_live_thread(pid_t pid)
{
	CLEANUP_FD int dirfd = -1;
	struct arena *a = NULL;
	pid_t *tids, live = pid;
	unsigned n = 0;

	if (is_alive(pid, pid))
		return pid;
	a = arena_new();
	if (!a || proc_open_pid(pid, &dirfd, NULL) < 0 ||
	    proc_threads(dirfd, a, &tids, &n, NULL) < 0)
		n = 0;
	for (unsigned i = 0; i < n && live == pid; i++)
		if (tids[i] != pid && is_alive(pid, tids[i]))
			live = tids[i];
	arena_free(a);
	return live;
}

static int add(struct arena *a, pid_t **list, unsigned *n, pid_t pid, struct err *err)
{
	pid_t *slot = arena_push(a, list, n, sizeof **list);

	if (!slot)
		return err_nomem(err);
	*slot = pid;
	return 0;
}

static int add_listed(const char *text, struct arena *a, pid_t **list, unsigned *n, struct err *err)
{
	uint64_t pid;
	int rc;

	while ((text = text_u64(text_blanks(text), 10, &pid))) {
		rc = add(a, list, n, (pid_t)pid, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Without CONFIG_PROC_CHILDREN: who names us as parent? The directory of all processes is the one
 * above. */
static int search_children(int dirfd, struct arena *a, pid_t **list, unsigned *n, struct err *err)
{
	CLEANUP_FD int all = openat(dirfd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct proc_status self;
	struct proc_stat stat;
	unsigned n_pids;
	int *pids, rc;

	if (all < 0)
		return text_fail(dirfd, "..", -errno, err);
	rc = proc_status_read(dirfd, a, &self, err);
	if (rc < 0)
		return rc;
	rc = text_numbers(all, ".", a, &pids, &n_pids, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < n_pids; i++) {
		if (proc_stat_of(all, pids[i], &stat, NULL) < 0)
			continue; /* ended meanwhile */
		if (stat.ppid == self.tgid && (rc = add(a, list, n, pids[i], err)) < 0)
			return rc;
	}
	return 0;
}

static int by_pid(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

int proc_children(int dirfd, struct arena *a, pid_t **ret, unsigned *ret_n, struct err *err)
{
	pid_t *tids, *list = NULL;
	unsigned n_tids, n = 0, unreadable = 0;
	int rc;

	rc = proc_threads(dirfd, a, &tids, &n_tids, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < n_tids; i++) {
		CLEANUP_FREE char *text = NULL;
		char name[48];

		(void)snprintf(name, sizeof name, "task/%d/children", tids[i]);
		rc = io_read_records(dirfd, name, &text, NULL);
		unreadable += rc < 0; /* the thread ended, or the kernel has no such file */
		rc = rc < 0 ? 0 : add_listed(text, a, &list, &n, err);
		if (rc < 0)
			return rc;
	}
	if (n_tids && unreadable == n_tids) {
		rc = search_children(dirfd, a, &list, &n, err);
		if (rc < 0)
			return rc;
	}
	if (n)
		qsort(list, n, sizeof *list, by_pid);
	*ret = list;
	*ret_n = n;
	return 0;
}
