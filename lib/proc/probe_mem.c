/* SPDX-License-Identifier: BSD-2-Clause */
/* Probes of what the kernel does about memory; each makes pages and looks at the effect. */
#include "proc/pagemap.h"
#include "proc/probe_list.h"

#include "state/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
/* Linux 6.4 and 6.7 */
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_WP_ASYNC       (1ull << 15)
#define ADVICE_GUARD_INSTALL   102 /* MADV_GUARD_INSTALL, Linux 6.13 */

#define PAGES 8u
#define LEN   ((size_t)PAGES * CKPT_PAGE_SIZE)

static char *map_pages(struct probe_result *r)
{
	char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED)
		return p;
	probe_no(r, "cannot map memory");
	return NULL;
}

static void touch(char *pages, unsigned n)
{
	((volatile char *)pages)[(size_t)n * CKPT_PAGE_SIZE] = 1;
}

static int open_pagemap(struct probe_result *r)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		probe_no(r, "cannot open /proc/self/pagemap");
	return fd;
}

/*
 * Scans the pages for those with category; bit i of *ret_found: page i. -1 with errno.
 */
static int scan(int fd, const char *pages, uint64_t flags, uint64_t category, unsigned *ret_found)
{
	struct pagemap_region regions[PAGES];
	struct pagemap_scan arg = {
		.size = sizeof arg,
		.flags = flags,
		.start = (uintptr_t)pages,
		.end = (uintptr_t)pages + LEN,
		.vec = (uintptr_t)regions,
		.vec_len = PAGES,
		.category_mask = category,
		.return_mask = category,
	};
	int n = ioctl(fd, PAGEMAP_SCAN_IOCTL, &arg);

	if (n < 0)
		return -1;
	*ret_found = 0;
	for (int i = 0; i < n; i++)
		for (uint64_t at = regions[i].start; at < regions[i].end; at += CKPT_PAGE_SIZE)
			*ret_found |= 1u << ((at - (uintptr_t)pages) / CKPT_PAGE_SIZE & 31);
	return 0;
}

void probe_run_pagemap_scan(struct probe_result *r)
{
	char *pages = map_pages(r);
	unsigned found = 0;
	int fd;

	if (!pages || (fd = open_pagemap(r)) < 0)
		return;
	(void)madvise(pages, LEN, MADV_NOHUGEPAGE);
	touch(pages, 1);
	touch(pages, 4);
	if (scan(fd, pages, 0, CATEGORY_PRESENT, &found) < 0) {
		if (errno == ENOTTY || errno == EINVAL)
			(void)snprintf(r->why, sizeof r->why,
				       "the kernel has no PAGEMAP_SCAN (Linux 6.7)");
		else
			probe_no(r, "PAGEMAP_SCAN");
		return;
	}
	r->ok = found == (1u << 1 | 1u << 4);
	if (!r->ok)
		(void)snprintf(r->why, sizeof r->why,
			       "PAGEMAP_SCAN found pages 0x%x instead of 0x12", found);
}

void probe_run_guard_regions(struct probe_result *r)
{
	char *pages = map_pages(r);
	int fds[2];

	if (!pages)
		return;
	if (madvise(pages + CKPT_PAGE_SIZE, CKPT_PAGE_SIZE, ADVICE_GUARD_INSTALL) < 0)
		return probe_no(r, "madvise(MADV_GUARD_INSTALL)");
	if (pipe(fds) < 0)
		return probe_no(r, "cannot make a pipe");
	/* The kernel meets the guard page on our behalf: an error instead of a SIGSEGV. */
	r->ok = write(fds[1], pages, 1) == 1 && write(fds[1], pages + CKPT_PAGE_SIZE, 1) < 0 &&
		errno == EFAULT;
	if (!r->ok)
		(void)snprintf(r->why, sizeof r->why,
			       "MADV_GUARD_INSTALL leaves the page readable");
}

/* A userfaultfd that watches the pages for writes, or -1 with *r filled in. */
static int watch(char *pages, struct probe_result *r)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)pages, .len = LEN },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		probe_no(r, "userfaultfd");
	else if (ioctl(fd, UFFDIO_API, &api) < 0)
		probe_no(r, "UFFD_FEATURE_WP_ASYNC (Linux 6.7)");
	else if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		probe_no(r, "UFFDIO_REGISTER");
	else
		return fd;
	return -1;
}

void probe_run_uffd_wp_async(struct probe_result *r)
{
	const uint64_t arm = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC;
	unsigned first = 0, second = 0, third = 0;
	char *pages = map_pages(r);
	int fd;

	if (!pages || (fd = open_pagemap(r)) < 0)
		return;
	(void)madvise(pages, LEN, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < 4; i++)
		touch(pages, i);
	if (watch(pages, r) < 0)
		return;
	if (scan(fd, pages, arm, CATEGORY_WRITTEN, &first) < 0 ||
	    scan(fd, pages, 0, CATEGORY_WRITTEN, &second) < 0)
		return probe_no(r, "PAGEMAP_SCAN with PM_SCAN_WP_MATCHING");
	touch(pages, 2); /* was there */
	touch(pages, 6); /* was not */
	if (scan(fd, pages, arm, CATEGORY_WRITTEN, &third) < 0)
		return probe_no(r, "PAGEMAP_SCAN with PM_SCAN_WP_MATCHING");
	r->ok = (first & 0xf) == 0xf && second == 0 && third == (1u << 2 | 1u << 6);
	if (!r->ok)
		(void)snprintf(r->why, sizeof r->why,
			       "written pages are not found (0x%x, 0x%x, 0x%x)", first, second,
			       third);
}

static bool soft_dirty(int fd, const char *pages, unsigned n)
{
	uint64_t entry = 0;

	return pread(fd, &entry, sizeof entry,
		     (off_t)(((uintptr_t)pages / CKPT_PAGE_SIZE + n) * 8)) == 8 &&
	       entry & PAGEMAP_SOFT_DIRTY;
}

void probe_run_soft_dirty(struct probe_result *r)
{
	char *pages = map_pages(r);
	int fd, refs;

	if (!pages || (fd = open_pagemap(r)) < 0)
		return;
	refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	if (refs < 0)
		return probe_no(r, "cannot open /proc/self/clear_refs");
	touch(pages, 1);
	touch(pages, 2);
	if (write(refs, "4", 1) != 1)
		return probe_no(r, "clear_refs");
	if (soft_dirty(fd, pages, 1) || soft_dirty(fd, pages, 2)) {
		(void)snprintf(r->why, sizeof r->why,
			       "clear_refs does not clear the soft-dirty bits");
		return;
	}
	touch(pages, 2);
	touch(pages, 3);
	r->ok = !soft_dirty(fd, pages, 1) && soft_dirty(fd, pages, 2) && soft_dirty(fd, pages, 3);
	if (!r->ok)
		(void)snprintf(r->why, sizeof r->why,
			       "a written page does not turn soft-dirty "
			       "(the kernel was built without CONFIG_MEM_SOFT_DIRTY)");
}

void probe_run_proc_mem(struct probe_result *r)
{
	char *p = map_pages(r);
	int fd;

	if (!p)
		return;
	touch(p, 0);
	fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	if (fd < 0 || mprotect(p, LEN, PROT_READ) < 0)
		return probe_no(r, "cannot open /proc/self/mem");
	if (pwrite(fd, "x", 1, (off_t)(uintptr_t)p) != 1 || *(volatile char *)p != 'x')
		return probe_no(r, "cannot write to read-only memory");
	r->ok = true;
}
