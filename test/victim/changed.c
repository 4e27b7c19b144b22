/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: memory that changes in every way a program can change it, in random steps, with a model
 * of what each page must hold.
 *
 * changed BASE SEED STEPS: STEPS steps for every poke, then all is verified; in between it rests,
 * so that a checkpoint can be compared with it byte by byte. It rests until a SIGUSR2: that a poke
 * is coming; or, queued with a value (test/compare/compare.c), that as many steps are wanted, after
 * which all is verified and it rests again. changed BASE SEED run: steps all the time; a poke has
 * it verify between two of them.
 */
#include "changed.h"

#include <malloc.h>
#include <sys/wait.h>

#define BRK_MAX 64u
#define STACKS  4u

/* --- the heap, threads, children ------------------------------------------------------------ */

static void move_break(struct region *r)
{
	unsigned n = (unsigned)rnd(BRK_MAX + 1);

	if (r->prot != (PROT_READ | PROT_WRITE))
		check_sys(mprotect(r->at, r->npages * PAGE, PROT_READ | PROT_WRITE) == 0);
	r->prot = PROT_READ | PROT_WRITE;
	check_sys(brk(r->at + n * PAGE) == 0);
	for (unsigned i = r->npages; i < n; i++)
		r->page[i] = BLANK;
	r->npages = n;
}

struct sleeper {
	pthread_t thread;
	int state; /* 0 none, 1 runs, 2 told to end */
	pid_t tid; /* once its pages are written */
	uint64_t seed;
};
static struct sleeper sleepers[STACKS];

static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	char pages[6 * PAGE];

	for (unsigned i = 0; i < 6; i++)
		page_fill(pages + i * PAGE, s->seed + i);
	__atomic_store_n(&s->tid, gettid_raw(), __ATOMIC_RELEASE);
	while (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == 1)
		syscall(SYS_futex, &s->state, 0 /* FUTEX_WAIT */, 1, NULL, NULL, 0);
	for (unsigned i = 0; i < 6; i++)
		check(page_is(pages + i * PAGE, s->seed + i), "a thread's stack has changed");
	return NULL;
}

static void threads(void)
{
	struct sleeper *s = &sleepers[rnd(STACKS)];

	if (s->state == 0) {
		s->state = 1;
		s->seed = seeds += 6;
		s->tid = 0;
		s->thread = thread_start(sleeper_main, s);
		while (!__atomic_load_n(&s->tid, __ATOMIC_ACQUIRE))
			sleep_ms(1);
		thread_wait_blocked(s->tid, SYS_futex); /* when we rest, nobody writes */
		return;
	}
	__atomic_store_n(&s->state, 2, __ATOMIC_RELEASE);
	syscall(SYS_futex, &s->state, 1 /* FUTEX_WAKE */, 1);
	check_sys(pthread_join(s->thread, NULL) == 0);
	s->state = 0;
}

/* A child writes to its copy; ours must not change, and its inheriting must not hide our writes. */
static void child(void)
{
	int status;
	pid_t pid = fork();

	check_sys(pid >= 0);
	if (pid == 0) {
		for (unsigned i = 0; i < REGIONS; i++) {
			struct region *r = &regions[i];

			if (r->kind == ANON && (r->prot & PROT_WRITE))
				page_fill(r->at, 1);
		}
		_exit(0);
	}
	for (unsigned i = 0; i < 3; i++)
		writes(&regions[rnd(REGIONS)]);
	check_sys(waitpid(pid, &status, 0) == pid);
	check(status == 0, "the child ended with %#x", (unsigned)status);
}

/* --- steps ---------------------------------------------------------------------------------- */

static void step(void)
{
	struct region *r = &regions[rnd(REGIONS)];

	steps_done++;
	switch (rnd(24)) {
	case 0:
	case 1:
	case 2:
		return make(r);
	case 3:
		return unmake(r);
	case 4:
		return replace(r);
	case 5:
		return shrink(r);
	case 6:
	case 7:
		return rnd(4) ? move(r) : split(r);
	case 8:
	case 9:
		return protect(r);
	case 10:
	case 11:
	case 12:
	case 13:
		return advise(r);
	case 14:
		return touch(r);
	case 15:
		return move_break(&regions[0]);
	case 16:
		if (rnd(20) == 0)
			threads();
		else if (rnd(20) == 0)
			child();
		return;
	default:
		return writes(r);
	}
}

/* owes_answer: to a poke, which the new program gives. */
static void leave_by_exec(char **argv, bool owes_answer)
{
	char seed[32], steps[32];
	char *args[] = {
		argv[0], argv[1], seed, argv[3], steps, owes_answer ? "answer" : NULL, NULL
	};

	(void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)rnd(1u << 30) + 1);
	(void)snprintf(steps, sizeof steps, "%llu", (unsigned long long)steps_done);
	check_sys(execv("/proc/self/exe", args) == 0);
}

static void begin(char **argv)
{
	struct region *heap = &regions[0];
	char *volatile room; /* or the compiler sees that nobody uses it */
	static char page[PAGE];

	check(argv[2] && argv[3], "changed BASE SEED STEPS");
	/* malloc gets all it will need: the break is ours from here on */
	(void)mallopt(M_TOP_PAD, 1 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
	check_sys((room = malloc(500000)) != NULL);
	free((void *)room);
	rng = mix(strtoull(argv[2], NULL, 10)) | 1;
	if (argv[4])
		steps_done = strtoull(argv[4], NULL, 10);
	file_fd = open(victim_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check_sys(file_fd >= 0);
	for (unsigned i = 0; i < MAX_PAGES; i++) {
		page_fill(page, FILE_SEED + i);
		if (!argv[4])
			check_sys(pwrite(file_fd, page, PAGE, (off_t)(i * PAGE)) == (ssize_t)PAGE);
	}
	for (unsigned i = 0; i < REGIONS; i++)
		regions[i].fd = -1;
	heap->kind = BREAK;
	heap->prot = PROT_READ | PROT_WRITE;
	heap->at = (char *)(((uintptr_t)sbrk(0) + PAGE - 1) & ~(PAGE - 1));
	check_sys(brk(heap->at) == 0);
}

static bool told_to_quit(void)
{
	char poke[8];

	return readlink(victim_path("poke"), poke, sizeof poke) == 4 && !memcmp(poke, "quit", 4);
}

/* Waits for SIGUSR2 without a trace in memory (victim_wait polls). Returns how many steps are
 * wanted, 0: a poke is coming. */
static int rest(void)
{
	siginfo_t si;
	sigset_t set;

	if (told_to_quit())
		return 0;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	while (sigwaitinfo(&set, &si) != SIGUSR2)
		;
	return si.si_code == SI_QUEUE ? si.si_value.sival_int : 0;
}

static void steps(int n)
{
	while (n-- > 0)
		step();
	verify_all();
}

/* Pokes are answered one by one, and in between steps made as they are asked for. */
static void work(char **argv)
{
	for (;;) {
		int n = rest();

		if (n > 0) {
			steps(n);
			if (rnd(12) == 0)
				leave_by_exec(argv, false);
			continue;
		}
		if (!victim_wait())
			return;
		steps(atoi(argv[3]));
		if (rnd(12) == 0 && !told_to_quit())
			leave_by_exec(argv, true);
		victim_ok();
	}
}

static int wanted;

static void *listen(void *arg)
{
	(void)arg;
	while (victim_wait()) {
		__atomic_store_n(&wanted, 1, __ATOMIC_RELEASE);
		while (__atomic_load_n(&wanted, __ATOMIC_ACQUIRE))
			sleep_ms(1);
		victim_ok();
	}
	_exit(0);
}

static _Noreturn void run(void)
{
	(void)thread_start(listen, NULL);
	for (;;) {
		step();
		if (__atomic_load_n(&wanted, __ATOMIC_ACQUIRE)) {
			verify_all();
			__atomic_store_n(&wanted, 0, __ATOMIC_RELEASE);
		}
	}
}

int main(int argc, char **argv)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	victim_init(argc, argv);
	begin(argv);
	if (!argv[4])
		victim_ready();
	if (!strcmp(argv[3], "run"))
		run();
	if (argv[4] && argv[5])
		victim_ok(); /* what the program before left to say */
	work(argv);
	return 0;
}
