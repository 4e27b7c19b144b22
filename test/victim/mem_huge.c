/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: memory in transparent huge pages, all of it written anew at each poke. Nobody but itself
 * has to do with it: it has no child, and nobody has sent it a signal.
 *
 *	mem_huge MIB [holes | swings | joined]
 *
 * With holes: a page of every second huge page is given up once it has been written. With swings:
 * small pages first, and the other kind after each poke. With joined: huge pages that it has not
 * asked for before they were written, and some pages of them are zero.
 */
#include "victim.h"

#include <sys/wait.h>

#define HUGE_LEN (2ul << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static volatile sig_atomic_t signals;
static uint64_t version;
static char *area;
static size_t len;
static bool holes, joined;
static unsigned long joined_before;

static void on_signal(int signo)
{
	(void)signo;
	signals++;
}

static size_t huge_bytes(void)
{
	unsigned long start, end, kb, sum = 0;
	bool inside = false;
	char line[256];
	FILE *f = fopen("/proc/self/smaps", "re");

	check_sys(f != NULL);
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start < (uintptr_t)area + len && end > (uintptr_t)area;
		else if (inside && sscanf(line, "AnonHugePages: %lu kB", &kb) == 1)
			sum += kb;
	}
	(void)fclose(f);
	return sum * 1024;
}

/* By khugepaged, which fills holes where huge pages are asked for, in all processes together. */
static unsigned long kernel_joined(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed", "re");
	unsigned long n = 0;

	if (!f)
		return 0;
	check(fscanf(f, "%lu", &n) == 1, "khugepaged says nothing");
	(void)fclose(f);
	return n;
}

static bool is_hole(size_t i)
{
	return holes && i % (2 * HUGE_LEN / PAGE) == 7;
}

static bool is_zero(size_t i)
{
	return joined && i % 16 == 3;
}

static void join(void)
{
	if (madvise(area, len, MADV_COLLAPSE) < 0)
		victim_skip("MADV_COLLAPSE: %s", strerror(errno));
}

static void write_all(void)
{
	version++;
	joined_before = kernel_joined();
	for (size_t i = 0; i < len / PAGE; i++)
		if (is_zero(i))
			memset(area + i * PAGE, 0, PAGE);
		else
			page_fill(area + i * PAGE, mix(i) ^ version);
	for (size_t i = 0; i < len / PAGE; i++)
		if (is_hole(i))
			check_sys(madvise(area + i * PAGE, PAGE, MADV_DONTNEED) == 0);
}

static void other_kind(void)
{
	static bool huge = true;

	huge = !huge;
	check_sys(madvise(area, len, MADV_DONTNEED) == 0);
	check_sys(madvise(area, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0);
}

static void verify(void)
{
	static const char zero[PAGE];
	unsigned char there;

	for (size_t i = 0; i < len / PAGE; i++)
		if (is_zero(i)) {
			check(!memcmp(area + i * PAGE, zero, PAGE), "page %zu is not zero", i);
		} else if (is_hole(i)) {
			check_sys(mincore(area + i * PAGE, PAGE, &there) == 0);
			check(!(there & 1) || kernel_joined() != joined_before,
			      "page %zu, which was given up, is there", i);
		} else
			check(page_is(area + i * PAGE, mix(i) ^ version), "page %zu", i);
	check(signals == 0, "a signal came");
	check(waitpid(-1, NULL, WNOHANG | __WALL) < 0 && errno == ECHILD, "it has a child");
}

int main(int argc, char **argv)
{
	const char *how;
	char *p;

	victim_init(argc, argv);
	check(argc > 2, "no size");
	how = argc > 3 ? argv[3] : "";
	len = strtoul(argv[2], NULL, 10) << 20;
	for (int sig = SIGHUP; sig <= SIGURG; sig++)
		if (sig == SIGCHLD || sig == SIGURG || sig == SIGUSR1)
			check_sys(signal(sig, on_signal) != SIG_ERR);
	p = mmap(NULL, len + HUGE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(p != MAP_FAILED);
	area = (char *)(((uintptr_t)p + HUGE_LEN - 1) & ~(HUGE_LEN - 1));
	joined = !strcmp(how, "joined");
	if (!joined && madvise(area, len, MADV_HUGEPAGE) < 0)
		victim_skip("no transparent huge pages: %s", strerror(errno));
	write_all();
	if (joined)
		join();
	if (huge_bytes() < len)
		victim_skip("of %zu MiB only %zu are in huge pages here", len >> 20,
			    huge_bytes() >> 20);
	if (!strcmp(how, "swings")) {
		other_kind();
		write_all();
	}
	victim_ready();
	while (victim_wait()) {
		verify();
		holes = !strcmp(how, "holes");
		if (!strcmp(how, "swings"))
			other_kind();
		write_all();
		verify();
		victim_ok();
	}
	return 0;
}
