/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small tree in which everybody verifies all the time: tokens go round a ring of pipes, through a
 * child with threads, an orphan and a daemon's session; a shared counter must match.
 */
#include "family.h"

#include <sys/wait.h>

enum { LAST = 5 };
static int ring[LAST][2];
static volatile uint64_t *rounds;

static _Noreturn void pass_on(int n)
{
	uint64_t v, expect = 0;

	for (;;) {
		check_sys(read(ring[n - 1][0], &v, sizeof v) == sizeof v);
		if (expect)
			check(v == expect, "member %d: a token was lost or came twice", n);
		expect = v + 1;
		check_sys(write(ring[n][1], &v, sizeof v) == sizeof v);
	}
}

static void *pass_on_thread(void *arg)
{
	pass_on((int)(intptr_t)arg);
	return NULL;
}

static void *send_round(void *arg)
{
	for (uint64_t v = 1;; v++) {
		uint64_t back;

		check_sys(write(ring[0][1], &v, sizeof v) == sizeof v);
		check_sys(read(ring[LAST - 1][0], &back, sizeof back) == sizeof back);
		check(back == v, "token %llu came back as %llu", (unsigned long long)v,
		      (unsigned long long)back);
		*rounds = v;
		/* Who does nothing but wake each other can keep others from a processor for
		 * minutes (Linux 6.18), also whoever traces. */
		if (v % 64 == 0)
			sleep_ms(1);
	}
	return arg;
}

static void start(int n)
{
	pid_t between = n >= 3 ? fork() : 0, pid;

	if (between > 0) {
		check_sys(waitpid(between, NULL, 0) == between);
		return;
	}
	if (n == 4)
		check_sys(setsid() > 0);
	between = getpid();
	pid = fork();
	if (pid == 0) {
		while (n >= 3 && getppid() == between)
			sleep_ms(1);
		family_note(n, n >= 3 ? -1 : 0);
		if (n == 2)
			(void)thread_start(pass_on_thread, (void *)(intptr_t)n);
		else
			pass_on(n);
		for (;;)
			(void)pause();
	}
	if (n >= 3)
		_exit(0);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	rounds = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(rounds != MAP_FAILED);
	for (int i = 0; i < LAST; i++)
		check_sys(pipe(ring[i]) == 0);
	family_note(0, -1);
	for (int n = 1; n < LAST; n++)
		start(n);
	family_wait(LAST);
	(void)thread_start(send_round, NULL);
	victim_ready();
	while (victim_wait()) {
		uint64_t was = *rounds;

		for (int i = 0; *rounds < was + 10 && i < 12000; i++)
			sleep_ms(5);
		check(*rounds >= was + 10, "the ring stands still");
		victim_ok();
	}
	for (int i = 1; i < LAST; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
