/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: memory that changes in every way a program can change it, in random steps, with a model
 * of what each page must hold.
 *
 * changed BASE SEED STEPS: STEPS steps for every poke, then all is verified; in between it rests,
 * so that a checkpoint can be compared with it byte by byte. changed BASE SEED run: steps all the
 * time; a poke has it verify between two of them.
 */
#include "victim.h"

#include <malloc.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define REGIONS   48u
#define MAX_PAGES 96u
#define HUGE_LEN  (2ul << 20)
#define BRK_MAX   64u
#define STACKS    4u
#define FILE_SEED 0xf11e0000ull

enum kind { NOTHING, ANON, FILE_PRIVATE, SHARED, SHARED_FD, HUGE, BREAK };

/* What a page must hold: a pattern's seed, BLANK (zero, or the file's page), either if MAYBE. */
#define BLANK 0ull
#define MAYBE (1ull << 63)

static struct region {
	enum kind kind;
	char *at;
	unsigned npages;
	int prot, fd;
	uint64_t page[HUGE_LEN / PAGE];
} regions[REGIONS];

static uint64_t rng, seeds, steps_done;
static int file_fd;
static char *recent; /* where something was unmapped last */

static uint64_t rnd(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dull >> 33) % n;
}

/* --- the model ------------------------------------------------------------------------------ */

static bool is_blank(const struct region *r, unsigned i)
{
	const char *p = r->at + i * PAGE;

	return r->kind == FILE_PRIVATE ? page_is(p, FILE_SEED + i) : page_is_zero(p);
}

static void verify_page(const struct region *r, unsigned i)
{
	uint64_t want = r->page[i] & ~MAYBE;
	const char *p = r->at + i * PAGE;
	bool good = want == BLANK ? is_blank(r, i) : page_is(p, want);

	if (!good && (r->page[i] & MAYBE))
		good = is_blank(r, i);
	check(good, "step %llu: page %u of region %d (kind %d, at %p) is not %#llx",
	      (unsigned long long)steps_done, i, (int)(r - regions), (int)r->kind,
	      (const void *)r->at, (unsigned long long)r->page[i]);
}

static void verify_region(struct region *r)
{
	if (r->kind == NOTHING || !r->npages)
		return;
	if (!(r->prot & PROT_READ))
		check_sys(mprotect(r->at, r->npages * PAGE, PROT_READ) == 0);
	for (unsigned i = 0; i < r->npages; i++)
		verify_page(r, i);
	if (!(r->prot & PROT_READ))
		check_sys(mprotect(r->at, r->npages * PAGE, r->prot) == 0);
}

static void verify_all(void)
{
	for (unsigned i = 0; i < REGIONS; i++)
		verify_region(&regions[i]);
}

/* --- making and unmaking -------------------------------------------------------------------- */

static void forget(struct region *r)
{
	if (r->fd >= 0)
		check_sys(close(r->fd) == 0);
	r->kind = NOTHING;
	r->fd = -1;
}

static void unmake(struct region *r)
{
	if (r->kind == NOTHING || r->kind == BREAK)
		return;
	check_sys(munmap(r->at, r->npages * PAGE) == 0);
	recent = r->at;
	forget(r);
}

static void *map(struct region *r, void *at, int how)
{
	size_t len = r->npages * PAGE;

	switch (r->kind) {
	case FILE_PRIVATE:
		return mmap(at, len, r->prot, MAP_PRIVATE | how, file_fd, 0);
	case SHARED:
		return mmap(at, len, r->prot, MAP_SHARED | MAP_ANONYMOUS | how, -1, 0);
	case SHARED_FD:
		return mmap(at, len, r->prot, MAP_SHARED | how, r->fd, 0);
	default:
		return mmap(at, len, r->prot, MAP_PRIVATE | MAP_ANONYMOUS | how, -1, 0);
	}
}

static void make_huge(struct region *r)
{
	char *p = mmap(NULL, 2 * HUGE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	size_t head;

	check_sys(p != MAP_FAILED);
	head = -(uintptr_t)p & (HUGE_LEN - 1);
	if (head)
		check_sys(munmap(p, head) == 0);
	check_sys(munmap(p + head + HUGE_LEN, HUGE_LEN - head) == 0);
	r->at = p + head;
	r->npages = HUGE_LEN / PAGE;
	(void)madvise(r->at, HUGE_LEN, MADV_HUGEPAGE);
}

static void make(struct region *r)
{
	static const enum kind kinds[] = { ANON,   ANON,      ANON,         ANON,
					   SHARED, SHARED_FD, FILE_PRIVATE, HUGE };

	if (r->kind != NOTHING)
		return;
	r->kind = kinds[rnd(COUNT_OF(kinds))];
	if (r->kind == HUGE && rnd(3))
		r->kind = ANON;
	r->npages = 1 + (unsigned)rnd(MAX_PAGES);
	r->prot = PROT_READ | PROT_WRITE;
	memset(r->page, 0, sizeof r->page);
	if (r->kind == SHARED_FD) {
		r->fd = memfd_create("changed", MFD_CLOEXEC);
		check_sys(r->fd >= 0 && ftruncate(r->fd, (off_t)(r->npages * PAGE)) == 0);
	}
	if (r->kind == HUGE) {
		make_huge(r);
		return;
	}
	r->at = MAP_FAILED;
	if (recent && rnd(2)) /* often at the address of something that has just gone */
		r->at = map(r, recent, MAP_FIXED_NOREPLACE);
	if (r->at == MAP_FAILED)
		r->at = map(r, NULL, 0);
	check_sys(r->at != MAP_FAILED);
}

/* Something else of the same kind at the same place, without a moment in between. */
static void replace(struct region *r)
{
	if (r->kind == BREAK || r->kind == NOTHING || r->kind == SHARED_FD)
		return;
	r->prot = PROT_READ | PROT_WRITE;
	check_sys(map(r, r->at, MAP_FIXED) == r->at);
	memset(r->page, 0, sizeof r->page);
}

static void shrink(struct region *r)
{
	unsigned n;

	if (r->kind == NOTHING || r->kind == BREAK || r->kind == HUGE)
		return;
	n = 1 + (unsigned)rnd(r->npages);
	if (n < r->npages)
		check_sys(munmap(r->at + n * PAGE, (r->npages - n) * PAGE) == 0);
	r->npages = n;
}

/* Moves, grows or shrinks; what is new is blank. */
static void move(struct region *r)
{
	unsigned n = r->npages;
	char *to;

	if (r->kind != ANON)
		return;
	if (rnd(2))
		n = 1 + (unsigned)rnd(MAX_PAGES);
	if (rnd(2)) {
		char *room = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		check_sys(room != MAP_FAILED);
		to = mremap(r->at, r->npages * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	} else {
		to = mremap(r->at, r->npages * PAGE, n * PAGE, MREMAP_MAYMOVE);
	}
	check_sys(to != MAP_FAILED);
	if (to != r->at)
		recent = r->at;
	for (unsigned i = r->npages; i < n; i++)
		r->page[i] = BLANK;
	r->at = to;
	r->npages = n;
}

static void protect(struct region *r)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };

	if (r->kind == NOTHING || !r->npages)
		return;
	r->prot = prots[rnd(COUNT_OF(prots))];
	check_sys(mprotect(r->at, r->npages * PAGE, r->prot) == 0);
}

/* --- writing -------------------------------------------------------------------------------- */

static void fill(struct region *r, unsigned i, unsigned how)
{
	static char buf[PAGE];
	uint64_t seed = ++seeds;
	struct iovec from = { buf, PAGE }, to = { r->at + i * PAGE, PAGE };
	int p[2];

	if (how < 2) {
		page_fill(r->at + i * PAGE, seed);
	} else {
		page_fill(buf, seed);
		if (how == 2) {
			check_sys(pipe(p) == 0 && write(p[1], buf, PAGE) == (ssize_t)PAGE);
			check_sys(read(p[0], r->at + i * PAGE, PAGE) == (ssize_t)PAGE);
			check_sys(close(p[0]) == 0 && close(p[1]) == 0);
		} else {
			check_sys(process_vm_writev(getpid(), &from, 1, &to, 1, 0) ==
				  (ssize_t)PAGE);
		}
	}
	r->page[i] = seed;
}

static void writes(struct region *r)
{
	unsigned n = 1 + (unsigned)rnd(12), how = (unsigned)rnd(4), at, step = 1 + (unsigned)rnd(3);

	if (r->kind == NOTHING || !r->npages || !(r->prot & PROT_WRITE))
		return;
	at = (unsigned)rnd(r->npages);
	for (; n && at < r->npages; n--, at += step)
		fill(r, at, how);
}

/* --- advice --------------------------------------------------------------------------------- */

static void blank(struct region *r, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		r->page[i] = BLANK;
}

static void advise(struct region *r)
{
	static const int hints[] = { MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLLAPSE,
				     MADV_PAGEOUT,       MADV_COLD,           MADV_NORMAL };
	unsigned first, n;

	if (r->kind == NOTHING || !r->npages)
		return;
	first = (unsigned)rnd(r->npages);
	n = 1 + (unsigned)rnd(r->npages - first);
	switch (rnd(4)) {
	case 0:
		if (madvise(r->at + first * PAGE, n * PAGE, MADV_DONTNEED) == 0 &&
		    r->kind != SHARED && r->kind != SHARED_FD)
			blank(r, first, n);
		break;
	case 1:
		if (madvise(r->at + first * PAGE, n * PAGE, MADV_FREE) == 0)
			for (unsigned i = first; i < first + n; i++)
				r->page[i] |= r->page[i] ? MAYBE : 0;
		break;
	case 2:
		if ((r->kind == SHARED || r->kind == SHARED_FD) && (r->prot & PROT_WRITE) &&
		    madvise(r->at + first * PAGE, n * PAGE, MADV_REMOVE) == 0)
			blank(r, first, n);
		break;
	default: /* whether it is heeded or refused, nothing may change */
		(void)madvise(r->at + first * PAGE, n * PAGE, hints[rnd(COUNT_OF(hints))]);
	}
}

/* Read only: the zero page comes in, or the file's. */
static void touch(struct region *r)
{
	if (r->kind == NOTHING || !r->npages || !(r->prot & PROT_READ))
		return;
	for (unsigned i = (unsigned)rnd(r->npages); i < r->npages; i += 1 + (unsigned)rnd(5))
		verify_page(r, i);
}

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
	uint64_t seed;
};
static struct sleeper sleepers[STACKS];

static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	char pages[6 * PAGE];

	for (unsigned i = 0; i < 6; i++)
		page_fill(pages + i * PAGE, s->seed + i);
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
		s->thread = thread_start(sleeper_main, s);
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
		return move(r);
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

static void leave_by_exec(char **argv)
{
	char seed[32], steps[32];
	char *args[] = { argv[0], argv[1], seed, argv[3], steps, NULL };

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

/* Waits for SIGUSR2 without a trace in memory (victim_wait polls). */
static void rest(void)
{
	siginfo_t si;
	sigset_t set;

	if (told_to_quit())
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	while (sigwaitinfo(&set, &si) != SIGUSR2)
		;
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
	if (argv[4])
		victim_ok(); /* what the program before left to say */
	rest();
	while (victim_wait()) {
		for (int i = atoi(argv[3]); i > 0; i--)
			step();
		verify_all();
		if (rnd(12) == 0 && !told_to_quit())
			leave_by_exec(argv);
		victim_ok();
		rest();
	}
	return 0;
}
