/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: memory under a userfaultfd of its own, descriptor 9, to be left out of images: it brings
 * missing pages, and where the kernel can (6.7) finds those it wrote by asynchronous
 * write-protection, in which nobody may interfere. mem_uffd BASE closed: the descriptor is closed
 * again before it is ready.
 */
#include "victim.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#define PAGES   64u
#define NUMBER  9
#define MISSING (PAGES / 2) /* from here on, until they are brought */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_WP_ASYNC       (1ull << 15)
#define WRITTEN                (1ull << 1)

struct region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, ret;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan)

static char *mem;
static uint64_t seeds[PAGES], next_seed;
static bool async;

static bool is_open(void)
{
	return fcntl(NUMBER, F_GETFD) >= 0;
}

static void begin(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		victim_skip("no userfaultfd here: %s", strerror(errno));
	async = ioctl(fd, UFFDIO_API, &api) == 0;
	if (!async) {
		api = (struct uffdio_api){ .api = UFFD_API };
		check_sys(close(fd) == 0);
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
		check_sys(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0);
	}
	check_sys(dup3(fd, NUMBER, O_CLOEXEC) == NUMBER && close(fd) == 0);
	mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(mem != MAP_FAILED);
	(void)madvise(mem, PAGES * PAGE, MADV_NOHUGEPAGE);
	reg.range.start = (uintptr_t)mem;
	reg.range.len = PAGES * PAGE;
	if (async)
		reg.mode |= UFFDIO_REGISTER_MODE_WP;
	check_sys(ioctl(NUMBER, UFFDIO_REGISTER, &reg) == 0);
}

/* A missing page is brought by UFFDIO_COPY, as a handler would. */
static void bring(unsigned i)
{
	static char page[PAGE];
	struct uffdio_copy copy = { .dst = (uintptr_t)mem + i * PAGE,
				    .src = (uintptr_t)page,
				    .len = PAGE };

	page_fill(page, seeds[i] = ++next_seed);
	if (is_open())
		check_sys(ioctl(NUMBER, UFFDIO_COPY, &copy) == 0);
	else
		memcpy(mem + i * PAGE, page, PAGE);
}

/* Bit i: page i was written since the last call, says the kernel. Needs no more than 64 pages. */
static uint64_t collect(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct region regions[PAGES];
	struct scan scan = { .size = sizeof scan,
			     .flags = 1, /* PM_SCAN_WP_MATCHING */
			     .start = (uintptr_t)mem,
			     .end = (uintptr_t)mem + PAGES * PAGE,
			     .vec = (uintptr_t)regions,
			     .vec_len = PAGES,
			     .mask = WRITTEN | 1ull << 3, /* and present */
			     .ret = WRITTEN };
	uint64_t found = 0;
	int n;

	check_sys(fd >= 0);
	n = ioctl(fd, SCAN_IOCTL, &scan);
	check_sys(n >= 0);
	for (int i = 0; i < n; i++)
		for (uint64_t at = regions[i].start; at < regions[i].end; at += PAGE)
			found |= 1ull << ((at - (uintptr_t)mem) / PAGE);
	check_sys(close(fd) == 0);
	return found;
}

static void verify(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		check(page_is(mem + i * PAGE, seeds[i]), "page %u is not %llu", i,
		      (unsigned long long)seeds[i]);
}

int main(int argc, char **argv)
{
	unsigned n = MISSING;
	uint64_t written = 0;

	victim_init(argc, argv);
	begin();
	for (unsigned i = 0; i < n; i++)
		bring(i);
	if (argv[2] && !strcmp(argv[2], "closed"))
		check_sys(close(NUMBER) == 0);
	else if (async)
		(void)collect();
	victim_ready();
	while (victim_wait()) {
		verify(n);
		if (is_open() && async) {
			uint64_t found = collect();

			check(found == written, "written pages: %#llx, found: %#llx",
			      (unsigned long long)written, (unsigned long long)found);
		}
		written = 0;
		for (unsigned i = (unsigned)(next_seed % 5); i < n; i += 5) {
			page_fill(mem + i * PAGE, seeds[i] = ++next_seed);
			written |= 1ull << i;
		}
		if (n < PAGES) {
			bring(n);
			written |= 1ull << n++;
		}
		victim_ok();
	}
	return 0;
}
