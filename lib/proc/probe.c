/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of probes and the child that each runs in. */
/*
 * A child, since what a probe does to its
 * process (namespaces, page tables made write-protected by clear_refs, a crash if the kernel is not
 * what we think) must not stay with us.
 */
#include "proc/probe.h"
#include "proc/probe_list.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const struct probe {
	const char *name;
	void (*run)(struct probe_result *r);
} probes[PROBE_COUNT] = {
	[PROBE_PAGEMAP_SCAN] = { "pagemap_scan", probe_run_pagemap_scan },
	[PROBE_USERNS] = { "userns", probe_run_userns },
	[PROBE_SET_TID] = { "set_tid", probe_run_set_tid },
	[PROBE_TIMENS] = { "timens", probe_run_timens },
	[PROBE_GUARD_REGIONS] = { "guard_regions", probe_run_guard_regions },
	[PROBE_UFFD_WP_ASYNC] = { "uffd_wp_async", probe_run_uffd_wp_async },
	[PROBE_PROC_MEM] = { "proc_mem", probe_run_proc_mem },
	[PROBE_SOFT_DIRTY] = { "soft_dirty", probe_run_soft_dirty },
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	bool known;
	struct probe_result result;
} cache[PROBE_COUNT];

void probe_no(struct probe_result *r, const char *what)
{
	int code = errno;

	r->ok = false;
	errno = code;
	(void)snprintf(r->why, sizeof r->why, "%s: %m", what);
}

int probe_clone(uint64_t flags)
{
	int parent = (int)syscall(SYS_getpid);
	int pid = (int)syscall(SYS_clone, (unsigned long)flags, NULL, NULL, NULL, NULL);

	if (pid != 0)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The parent may have gone before that. In a pid namespace of its own a child sees 0, which
	 * proves nothing. */
	if (!(flags & CLONE_NEWPID) && (int)syscall(SYS_getppid) != parent)
		_exit(1);
	return 0;
}

int probe_reap(int pid)
{
	int status, rc;

	do
		rc = waitpid(pid, &status, __WALL);
	while (rc < 0 && errno == EINTR);
	return rc == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void in_child(const struct probe *p, int fd) __attribute__((noreturn));
static void in_child(const struct probe *p, int fd)
{
	struct probe_result r = { 0 };

	p->run(&r);
	_exit(io_write_full(fd, &r, sizeof r) < 0);
}

static void run(const struct probe *p, struct probe_result *r)
{
	CLEANUP_FD int readable = -1;
	CLEANUP_FD int writable = -1;
	sigset_t all, before;
	int fds[2], pid, code;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return probe_no(r, "cannot make a pipe");
	readable = fds[0];
	writable = fds[1];
	/* A signal to the whole process group must not run the caller's handlers a second time, in
	 * the child. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = probe_clone(0);
	if (pid == 0)
		in_child(p, writable);
	code = errno;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = code;
	if (pid < 0)
		return probe_no(r, "cannot make a child process");
	(void)close(fd_take(&writable));
	if (io_read_full(readable, r, sizeof *r) != (ssize_t)sizeof *r)
		*r = (struct probe_result){ .why = "the child that tried it died" };
	(void)probe_reap(pid);
}

bool probe_without(const char *name)
{
	const char *list = secure_getenv("CKPT_WITHOUT");
	size_t len = strlen(name);

	for (; list && *list; list += *list == ',') {
		size_t n = strcspn(list, ",");

		if (n == len && !memcmp(list, name, n))
			return true;
		list += n;
	}
	return false;
}

const struct probe_result *probe_get(enum probe_id id)
{
	struct probe_result *r = &cache[id].result;

	(void)pthread_mutex_lock(&lock);
	if (!cache[id].known) {
		if (probe_without(probes[id].name))
			*r = (struct probe_result){ .why = "switched off by CKPT_WITHOUT" };
		else
			run(&probes[id], r);
		cache[id].known = true;
	}
	(void)pthread_mutex_unlock(&lock);
	return r;
}

const char *probe_name(enum probe_id id)
{
	return probes[id].name;
}

bool probe_pagemap_scan(void)
{
	return probe_get(PROBE_PAGEMAP_SCAN)->ok;
}

bool probe_userns(void)
{
	return probe_get(PROBE_USERNS)->ok;
}

bool probe_set_tid(void)
{
	return probe_get(PROBE_SET_TID)->ok;
}

bool probe_timens(void)
{
	return probe_get(PROBE_TIMENS)->ok;
}

bool probe_guard_regions(void)
{
	return probe_get(PROBE_GUARD_REGIONS)->ok;
}

bool probe_uffd_wp_async(void)
{
	return probe_get(PROBE_UFFD_WP_ASYNC)->ok;
}

bool probe_soft_dirty(void)
{
	return probe_get(PROBE_SOFT_DIRTY)->ok;
}
