/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes that share their memory without being threads of one (CLONE_VM). Members 1 to 4 are
 * clones of the root: 1 shares nothing else, 2 descriptors (and has a second thread), 3 directories
 * and signal handlers, 4 all of that, and is the root's sibling (CLONE_PARENT). 5 is made by 1, as
 * its sibling, with its memory and its descriptors. 6 is an ordinary child of 1, with memory of its
 * own; 7 shares that, and lives on when 6 ends between two checkpoints. "below": 4 is the root's
 * child.
 */
#include "family.h"

#include <sched.h>
#include <sys/wait.h>

enum { LAST = 8, COUNTERS = 20, STACK = 128 * 1024 };

/* In private memory: who changes it changes it for all that share it. */
static uint64_t counter, thread_turns, asked_turns;
static int opened = -1, opened_by_1 = -1;
static mode_t mask = 022;
static unsigned turn;
static void *page;

static void on_signal_a(int sig)
{
	(void)sig;
}

static void on_signal_b(int sig)
{
	(void)sig;
}

static void handle(void (*handler)(int))
{
	struct sigaction sa = { .sa_handler = handler };

	check_sys(sigaction(SIGUSR1, &sa, NULL) == 0);
}

static void (*handler_now(void))(int)
{
	struct sigaction sa;

	check_sys(sigaction(SIGUSR1, NULL, &sa) == 0);
	return sa.sa_handler;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void check_shared(int n)
{
	mode_t now = umask(077);

	(void)umask(now);
	check(page_is(page, counter), "member %d: another page than %llu", n,
	      (unsigned long long)counter);
	counter = mix(counter);
	page_fill(page, counter);
	check(is_open(opened) == (n == 2 || n == 4), "member %d: descriptor %d", n, opened);
	check(now == (n == 3 || n == 4 ? mask : 022), "member %d: umask %o", n, now);
	check(handler_now() ==
		      (n == 3 || n == 4 ? (turn & 1 ? on_signal_b : on_signal_a) : SIG_IGN),
	      "member %d: another handler", n);
	if (n == 1) {
		(void)close(opened_by_1);
		opened_by_1 = fcntl(open("/dev/null", O_RDONLY), F_DUPFD, 100 + turn % 7);
		check_sys(opened_by_1 >= 100);
	}
	if (n == 5)
		check(is_open(opened_by_1), "member 5: descriptor %d is not there", opened_by_1);
	if (n == 2) {
		asked_turns++;
		while (__atomic_load_n(&thread_turns, __ATOMIC_ACQUIRE) != asked_turns)
			sleep_ms(1);
	}
}

/* 6 and 7 have a counter of their own. */
static void check_own(int n)
{
	check(page_is(page, counter), "member %d: another page than %llu", n,
	      (unsigned long long)counter);
	counter = mix(counter);
	page_fill(page, counter);
}

static int thread_of_2(void *arg)
{
	(void)arg;
	for (;; sleep_ms(1))
		if (thread_turns != __atomic_load_n(&asked_turns, __ATOMIC_ACQUIRE))
			__atomic_store_n(&thread_turns, asked_turns, __ATOMIC_RELEASE);
	return 0;
}

static bool below;

static int member(void *arg);

/* More of them, for more have to be asked at once than there is room for in one stub. */
static uint64_t counts[COUNTERS];
static pid_t counters[COUNTERS];

static int count(void *arg)
{
	for (;; sleep_ms(2))
		__atomic_fetch_add((uint64_t *)arg, 1, __ATOMIC_RELAXED);
	return 0;
}

static void start_counters(void)
{
	for (int i = 0; i < COUNTERS; i++) {
		char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				   -1, 0);

		check_sys(stack != MAP_FAILED);
		counters[i] = clone(count, stack + STACK,
				    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | SIGCHLD,
				    &counts[i]);
		check_sys(counters[i] > 0);
	}
}

static void check_counters(void)
{
	uint64_t before[COUNTERS];

	memcpy(before, counts, sizeof before);
	for (int i = 0; i < COUNTERS; i++)
		while (__atomic_load_n(&counts[i], __ATOMIC_RELAXED) == before[i])
			sleep_ms(1);
}

static void start(int n, int flags)
{
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_sys(stack != MAP_FAILED);
	check_sys(clone(n < 0 ? thread_of_2 : member, stack + STACK, flags, (void *)(intptr_t)n) >
		  0);
}

static int member(void *arg)
{
	int n = (int)(intptr_t)arg;

	family[n].also = n < 6 ? check_shared : check_own;
	if (n == 1)
		start(5, CLONE_VM | CLONE_FILES | CLONE_PARENT);
	if (n == 1 && fork() == 0) {
		counter = 0;
		page_fill(page, counter);
		start(7, CLONE_VM | CLONE_PARENT);
		family[6].also = check_own;
		family_note(6, 1);
		family_serve(6);
	}
	if (n == 2)
		start(-1, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
				  CLONE_SYSVSEM);
	family_note(n, n == 4 && !below ? -1 : n == 7 ? 1 : 0);
	family_serve(n);
}

/* Its memory goes on with 7 alone. */
static void end_6(void)
{
	check_sys(kill(family[6].pid, SIGKILL) == 0);
	wait_state(family[6].pid, 'Z');
}

static void ask_all(void)
{
	uint64_t before;

	turn++;
	(void)close(opened);
	opened = fcntl(open("/dev/null", O_RDONLY), F_DUPFD, 50 + turn % 7);
	check_sys(opened >= 50);
	mask = 0100 | (turn & 7);
	(void)umask(mask);
	handle(turn & 1 ? on_signal_b : on_signal_a);
	if (turn == 2)
		end_6();
	for (int i = 1; i < LAST; i++) {
		before = counter;
		if (i == 6 && turn >= 2)
			continue;
		family_ask_one(i);
		check((counter != before) == (i < 6), "member %d: the counter", i);
	}
	family_verify(0);
	check_counters();
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	below = argc > 2;
	family_init();
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(page != MAP_FAILED);
	page_fill(page, counter);
	(void)umask(022);
	handle(SIG_IGN);
	family_note(0, -1);
	start(1, CLONE_VM | SIGCHLD);
	start(2, CLONE_VM | CLONE_FILES | SIGCHLD);
	start(3, CLONE_VM | CLONE_FS | CLONE_SIGHAND | SIGCHLD);
	start(4, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | SIGCHLD |
			 (below ? 0 : CLONE_PARENT));
	start_counters();
	family_wait(LAST);
	victim_ready();
	while (victim_wait()) {
		ask_all();
		victim_ok();
	}
	for (int i = 1; i < LAST; i++)
		(void)kill(family[i].pid, SIGKILL);
	for (int i = 0; i < COUNTERS; i++)
		(void)kill(counters[i], SIGKILL);
	return 0;
}
