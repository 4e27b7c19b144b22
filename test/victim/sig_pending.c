/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: pending signals, for the process and for single threads, with order, values, codes and
 * senders. */
#include "victim.h"

/* The process queue holds these, the worker's own queue others; all of them are blocked everywhere.
 */
static sigset_t blocked;
static pthread_barrier_t barrier;
static pthread_t worker;

static void queue_process(uint64_t round)
{
	union sigval v;

	for (uintptr_t i = 0; i < 5; i++) {
		v.sival_ptr = (void *)(uintptr_t)mix(round * 10 + i);
		check_sys(sigqueue(getpid(), SIGRTMIN + 3, v) == 0);
	}
	v.sival_ptr = (void *)0x1234567890abcdef;
	check_sys(sigqueue(getpid(), SIGRTMIN + 1, v) == 0);
	check_sys(kill(getpid(), SIGUSR2) == 0);
	check_sys(kill(getpid(), SIGTERM) == 0);
}

static void queue_thread(uint64_t round)
{
	union sigval v;

	for (uintptr_t i = 0; i < 3; i++) {
		v.sival_ptr = (void *)(uintptr_t)mix(round * 10 + i + 500);
		check_sys(pthread_sigqueue(worker, SIGRTMIN + 4, v) == 0);
	}
	check_sys(pthread_kill(worker, SIGINT) == 0);
}

/* Takes one signal that must be pending: no waiting. */
static void take(int sig, int code, bool has_value, uint64_t value)
{
	struct timespec none = { 0, 0 };
	siginfo_t info;
	uint64_t set = 1ull << (sig - 1);

	/* Not through the C library, which makes SI_TKILL look like SI_USER. */
	memset(&info, 0, sizeof info);
	check(syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8) == sig,
	      "signal %d is not pending any more: %s", sig, strerror(errno));
	check(info.si_code == code, "signal %d: si_code %d, was %d", sig, info.si_code, code);
	check(info.si_uid == getuid(), "signal %d: si_uid %d", sig, (int)info.si_uid);
	check(victim_newpids() || info.si_pid == getpid(), "signal %d: si_pid %d", sig,
	      (int)info.si_pid);
	check(!has_value || (uint64_t)(uintptr_t)info.si_value.sival_ptr == value,
	      "signal %d: value %p", sig, info.si_value.sival_ptr);
}

static void take_process(uint64_t round)
{
	for (uint64_t i = 0; i < 5; i++)
		take(SIGRTMIN + 3, SI_QUEUE, true, mix(round * 10 + i));
	take(SIGRTMIN + 1, SI_QUEUE, true, 0x1234567890abcdef);
	take(SIGUSR2, SI_USER, false, 0);
	take(SIGTERM, SI_USER, false, 0);
}

static void check_none(const char *who)
{
	struct timespec none = { 0, 0 };
	int sig = sigtimedwait(&blocked, NULL, &none);

	check(sig == -1 && errno == EAGAIN, "%s: signal %d is pending once too often", who, sig);
}

static uint64_t rounds;

static void *run(void *arg)
{
	for (;;) {
		(void)pthread_barrier_wait(&barrier);
		for (uint64_t i = 0; i < 3; i++)
			take(SIGRTMIN + 4, SI_QUEUE, true, mix(rounds * 10 + i + 500));
		take(SIGINT, SI_TKILL, false, 0);
		check_none("worker");
		(void)pthread_barrier_wait(&barrier);
	}
	return arg;
}

int main(int argc, char **argv)
{
	static const int sigs[] = { SIGUSR2, SIGTERM, SIGINT };

	victim_init(argc, argv);
	(void)sigemptyset(&blocked);
	for (int i = 0; i < 5; i++)
		(void)sigaddset(&blocked, SIGRTMIN + i);
	for (unsigned i = 0; i < COUNT_OF(sigs); i++)
		(void)sigaddset(&blocked, sigs[i]);
	check_sys(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
	(void)pthread_barrier_init(&barrier, NULL, 2);
	worker = thread_start(run, NULL);
	queue_process(rounds);
	queue_thread(rounds);
	victim_ready();
	while (victim_wait()) {
		take_process(rounds);
		(void)pthread_barrier_wait(&barrier);
		(void)pthread_barrier_wait(&barrier);
		check_none("main");
		rounds++;
		queue_process(rounds);
		queue_thread(rounds);
		victim_ok();
	}
	return 0;
}
