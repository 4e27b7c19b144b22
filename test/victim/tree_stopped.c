/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stopped children: one whose stop its parent has not waited for yet, one whose it has, and one in
 * a group of its own that is stopped as a whole. They stay stopped, and go on when they are told
 * to. The second has threads, of which none makes a step meanwhile.
 */
#include "family.h"

#include <pthread.h>
#include <sys/wait.h>

#define THREADS 6u

static volatile uint64_t *steps, before[THREADS];

static void *count(void *arg)
{
	volatile uint64_t *mine = arg;

	for (;;)
		++*mine;
	return NULL;
}

static void start_threads(void)
{
	pthread_t thread;

	for (unsigned i = 0; i < THREADS; i++) {
		check_sys(pthread_create(&thread, NULL, count, (void *)&steps[i]) == 0);
		while (!steps[i])
			(void)sched_yield();
	}
}

static void look(pid_t pid, int options, bool there, const char *what)
{
	siginfo_t si = { 0 };

	check(waitid(P_PID, (id_t)pid, &si, options | WNOHANG) == 0, "%s: %s", what,
	      strerror(errno));
	check((si.si_pid == pid) == there, "%s: %s to be waited for", what,
	      there ? "nothing" : "something");
	if (there)
		check(si.si_code == CLD_STOPPED && si.si_status == SIGSTOP, "%s: code %d status %d",
		      what, si.si_code, si.si_status);
}

static pid_t start(int n)
{
	pid_t pid = family_fork(n);

	if (pid == 0) {
		if (n == 3)
			check_sys(setpgid(0, 0) == 0);
		if (n == 2)
			start_threads();
		family_note(n, 0);
		family_serve(n);
	}
	return pid;
}

int main(int argc, char **argv)
{
	sigset_t chld, pending;
	siginfo_t si;
	pid_t unseen, seen, group;

	victim_init(argc, argv);
	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	check_sys(sigprocmask(SIG_BLOCK, &chld, NULL) == 0);
	family_init();
	steps = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(steps != MAP_FAILED);
	family_note(0, -1);
	unseen = start(1);
	seen = start(2);
	group = start(3);
	family_wait(4);
	check_sys(kill(unseen, SIGSTOP) == 0 && kill(seen, SIGSTOP) == 0 &&
		  kill(-group, SIGSTOP) == 0);
	check_sys(waitid(P_PID, (id_t)unseen, &si, WSTOPPED | WNOWAIT) == 0);
	check_sys(waitpid(seen, NULL, WUNTRACED) == seen);
	check_sys(waitpid(group, NULL, WUNTRACED) == group);
	while (sigtimedwait(&chld, &si, &(struct timespec){ 0 }) == SIGCHLD)
		;
	for (unsigned i = 0; i < THREADS; i++)
		before[i] = steps[i];
	victim_ready();
	while (victim_wait()) {
		wait_state(unseen, 'T');
		wait_state(seen, 'T');
		wait_state(group, 'T');
		look(unseen, WSTOPPED | WNOWAIT, true, "a stop that was not waited for");
		look(seen, WSTOPPED, false, "a stop that was waited for");
		look(group, WSTOPPED, false, "a stop that was waited for");
		for (unsigned i = 0; i < THREADS; i++)
			check(steps[i] == before[i], "thread %u of a stopped child went on", i);
		check_sys(sigpending(&pending) == 0);
		check(!sigismember(&pending, SIGCHLD), "a SIGCHLD that nobody sent");
		victim_ok();
	}
	check_sys(kill(unseen, SIGCONT) == 0 && kill(seen, SIGCONT) == 0 &&
		  kill(-group, SIGCONT) == 0);
	family_ask(4);
	for (int i = 1; i < 4; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
