/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: writes all the time, in one order over all its pages, and reads what it wrote last time
 * as it does so. So memory that is not of one instant is found out: a page that an image took later
 * than another holds the number of a later round. The pages lie in mappings of every kind that a
 * fork treats in its own way. With the argument "handlers" all signals that ckpt could use for
 * itself have handlers; with "pair" a second process writes its own pages in turn with the first.
 */
#include "victim.h"

#include <sched.h>
#include <sys/prctl.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static struct region {
	const char *what;
	unsigned npages;
	int flags, advice;
	bool file;
	uint64_t *words; /* one word at the beginning of each page */
} regions[] = {
	{ "private memory", 3000, MAP_PRIVATE | MAP_ANONYMOUS, 0, false, NULL },
	{ "MADV_DONTFORK memory", 40, MAP_PRIVATE | MAP_ANONYMOUS, MADV_DONTFORK, false, NULL },
	{ "shared memory", 40, MAP_SHARED | MAP_ANONYMOUS, 0, false, NULL },
	{ "MADV_WIPEONFORK memory", 40, MAP_PRIVATE | MAP_ANONYMOUS, MADV_WIPEONFORK, false, NULL },
	{ "a file's private mapping", 40, MAP_PRIVATE, 0, true, NULL },
	{ "a file's big private mapping", 600, MAP_PRIVATE, 0, true, NULL },
	{ "more private memory", 500, MAP_PRIVATE | MAP_ANONYMOUS, 0, false, NULL },
};

static void *map_file(struct region *r, unsigned n)
{
	char name[32];
	void *p;
	int fd;

	(void)snprintf(name, sizeof name, "file%u", n);
	fd = open(victim_path(name), O_RDWR | O_CREAT, 0600);
	check_sys(fd >= 0 && ftruncate(fd, r->npages * (long)PAGE) == 0);
	p = mmap(NULL, r->npages * PAGE, PROT_READ | PROT_WRITE, r->flags, fd, 0);
	(void)close(fd);
	return p;
}

static void set_up(void)
{
	for (unsigned n = 0; n < COUNT_OF(regions); n++) {
		struct region *r = &regions[n];
		void *p = r->file ? map_file(r, n)
				  : mmap(NULL, r->npages * PAGE, PROT_READ | PROT_WRITE, r->flags,
					 -1, 0);

		check_sys(p != MAP_FAILED);
		r->words = p;
		if (r->advice)
			check_sys(madvise(p, r->npages * PAGE, r->advice) == 0);
	}
}

static void write_region(const struct region *r, uint64_t round)
{
	for (unsigned i = 0; i < r->npages; i++) {
		uint64_t *w = &r->words[i * (PAGE / 8)];
		uint64_t was = __atomic_load_n(w, __ATOMIC_RELAXED);

		check(was == round - 1,
		      "page %u of %s is of round %llu while round %llu is written", i, r->what,
		      (unsigned long long)was, (unsigned long long)round);
		__atomic_store_n(w, round, __ATOMIC_RELEASE);
	}
}

/* Rounds that the first process has begun, and the second has finished. */
static struct turns {
	uint64_t begun, finished;
} * turns;

static void wait_turn(const uint64_t *word, uint64_t round)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) < round)
		(void)sched_yield();
}

static void *writer(void *arg)
{
	(void)arg;
	for (uint64_t round = 1;; round++) {
		if (turns)
			__atomic_store_n(&turns->begun, round, __ATOMIC_RELEASE);
		for (unsigned n = 0; n < COUNT_OF(regions); n++)
			write_region(&regions[n], round);
		if (turns)
			wait_turn(&turns->finished, round);
	}
	return NULL;
}

/* The second process: it has the regions that a fork gave it. */
static void start_second(void)
{
	pid_t pid;

	turns = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(turns != MAP_FAILED);
	pid = fork();
	check_sys(pid >= 0);
	if (pid > 0)
		return;
	check_sys(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	for (uint64_t round = 1;; round++) {
		wait_turn(&turns->begun, round);
		write_region(&regions[0], round);
		__atomic_store_n(&turns->finished, round, __ATOMIC_RELEASE);
	}
}

static void on_signal(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	if (argc > 2 && !strcmp(argv[2], "handlers"))
		for (int sig = 1; sig < SIGRTMIN; sig++)
			if (sig != SIGTERM && sig != SIGINT && sig != SIGSEGV)
				(void)signal(sig, on_signal);
	set_up();
	if (argc > 2 && !strcmp(argv[2], "pair"))
		start_second();
	(void)thread_start(writer, NULL);
	victim_ready();
	while (victim_wait()) {
		uint64_t now = __atomic_load_n(regions[0].words, __ATOMIC_ACQUIRE);

		while (__atomic_load_n(regions[0].words, __ATOMIC_ACQUIRE) < now + 3)
			sleep_ms(1);
		victim_ok();
	}
	return 0;
}
