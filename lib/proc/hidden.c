/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Before Linux 6.6 smaps does not count huge pages of a mapping that is PROT_NONE: it says that the
 * mapping holds nothing. numa_maps says it; where the kernel has none, pagemap does, which cannot
 * skip what is not there: one entry is read for each huge page that could be. The process's counter
 * of resident pages is no help: threads, or processors, count for themselves for a while.
 */
#include "proc/pagemap.h"
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <unistd.h>

#define HUGE_BYTES (2ull << 20)

static uint64_t huge_up(uint64_t address)
{
	return (address + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
}

static bool may_hide(const struct proc_map *m)
{
	return !m->prot && !m->shared && !m->ino && !m->rss_bytes && !m->swap_bytes &&
	       huge_up(m->start) + HUGE_BYTES <= m->end;
}

/* What cannot be read is taken to hold something: whoever reads it then will say why. */
static bool holds_huge(int pagemap_fd, const struct proc_map *m)
{
	for (uint64_t at = huge_up(m->start); at + HUGE_BYTES <= m->end; at += HUGE_BYTES) {
		uint64_t entry;

		if (pread(pagemap_fd, &entry, sizeof entry, (off_t)(at / CKPT_PAGE_SIZE * 8)) !=
			    (ssize_t)sizeof entry ||
		    (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)))
			return true;
	}
	return false;
}

/* Lines "ADDRESS POLICY anon=N ...", ascending as the mappings are. */
static bool ask_numa_maps(int dirfd, struct proc_map *maps, unsigned n)
{
	CLEANUP_FREE char *text = NULL;
	char *rest, *line;
	unsigned i = 0;

	if (text_read(dirfd, "numa_maps", &text, NULL, NULL) < 0)
		return false;
	rest = text;
	while ((line = text_line(&rest))) {
		uint64_t start;

		if (!text_u64(line, 16, &start))
			return false;
		while (i < n && maps[i].start < start)
			i++;
		if (i < n && maps[i].start == start && may_hide(&maps[i]) && strstr(line, " anon="))
			maps[i].rss_bytes = HUGE_BYTES;
	}
	return true;
}

int proc_maps_unhide(int dirfd, struct proc_map *maps, unsigned n, struct err *err)
{
	CLEANUP_FD int fd = -1;
	unsigned first = 0;
	int rc;

	while (first < n && !may_hide(&maps[first]))
		first++;
	if (first == n || ask_numa_maps(dirfd, maps, n))
		return 0;
	rc = proc_pagemap_open(dirfd, &fd, err);
	for (unsigned i = first; rc == 0 && i < n; i++)
		if (may_hide(&maps[i]) && holds_huge(fd, &maps[i]))
			maps[i].rss_bytes = HUGE_BYTES;
	return rc;
}
