/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stopped children: one whose stop its parent has not waited for yet, one whose it has, one in a
 * group of its own that is stopped as a whole, and one in another, stopped by SIGTSTP, which was
 * not waited for. They stay stopped, and go on when they are told to. The second and the fourth
 * have threads, of which none makes a step meanwhile. The fifth has such a child too, and a new
 * session since, so that SIGTSTP would do nothing to that child today. The sixth has been stopped
 * and goes on, with the SIGCONT pending, which was not waited for either. The seventh and eighth
 * have threads, of which the first has ended; the stop of the seventh was waited for.
 */
#include "family.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define THREADS 6u
#define LED     7 /* the first of those whose leader has ended */
#define MEMBERS 9

static volatile uint64_t *steps, before[2 * THREADS];
static pid_t orphan;
static volatile pid_t *led; /* shared: their other thread */

static void *count(void *arg)
{
	volatile uint64_t *mine = arg;

	for (;;)
		++*mine;
	return NULL;
}

static void start_threads(unsigned first)
{
	pthread_t thread;

	for (unsigned i = 0; i < THREADS; i++) {
		check_sys(pthread_create(&thread, NULL, count, (void *)&steps[first + i]) == 0);
		while (!steps[first + i])
			(void)sched_yield();
	}
}

static void look(pid_t pid, int options, int by, const char *what)
{
	siginfo_t si = { 0 };

	check(waitid(P_PID, (id_t)pid, &si, options | WNOHANG) == 0, "%s: %s", what,
	      strerror(errno));
	check((si.si_pid == pid) == !!by, "%s: %s to be waited for", what,
	      by ? "nothing" : "something");
	if (by)
		check(si.si_code == CLD_STOPPED && si.si_status == by, "%s: code %d status %d",
		      what, si.si_code, si.si_status);
}

/* When its group was stopped, the signal did that; today it would not. */
static void start_orphan(void)
{
	siginfo_t si;

	orphan = fork();
	check_sys(orphan >= 0);
	if (orphan == 0) {
		check_sys(setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
		for (;;) {
			steps[2 * THREADS]++;
			(void)kill(getpid(), SIGTSTP);
		}
	}
	check_sys(waitid(P_PID, (id_t)orphan, &si, WSTOPPED | WNOWAIT) == 0);
	check_sys(setsid() == getpid());
}

static void look_at_orphan(int n)
{
	siginfo_t si = { 0 };

	(void)n;
	wait_state(orphan, 'T');
	check(steps[2 * THREADS] == 1, "a stopped process of an orphaned group went on");
	check_sys(waitid(P_PID, (id_t)orphan, &si, WSTOPPED | WNOHANG | WNOWAIT) == 0);
	check(si.si_pid == orphan && si.si_code == CLD_STOPPED,
	      "the stop in an orphaned group is not to be waited for");
}

/* SIGCHLD, which is blocked, comes after the stop can be waited for: the last of this is that. */
static void send_and_hear(pid_t to, int sig, pid_t child)
{
	siginfo_t si = { 0 };
	sigset_t chld;

	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	check_sys(kill(to, sig) == 0);
	while (si.si_pid != child)
		check_sys(sigwaitinfo(&chld, &si) == SIGCHLD || errno == EINTR);
}

static void look_continued(pid_t pid)
{
	siginfo_t si = { 0 };

	check_sys(waitid(P_ALL, 0, &si, WCONTINUED | WNOHANG | WNOWAIT) == 0);
	check(si.si_pid == pid && si.si_code == CLD_CONTINUED && si.si_status == SIGCONT,
	      "continued: pid %d instead of %d, code %d status %d", si.si_pid, pid, si.si_code,
	      si.si_status);
}

static void look_at_signal(int n)
{
	sigset_t pending;

	(void)n;
	check_sys(sigpending(&pending) == 0);
	check(sigismember(&pending, SIGCONT), "the SIGCONT has gone");
}

/* A pending one is kept only where it would not be ignored. */
static void nothing(int sig)
{
	(void)sig;
}

static void block_signal(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCONT);
	check_sys(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && signal(SIGCONT, nothing) != SIG_ERR);
}

static void *serve_led(void *arg)
{
	int n = *(int *)arg;

	wait_state(getpid(), 'Z');
	led[n - LED] = gettid_raw();
	family_note(n, 0);
	family_serve(n);
}

static pid_t start(int n)
{
	pid_t pid = family_fork(n);

	if (pid == 0) {
		if (n == 3 || n == 4)
			check_sys(setpgid(0, 0) == 0);
		if (n == 2 || n == 4)
			start_threads(n == 2 ? 0 : THREADS);
		if (n == 5)
			start_orphan();
		if (n == 6)
			block_signal();
		if (n >= LED) {
			(void)thread_start(serve_led, &n);
			for (;;)
				(void)syscall(SYS_exit, 0);
		}
		family_note(n, 0);
		if (n == 5)
			family[n].also = look_at_orphan;
		if (n == 6)
			family[n].also = look_at_signal;
		family_serve(n);
	}
	return pid;
}

int main(int argc, char **argv)
{
	sigset_t chld, pending;
	pid_t unseen, seen, group, by_key, on, led_seen, led_unseen;

	victim_init(argc, argv);
	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	check_sys(sigprocmask(SIG_BLOCK, &chld, NULL) == 0);
	family_init();
	steps = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(steps != MAP_FAILED);
	led = (volatile pid_t *)&steps[2 * THREADS + 1];
	family_note(0, -1);
	unseen = start(1);
	seen = start(2);
	group = start(3);
	by_key = start(4);
	(void)start(5);
	on = start(6);
	led_seen = start(LED);
	led_unseen = start(LED + 1);
	family_wait(MEMBERS);
	send_and_hear(unseen, SIGSTOP, unseen);
	send_and_hear(seen, SIGSTOP, seen);
	send_and_hear(-group, SIGSTOP, group);
	send_and_hear(-by_key, SIGTSTP, by_key);
	send_and_hear(led_seen, SIGSTOP, led_seen);
	send_and_hear(led_unseen, SIGSTOP, led_unseen);
	check_sys(waitpid(led_seen, NULL, WUNTRACED) == led_seen);
	check_sys(waitpid(seen, NULL, WUNTRACED) == seen);
	check_sys(waitpid(group, NULL, WUNTRACED) == group);
	send_and_hear(on, SIGSTOP, on);
	check_sys(waitpid(on, NULL, WUNTRACED) == on);
	send_and_hear(on, SIGCONT, on);
	for (unsigned i = 0; i < 2 * THREADS; i++)
		before[i] = steps[i];
	victim_ready();
	while (victim_wait()) {
		wait_state(unseen, 'T');
		wait_state(seen, 'T');
		wait_state(group, 'T');
		wait_state(by_key, 'T');
		wait_state(led[0], 'T');
		wait_state(led[1], 'T');
		look(unseen, WSTOPPED | WNOWAIT, SIGSTOP, "a stop that was not waited for");
		look(by_key, WSTOPPED | WNOWAIT, SIGTSTP, "a stop by SIGTSTP");
		look_continued(on);
		look(seen, WSTOPPED, 0, "a stop that was waited for");
		look(group, WSTOPPED, 0, "a stop that was waited for");
		look(led_seen, WSTOPPED, 0, "a stop without a leader");
		look(led_unseen, WSTOPPED | WNOWAIT, SIGSTOP, "a stop without a leader");
		for (unsigned i = 0; i < 2 * THREADS; i++)
			check(steps[i] == before[i], "thread %u of a stopped child went on", i);
		family_ask_one(5);
		family_ask_one(6);
		check_sys(sigpending(&pending) == 0);
		check(!sigismember(&pending, SIGCHLD), "a SIGCHLD that nobody sent");
		victim_ok();
	}
	check_sys(kill(unseen, SIGCONT) == 0 && kill(seen, SIGCONT) == 0 &&
		  kill(-group, SIGCONT) == 0 && kill(-by_key, SIGCONT) == 0 &&
		  kill(led_seen, SIGCONT) == 0 && kill(led_unseen, SIGCONT) == 0);
	family_ask(MEMBERS);
	for (int i = 1; i < MEMBERS; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
