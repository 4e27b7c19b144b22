/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes that never stop making others: each forks one that ends at once, waits for it, checks
 * its status and counts. Some fork by vfork and exec; some make orphans; some threads come and go.
 * They leave the machine some air, and end by themselves after a while.
 */
#include "family.h"

#include <sys/wait.h>

enum { LAST = 7 };
static volatile uint64_t *counts; /* shared: one for each member */
static uint64_t end_ns;

static void after(pid_t pid, int want)
{
	int status = 0;

	check_sys(pid > 0 && waitpid(pid, &status, 0) == pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == want, "a child ended with status %#x",
	      status);
}

static void by_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(5);
	after(pid, 5);
}

static void by_vfork(void)
{
	pid_t pid = vfork();

	if (pid == 0) {
		(void)execl("/bin/true", "true", NULL);
		_exit(9);
	}
	after(pid, 0);
}

/* A child that makes two that outlive it for a moment. */
static void by_orphans(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		for (int i = 0; i < 2; i++)
			if (fork() == 0) {
				sleep_ms(2);
				_exit(0);
			}
		_exit(6);
	}
	after(pid, 6);
}

static void *nothing(void *arg)
{
	return arg;
}

static void by_threads(void)
{
	pthread_t t[3];

	for (size_t i = 0; i < COUNT_OF(t); i++)
		t[i] = thread_start(nothing, NULL);
	for (size_t i = 0; i < COUNT_OF(t); i++)
		check_sys(pthread_join(t[i], NULL) == 0);
}

/* A thread that replaces the whole process by a new program. */
static void *exec_away(void *arg)
{
	(void)execl("/bin/sh", "sh", "-c", "exit 4", NULL);
	return arg;
}

static void by_exec_from_thread(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)pthread_join(thread_start(exec_away, NULL), NULL);
		_exit(9);
	}
	after(pid, 4);
}

static _Noreturn void churn(int n)
{
	static void (*const ways[])(void) = { by_fork,    by_fork,    by_vfork,
					      by_orphans, by_threads, by_exec_from_thread };

	family_note(n, 0);
	for (;;) {
		ways[n - 1]();
		counts[n]++;
		sleep_ms(1);
		if (getppid() == 1 || now_ns(CLOCK_REALTIME) > end_ns)
			_exit(0);
	}
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	counts = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(counts != MAP_FAILED);
	end_ns = now_ns(CLOCK_REALTIME) + UINT64_C(600000000000);
	family_note(0, -1);
	for (int n = 1; n < LAST; n++)
		if (family_fork(n) == 0)
			churn(n);
	family_wait(LAST);
	victim_ready();
	while (victim_wait()) {
		for (int n = 1; n < LAST; n++) {
			uint64_t was = counts[n];

			for (int i = 0; counts[n] == was && i < 12000; i++)
				sleep_ms(5);
			check(counts[n] != was, "member %d makes no progress", n);
		}
		victim_ok();
	}
	for (int i = 1; i < LAST; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
