/* SPDX-License-Identifier: BSD-2-Clause */
/* --pid: a running process that we did not start: may we, and what is it called? */
#include "run/attach.h"

#include "proc/proc.h"
#include "run/signals.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* The usual causes of a refusal, so that the user need not guess. */
static void hint_refusal(pid_t pid, struct err *err)
{
	CLEANUP_FREE char *scope = NULL;
	struct stat st;
	char path[32];

	(void)snprintf(path, sizeof path, "/proc/%d", pid);
	if (stat(path, &st) == 0 && st.st_uid != geteuid())
		err_hint(err, "user %u owns it, or it has gained privileges: only root may",
			 st.st_uid);
	else if (io_read_file(AT_FDCWD, "/proc/sys/kernel/yama/ptrace_scope", &scope, NULL) == 0 &&
		 scope[0] > '0')
		err_hint(err, "kernel.yama.ptrace_scope is %c: start it with ckpt-run, or be root",
			 scope[0]);
	else
		err_hint(err, "it has gained privileges or made itself undumpable: only root may");
}

/*
 * To open its memory takes the same right as to trace it (PTRACE_MODE_ATTACH, ptrace(2)) and has no
 * effect on the process, unlike a trial of ptrace itself.
 */
static int check_permission(pid_t pid, struct err *err)
{
	CLEANUP_FD int fd = -1;
	char path[48];
	int rc;

	(void)snprintf(path, sizeof path, "/proc/%d/mem", proc_live_thread(pid));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		return 0;
	rc = err_set(err, -errno, "cannot trace process %d: %m", pid);
	if (rc == -EACCES || rc == -EPERM)
		hint_refusal(pid, err);
	return rc;
}

int attach_check(pid_t pid, int *ret_pidfd, struct err *err)
{
	CLEANUP_FD int pidfd = -1;
	int rc;

	/* Stopping our own ancestor, or ourselves, would stop the one who is to let it go again. */
	if (signal_from_tree(getpid(), pid)) {
		rc = err_set(err, -EINVAL, "process %d is ckpt-run itself or started it", pid);
		err_hint(err, "run ckpt-run from outside the tree that is to be checkpointed");
		return rc;
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 && errno == EINVAL)
		return err_set(err, -EINVAL, "%d is a thread, not a process", pid);
	if (pidfd < 0)
		return err_set(err, -errno, "cannot take on process %d: %m", pid);
	rc = check_permission(pid, err);
	if (rc == 0)
		*ret_pidfd = fd_take(&pidfd);
	return rc;
}

static int read_argv(pid_t pid, struct arena *a, struct settings *settings, struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	char path[48];
	size_t len;
	int rc;

	(void)snprintf(path, sizeof path, "/proc/%d/cmdline", proc_live_thread(pid));
	rc = io_read_file(AT_FDCWD, path, &text, &len);
	if (rc < 0)
		return err_set(err, rc, "cannot read '%s': %m", path);
	for (size_t at = 0; at < len; at += strlen(text + at) + 1) {
		struct string *arg = arena_push(a, &settings->argv, &settings->n_argv, sizeof *arg);

		if (!arg)
			return err_nomem(err);
		arg->s = arena_strdup(a, text + at);
		if (!arg->s)
			return err_nomem(err);
	}
	return 0;
}

int attach_describe(pid_t pid, struct arena *a, struct settings *settings, struct err *err)
{
	CLEANUP_FREE char *exe = NULL;
	char path[48], *slash, *deleted;
	int rc;

	(void)snprintf(path, sizeof path, "/proc/%d/exe", proc_live_thread(pid));
	rc = io_readlink(AT_FDCWD, path, &exe);
	if (rc < 0)
		return err_set(err, rc, "cannot read '%s': %m", path);
	deleted = strstr(exe, " (deleted)");
	if (deleted && !deleted[strlen(" (deleted)")])
		*deleted = '\0';
	slash = strrchr(exe, '/');
	settings->name = arena_strdup(a, slash ? slash + 1 : exe);
	return settings->name ? read_argv(pid, a, settings, err) : err_nomem(err);
}
