/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: mappings that are larger than all memory and swap. With vm.overcommit_memory 0 the kernel
 * gives nobody as much at once; but pieces that lie together become one (the first), and those
 * whose protection differs are neighbours (the second).
 */
#include "victim.h"

#include <sys/sysinfo.h>

#define PIECES 3

static struct {
	char *at, maps[512];
} whole, mixed;
static size_t piece;

static char *map_pieces(void)
{
	char *p = mmap(NULL, (PIECES + 2) * piece, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check_sys(p != MAP_FAILED);
	p += piece; /* what lies around it is not like it */
	for (size_t i = 0; i < PIECES; i++) {
		check_sys(mmap(p + i * piece, piece, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
		page_fill(p + i * piece + (i + 1) * PAGE, i);
	}
	return p;
}

/* The lines of its mappings from p on. */
static void maps_of(const char *p, char *buf, size_t size)
{
	unsigned long start, end;
	char line[256];
	size_t len = 0;
	FILE *f = fopen("/proc/self/maps", "re");

	check_sys(f != NULL);
	*buf = '\0';
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && start >= (uintptr_t)p &&
		    start < (uintptr_t)p + PIECES * piece)
			len += (size_t)snprintf(buf + len, size - len, "%s", line);
	(void)fclose(f);
}

static void verify(const char *p, const char *maps)
{
	char now[512];

	for (size_t i = 0; i < PIECES; i++)
		check(page_is(p + i * piece + (i + 1) * PAGE, i), "piece %zu", i);
	maps_of(p, now, sizeof now);
	check(!strcmp(now, maps), "its mappings were\n%sand are\n%s", maps, now);
}

int main(int argc, char **argv)
{
	struct sysinfo si;
	char how[16];

	victim_init(argc, argv);
	check_sys(read_small("/proc/sys/vm/overcommit_memory", how, sizeof how) > 0);
	if (how[0] == '2')
		victim_skip("vm.overcommit_memory is 2");
	check_sys(sysinfo(&si) == 0);
	piece = (si.totalram + si.totalswap) * si.mem_unit / 5 * 2 / PAGE * PAGE;
	whole.at = map_pieces();
	mixed.at = map_pieces();
	check_sys(mprotect(mixed.at + piece, piece, PROT_READ) == 0);
	maps_of(whole.at, whole.maps, sizeof whole.maps);
	check(strchr(whole.maps, '\n') == strrchr(whole.maps, '\n'), "not one mapping:\n%s",
	      whole.maps);
	maps_of(mixed.at, mixed.maps, sizeof mixed.maps);
	victim_ready();
	while (victim_wait()) {
		verify(whole.at, whole.maps);
		verify(mixed.at, mixed.maps);
		victim_ok();
	}
	return 0;
}
