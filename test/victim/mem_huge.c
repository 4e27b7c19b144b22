/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: memory in transparent huge pages, all of it written anew at each poke. Nobody but itself
 * has to do with it: it has no child, and nobody has sent it a signal.
 *
 *	mem_huge MIB [holes | alone | grows | small | swings | joined]
 *
 * With holes: a page of every second huge page is given up once it has been written. With alone:
 * the same in a mapping that nothing adjoins. With grows: the same in memory that is a stack to the
 * kernel. With small: the same where it has asked for
 * huge pages but gets none, since it has also said that it wants none (PR_SET_THP_DISABLE). With
 * swings: small pages first, and the other kind after each poke. With joined: huge pages that it
 * has not asked for before they were written, and some pages of them are zero.
 */
#include "victim.h"

#include <sys/prctl.h>
#include <sys/wait.h>

#define HUGE_LEN (2ul << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static volatile sig_atomic_t signals;
static uint64_t version;
static char *low, *area; /* between them it has memory that nobody has touched */
static size_t len;
static bool holes, alone, joined, small;
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

/* How many mappings its memory is: more than one, and mremap(2) would not take it as a whole. */
static unsigned mappings(void)
{
	unsigned long start, end;
	unsigned n = 0;
	char line[256];
	FILE *f = fopen("/proc/self/maps", "re");

	check_sys(f != NULL);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			n += start < (uintptr_t)area + len && end > (uintptr_t)area;
	(void)fclose(f);
	return n;
}

/* By khugepaged, in all processes together: it fills all the holes of a huge page where such pages
 * are asked for, or given to everybody. */
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
	unsigned long back = 0;
	unsigned char there;
	size_t last = 0;

	for (size_t i = 0; i < len / PAGE; i++)
		if (is_zero(i)) {
			check(!memcmp(area + i * PAGE, zero, PAGE), "page %zu is not zero", i);
		} else if (is_hole(i)) {
			check_sys(mincore(area + i * PAGE, PAGE, &there) == 0);
			if (!(there & 1))
				continue;
			check(!memcmp(area + i * PAGE, zero, PAGE), "page %zu is not zero", i);
			back++;
			last = i;
		} else
			check(page_is(area + i * PAGE, mix(i) ^ version), "page %zu", i);
	check(back <= (small ? 0 : kernel_joined() - joined_before),
	      "%lu pages that were given up are there, the last is %zu", back, last);
	check(mappings() == 1, "it is in %u mappings", mappings());
	check(!small || huge_bytes() == 0, "it has got huge pages, which it does not want");
	for (char *p = low; p < area; p += PAGE)
		check(mincore(p, PAGE, &there) == 0 && !(there & 1),
		      "memory that was never touched is there, %zu KiB below the rest",
		      (size_t)(area - p) >> 10);
	check(signals == 0, "a signal came");
	check(waitpid(-1, NULL, WNOHANG | __WALL) < 0 && errno == ECHILD, "it has a child");
}

/*
 * From another boundary on than that of huge pages, and what is mapped next will lie directly below
 * it: that might complete one, where they are given to everybody.
 */
static void map_area(int flags)
{
	size_t all = len + 2 * HUGE_LEN;
	char *p =
		mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	check_sys(p != MAP_FAILED);
	area = (char *)(((uintptr_t)p + 2 * HUGE_LEN - 1) & ~(HUGE_LEN - 1));
	if (alone) {
		check_sys(munmap(p, (size_t)(area - p)) == 0);
		check_sys(munmap(area + len, (size_t)(p + all - area) - len) == 0);
		low = area;
		return;
	}
	low = area - HUGE_LEN + 64 * PAGE; /* what ckpt-run maps in a job are 264 KiB */
	if (low > p)
		check_sys(munmap(p, (size_t)(low - p)) == 0);
	else
		low = p;
	for (int i = 0; i < 100; i++) { /* no other place is left for it */
		p = mmap(NULL, HUGE_LEN / 8, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		check_sys(p != MAP_FAILED);
		if (p + HUGE_LEN / 8 != low)
			continue;
		check_sys(munmap(p, HUGE_LEN / 8) == 0);
		break;
	}
}

int main(int argc, char **argv)
{
	const char *how;

	victim_init(argc, argv);
	check(argc > 2, "no size");
	how = argc > 3 ? argv[3] : "";
	len = strtoul(argv[2], NULL, 10) << 20;
	for (int sig = SIGHUP; sig <= SIGURG; sig++)
		if (sig == SIGCHLD || sig == SIGURG || sig == SIGUSR1)
			check_sys(signal(sig, on_signal) != SIG_ERR);
	joined = !strcmp(how, "joined");
	alone = !strcmp(how, "alone");
	map_area(!strcmp(how, "grows") ? MAP_GROWSDOWN : 0);
	small = !strcmp(how, "small");
	if (small)
		check_sys(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	if (!joined && madvise(area, len, MADV_HUGEPAGE) < 0)
		victim_skip("no transparent huge pages: %s", strerror(errno));
	write_all();
	if (joined)
		join();
	if (!small && huge_bytes() < len)
		victim_skip("of %zu MiB only %zu are in huge pages here", len >> 20,
			    huge_bytes() >> 20);
	if (!strcmp(how, "swings")) {
		other_kind();
		write_all();
	}
	victim_ready();
	while (victim_wait()) {
		verify();
		holes = !strcmp(how, "holes") || !strcmp(how, "grows") || alone || small;
		if (!strcmp(how, "swings"))
			other_kind();
		write_all();
		verify();
		victim_ok();
	}
	return 0;
}
