/* SPDX-License-Identifier: BSD-2-Clause */
/* The probes: they answer, agree, can be switched off, and leave no trace in the caller. */
#include "../check.h"

#include "proc/probe.h"
#include "proc/proc.h"
#include "util/cleanup.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static struct err err;
static struct arena *arena;
static volatile sig_atomic_t n_sigchld;

static void on_sigchld(int signo)
{
	(void)signo;
	n_sigchld++;
}

struct trace {
	unsigned n_fds, n_threads;
	sigset_t blocked;
};

static struct trace traces(int dirfd)
{
	struct trace t;
	pid_t *tids;
	int *fds;

	CHECK_OK(proc_fds(dirfd, arena, &fds, &t.n_fds, &err));
	CHECK_OK(proc_threads(dirfd, arena, &tids, &t.n_threads, &err));
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &t.blocked) == 0);
	return t;
}

static void *probe_all(void *arg)
{
	for (int i = 0; i < PROBE_COUNT; i++) {
		const struct probe_result *r = probe_get((enum probe_id)i);

		CHECK(r->ok == !r->why[0]);
		CHECK(probe_get((enum probe_id)i) == r);
		if (arg)
			printf("%s: %s\n", probe_name((enum probe_id)i), r->ok ? "yes" : r->why);
	}
	return NULL;
}

/* In a child, since an answer is kept: what CKPT_WITHOUT names is not there, and the rest is not
 * touched. */
static void test_without(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		CHECK(setenv("CKPT_WITHOUT", "userns,guard_regions", 1) == 0);
		CHECK(!probe_userns() && !probe_guard_regions());
		CHECK_STR(probe_get(PROBE_USERNS)->why, "switched off by CKPT_WITHOUT");
		CHECK(strcmp(probe_get(PROBE_SOFT_DIRTY)->why, "switched off by CKPT_WITHOUT"));
		exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
}

/* A caller that has asked for its children to be reaped by themselves must get answers, too. */
static void test_ignored_sigchld(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
		(void)probe_all(NULL);
		exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_sigchld };
	struct trace before, after;
	pthread_t other;
	int dirfd;

	arena = arena_new();
	test_without();
	test_ignored_sigchld();
	CHECK_OK(proc_open_pid(getpid(), &dirfd, &err));
	CHECK(sigaction(SIGCHLD, &sa, NULL) == 0);
	before = traces(dirfd);
	(void)probe_all(&before);
	after = traces(dirfd);
	CHECK_INT(after.n_fds, before.n_fds);
	CHECK_INT(after.n_threads, before.n_threads);
	CHECK(!memcmp(&after.blocked, &before.blocked, sizeof(uint64_t)));
	CHECK_INT(n_sigchld, 0);
	CHECK(waitpid(-1, NULL, __WALL | WNOHANG) < 0 && errno == ECHILD);

	CHECK(pthread_create(&other, NULL, probe_all, NULL) == 0);
	(void)probe_all(NULL);
	CHECK(pthread_join(other, NULL) == 0);
	CHECK(!probe_uffd_wp_async() || probe_pagemap_scan());
	arena_free(arena);
	return 0;
}
