/* SPDX-License-Identifier: BSD-2-Clause */
/* Benchmark target: a tree of processes, each with sleeping threads and descriptors of its own. */
#include "gap.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAN_OUT 10 /* children of each process */

static unsigned long n_procs, n_threads, n_fds;
static struct {
	atomic_ulong ready;
	pid_t pids[];
} * shared;

static void *sleeping(void *arg)
{
	for (;;)
		(void)pause();
	return arg;
}

/* In equal parts pipes and sockets; neighbours belong together. */
static int open_fds(void)
{
	for (unsigned long i = 0; i < n_fds; i += 2) {
		int pair[2];

		if (i % 4 ? socketpair(AF_UNIX, SOCK_STREAM, 0, pair) : pipe(pair))
			return -1;
	}
	return 0;
}

static int start_threads(void)
{
	pthread_attr_t attr;

	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, 65536);
	for (unsigned long i = 1; i < n_threads; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &attr, sleeping, NULL))
			return -1;
	}
	return 0;
}

/* Process i, and below it those with the numbers from FAN_OUT * i + 1 on. */
static void be(unsigned long i)
{
	for (unsigned long c = FAN_OUT * i + 1; c <= FAN_OUT * i + FAN_OUT && c < n_procs; c++) {
		pid_t pid = fork();

		if (pid < 0)
			gap_bad("not all processes can be had");
		if (pid == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			be(c);
			for (;;)
				(void)pause();
		}
		shared->pids[c] = pid;
	}
	if (open_fds() || start_threads())
		gap_bad("not all descriptors or threads can be had");
	atomic_fetch_add(&shared->ready, 1);
}

static void verify(void)
{
	for (unsigned long i = 1; i < n_procs; i++)
		if (kill(shared->pids[i], 0))
			gap_bad("a process is gone");
}

/* bench-tree LOG PROCESSES THREADS DESCRIPTORS: the last two are those of each */
int main(int argc, char **argv)
{
	struct rlimit lim;

	n_procs = gap_number(argc, argv, 2);
	n_threads = gap_number(argc, argv, 3);
	n_fds = gap_number(argc, argv, 4);
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
	shared = mmap(NULL, sizeof *shared + n_procs * sizeof shared->pids[0],
		      PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("tree");
		return 1;
	}
	be(0);
	while (atomic_load(&shared->ready) < n_procs)
		(void)usleep(1000);
	gap_serve(argv[1], verify);
}
