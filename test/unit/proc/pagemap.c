/* SPDX-License-Identifier: BSD-2-Clause */
/* The scan of page tables against a child whose pages are known one by one, both ways. */
#include "../check.h"

#include "proc/pagemap.h"
#include "proc/probe.h"
#include "proc/proc.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <signal.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE                 4096ul
#define HUGE                 (2ul << 20)
#define PAGES                16u
#define MANY                 20000u      /* alternating pages: more runs than one call returns */
#define ANY                  0x80000000u /* in what is wanted: whatever suits the kernel */
#define ADVICE_GUARD_INSTALL 102

static struct err err;
static struct arena *arena;

static char *anon, *file, *shared, *guarded, *huge, *many, *reserved;

static void touch(char *base, unsigned page)
{
	((volatile char *)base)[page * PAGE] = 1;
}

static char look(const char *base, unsigned page)
{
	return ((const volatile char *)base)[page * PAGE];
}

static char *map(size_t len, int prot, int flags, int fd)
{
	char *p = mmap(NULL, len, prot, flags, fd, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* Before the fork, so that parent and child agree on the addresses; nothing is touched yet. */
static void map_all(void)
{
	const int private = MAP_PRIVATE | MAP_ANONYMOUS;
	char name[] = "/tmp/proc-pagemap-XXXXXX";
	CLEANUP_FD int fd = mkstemp(name);
	char block[PAGE];

	CHECK(fd >= 0 && unlink(name) == 0);
	memset(block, 7, sizeof block);
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(write(fd, block, sizeof block) == (ssize_t)sizeof block);
	anon = map(PAGES * PAGE, PROT_READ | PROT_WRITE, private, -1);
	file = map(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	shared = map(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	guarded = map(PAGES * PAGE, PROT_READ | PROT_WRITE, private, -1);
	huge = map(4 * HUGE, PROT_READ | PROT_WRITE, private, -1);
	huge = (char *)(((uintptr_t)huge + HUGE - 1) & ~(HUGE - 1));
	many = map(MANY * 2 * PAGE, PROT_READ | PROT_WRITE, private, -1);
	reserved = map(1ul << 40, PROT_NONE, private | MAP_NORESERVE, -1);
	(void)madvise(anon, PAGES * PAGE, MADV_NOHUGEPAGE);
	(void)madvise(guarded, PAGES * PAGE, MADV_NOHUGEPAGE);
	(void)madvise(many, MANY * 2 * PAGE, MADV_NOHUGEPAGE);
}

static void child(int ready) __attribute__((noreturn));
static void child(int ready)
{
	touch(anon, 0);
	touch(anon, 1);
	touch(anon, 2);
	touch(anon, 5);
	(void)look(anon, 7);
	(void)madvise(anon + PAGE, PAGE, MADV_DONTNEED);
	touch(anon, 15);
	for (unsigned i = 0; i < 4; i++)
		CHECK_INT(look(file, i), 7);
	touch(file, 2);
	touch(file, 3);
	touch(shared, 0);
	touch(shared, 9);
	touch(guarded, 0);
	touch(guarded, 2);
	if (probe_guard_regions())
		CHECK_INT(madvise(guarded + 2 * PAGE, 3 * PAGE, ADVICE_GUARD_INSTALL), 0);
	(void)madvise(huge, 2 * HUGE, MADV_HUGEPAGE);
	touch(huge, 3);
	for (unsigned i = 0; i < MANY; i++)
		touch(many, 2 * i + 1);
	CHECK(write(ready, "x", 1) == 1);
	for (;;)
		pause();
}

/* --- what a scan says, page by page
 * ----------------------------------------------------------------- */

struct seen {
	uint64_t base;
	unsigned npages, runs;
	uint64_t last_end;
	uint32_t *classes;
};

static int note(void *arg, const struct page_class_run *run, struct err *e)
{
	struct seen *s = arg;

	(void)e;
	CHECK(run->start < run->end && run->start >= s->last_end && run->classes);
	CHECK(run->start >= s->base && run->end <= s->base + s->npages * PAGE);
	CHECK(run->start % PAGE == 0 && run->end % PAGE == 0);
	for (uint64_t at = run->start; at < run->end; at += PAGE)
		s->classes[(at - s->base) / PAGE] = run->classes;
	s->last_end = run->end;
	s->runs++;
	return 0;
}

static struct seen scan(int fd, const char *base, unsigned npages, bool classic)
{
	struct seen s = { .base = (uintptr_t)base, .npages = npages };

	s.classes = arena_array(arena, npages, sizeof *s.classes);
	CHECK(s.classes);
	proc_pagemap_force_classic = classic;
	CHECK_OK(proc_pagemap_scan(fd, s.base, s.base + npages * PAGE, note, &s, &err));
	proc_pagemap_force_classic = false;
	return s;
}

/* Pagemap itself does not tell the zero page from others (to an ordinary user). */
static uint32_t as_classic(uint32_t classes)
{
	return classes == PAGE_PFNZERO ? PAGE_ANON : classes;
}

static void expect(int fd, const char *what, const char *base, const uint32_t want[PAGES])
{
	struct seen fast = scan(fd, base, PAGES, false), slow = scan(fd, base, PAGES, true);

	for (unsigned i = 0; i < PAGES; i++) {
		uint32_t fast_want = probe_pagemap_scan() ? want[i] : as_classic(want[i]);

		if (slow.classes[i] != as_classic(fast.classes[i]) ||
		    (want[i] != ANY && fast.classes[i] != fast_want)) {
			fprintf(stderr,
				"%s: page %u is %#x by scan, %#x by pagemap, should be %#x\n", what,
				i, fast.classes[i], slow.classes[i], want[i]);
			exit(1);
		}
	}
}

static void test_classes(int fd)
{
	static const uint32_t in_anon[PAGES] = { [0] = PAGE_ANON,
						 [2] = PAGE_ANON,
						 [5] = PAGE_ANON,
						 [7] = PAGE_PFNZERO,
						 [15] = PAGE_ANON };
	static const uint32_t in_file[PAGES] = { PAGE_FILE, PAGE_FILE, PAGE_ANON, PAGE_ANON,
						 ANY,       ANY,       ANY,       ANY,
						 ANY,       ANY,       ANY,       ANY,
						 ANY,       ANY,       ANY,       ANY };
	static const uint32_t in_shared[PAGES] = { [0] = PAGE_FILE, [9] = PAGE_FILE };
	uint32_t in_guarded[PAGES] = { [0] = PAGE_ANON, [2] = PAGE_ANON };

	/* FIXME(kernel 6.13, 6.14): there they look swapped */
	if (probe_guard_regions())
		in_guarded[2] = in_guarded[3] = in_guarded[4] = PAGE_GUARD;
	expect(fd, "anonymous memory", anon, in_anon);
	expect(fd, "a private file mapping", file, in_file);
	expect(fd, "shared memory", shared, in_shared);
	expect(fd, "guard pages", guarded, in_guarded);
}

static void test_huge(int fd)
{
	struct seen fast = scan(fd, huge, 2 * HUGE / PAGE, false),
		    slow = scan(fd, huge, 2 * HUGE / PAGE, true);
	unsigned present = 0;

	for (unsigned i = 0; i < 2 * HUGE / PAGE; i++) {
		CHECK_INT(fast.classes[i], slow.classes[i]);
		present += fast.classes[i] == PAGE_ANON;
	}
	CHECK(fast.classes[3] == PAGE_ANON);
	CHECK(present == 1 || present == HUGE / PAGE);
	CHECK_INT(fast.runs, 1);
}

static void test_many(int fd)
{
	for (unsigned classic = 0; classic < 2; classic++) {
		struct seen s = scan(fd, many, MANY * 2, classic);

		CHECK_INT(s.runs, MANY);
		for (unsigned i = 0; i < MANY * 2; i++)
			CHECK_INT(s.classes[i], i & 1 ? PAGE_ANON : 0);
	}
}

/* --- asked for the exceptions, whatever the expectation, it says the same
 * --------------------------------- */

static struct seen marked(int fd, const char *base, unsigned npages, unsigned how)
{
	struct seen s = { .base = (uintptr_t)base, .npages = npages };

	s.classes = arena_array(arena, npages, sizeof *s.classes);
	CHECK(s.classes);
	CHECK_OK(proc_pagemap_scan_marked(fd, s.base, s.base + npages * PAGE, how, note, &s, &err));
	return s;
}

static void test_exceptions(int fd, const char *base, unsigned npages)
{
	struct seen plain = marked(fd, base, npages, 0);

	for (unsigned how = LOOK_MOSTLY_WATCHED; how <= LOOK_MOSTLY_UNWATCHED; how <<= 1) {
		struct seen s = marked(fd, base, npages, how);

		for (unsigned i = 0; i < npages; i++)
			CHECK_INT(s.classes[i], plain.classes[i]);
		CHECK_INT(s.runs, plain.runs);
	}
}

/* Half of it watched, and of that some protected, some written again, some given back. */
static void test_watched(void)
{
	const struct uffdio_api wanted = { .api = UFFD_API, .features = 1 << 13 | 1 << 15 };
	struct uffdio_api api = wanted;
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	CLEANUP_FD int uffd = -1;
	CLEANUP_FD int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *p = map(4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	const unsigned half = 2 * HUGE / PAGE;
	struct pagemap_scan protect = { .size = sizeof protect,
					.flags = SCAN_WP_MATCHING,
					.category_mask = CATEGORY_WRITTEN,
					.category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED,
					.return_mask = CATEGORY_WRITTEN };
	struct pagemap_region regions[8];

	if (!probe_get(PROBE_UFFD_WP_ASYNC)->ok)
		return;
	(void)madvise(p, 4 * HUGE, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < 2 * half; i++)
		if (i % 7)
			touch(p, i);
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
	CHECK(fd >= 0 && uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0);
	reg.range.start = (uintptr_t)p;
	reg.range.len = half * PAGE;
	CHECK(ioctl(uffd, UFFDIO_REGISTER, &reg) == 0);
	protect.start = (uintptr_t)p;
	protect.end = (uintptr_t)p + half * PAGE;
	protect.vec = (uintptr_t)regions;
	while (protect.start < protect.end) {
		protect.vec_len = ARRAY_SIZE(regions);
		int n = ioctl(fd, PAGEMAP_SCAN_IOCTL, &protect);

		CHECK(n >= 0);
		if (n == 0)
			break;
		protect.start = MAX(protect.walk_end, regions[n - 1].end);
	}
	for (unsigned i = 0; i < half; i += 40)
		touch(p, i);
	(void)madvise(p + 100 * PAGE, 50 * PAGE, MADV_DONTNEED);
	(void)madvise(p + HUGE, HUGE, MADV_DONTNEED);
	test_exceptions(fd, p, 2 * half);
	test_exceptions(fd, p, half);
	test_exceptions(fd, p + half * PAGE, half);
	CHECK(munmap(p, 4 * HUGE) == 0);
}

static int count(void *arg, const struct page_class_run *run, struct err *e)
{
	(void)e;
	*(uint64_t *)arg += run->end - run->start;
	return 0;
}

static int refuse(void *arg, const struct page_class_run *run, struct err *e)
{
	(void)run;
	++*(unsigned *)arg;
	return err_set(e, -ECANCELED, "enough");
}

static void test_ranges(int fd)
{
	uint64_t total = 0;
	unsigned calls = 0;

	if (probe_pagemap_scan()) {
		CHECK_OK(proc_pagemap_scan(fd, (uintptr_t)reserved,
					   (uintptr_t)reserved + (1ull << 40), count, &total,
					   &err));
		CHECK_INT(total, 0);
		/* the whole address space, with the kernel's half: what is there is there once */
		CHECK_OK(proc_pagemap_scan(fd, 0, UINT64_MAX, count, &total, &err));
		CHECK(total >= (MANY + 8) * PAGE && total < (1ull << 30));
	}
	total = 0;
	CHECK_OK(
		proc_pagemap_scan(fd, 0xffffffffff600000, 0xffffffffff601000, count, &total, &err));
	CHECK_OK(proc_pagemap_scan(fd, 0x1000, 0x1000, count, &total, &err));
	CHECK_INT(total, 0);
	CHECK_INT(proc_pagemap_scan(fd, (uintptr_t)many, (uintptr_t)many + 100 * PAGE, refuse,
				    &calls, &err),
		  -ECANCELED);
	CHECK_INT(calls, 1);
	CHECK_STR(err.msg, "enough");
}

int main(void)
{
	int ready[2], dirfd, fd;
	pid_t pid;
	char x;

	arena = arena_new();
	CHECK(arena && pipe(ready) == 0);
	map_all();
	pid = fork();
	if (pid == 0)
		child(ready[1]);
	CHECK(pid > 0 && close(ready[1]) == 0 && read(ready[0], &x, 1) == 1);
	CHECK_OK(proc_open_pid(pid, &dirfd, &err));
	CHECK_OK(proc_pagemap_open(dirfd, &fd, &err));
	test_classes(fd);
	test_huge(fd);
	test_many(fd);
	test_exceptions(fd, anon, PAGES);
	test_exceptions(fd, guarded, PAGES);
	test_exceptions(fd, huge, 2 * HUGE / PAGE);
	test_exceptions(fd, many, MANY * 2);
	test_watched();
	test_ranges(fd);
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	for (int classic = 0; classic < 2; classic++) {
		uint64_t total = 0;

		proc_pagemap_force_classic = classic;
		CHECK_INT(proc_pagemap_scan(fd, (uintptr_t)anon, (uintptr_t)anon + PAGE, count,
					    &total, &err),
			  -ESRCH);
		CHECK_INT(total, 0);
	}
	CHECK_INT(proc_pagemap_open(dirfd, &fd, &err), -ESRCH);
	arena_free(arena);
	return 0;
}
