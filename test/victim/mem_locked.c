/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: mlockall(). What is locked stays locked, also where nothing can be read (PROT_NONE, guard
 * pages, beyond a file's end), what is not locked is not, and what comes later is as it was to be:
 * locked and there, locked and there when it is touched, or neither. One process for each.
 */
#include "family.h"

#include <sys/resource.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define NPAGES 4u

enum { LOCKS_ALL, LOCKS_NOTHING, LOCKS_FUTURE, LOCKS_ON_FAULT, LOCKS_CURRENT, MEMBERS };

static const struct {
	int flags; /* of mlockall() */
	bool old, new, on_fault;
} rows[] = {
	[LOCKS_ALL] = { MCL_CURRENT | MCL_FUTURE, true, true, false },
	[LOCKS_NOTHING] = { 0, false, false, false },
	[LOCKS_FUTURE] = { MCL_FUTURE, false, true, false },
	[LOCKS_ON_FAULT] = { MCL_FUTURE | MCL_ONFAULT, false, true, true },
	[LOCKS_CURRENT] = { MCL_CURRENT, true, false, false },
};

static struct {
	const char *what;
	char *addr;
} old[4];

static void check_flags(int n, const char *what, const char *addr, bool locked, bool on_fault)
{
	char flags[512];

	check(vmflags_of(addr, flags, sizeof flags), "member %d: no mapping for %s", n, what);
	check(!!strstr(flags, " lo ") == locked, "member %d: %s is %slocked:%s", n, what,
	      locked ? "not " : "", flags);
	check(!!strstr(flags, " lf ") == on_fault, "member %d: %s is %slocked on fault:%s", n, what,
	      on_fault ? "not " : "", flags);
}

static char *map(int prot, int fd, size_t npages)
{
	char *p =
		mmap(NULL, npages * PAGE, prot, MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

	check_sys(p != MAP_FAILED);
	return p;
}

/* Of a protection that nothing beside it has, so that it is a mapping of its own. */
static void check_new(int n)
{
	char *p = map(PROT_READ | PROT_WRITE | PROT_EXEC, -1, NPAGES);
	bool there = rows[n].new && !rows[n].on_fault;
	unsigned char vec[NPAGES];

	check_flags(n, "new memory", p, rows[n].new, rows[n].on_fault);
	check_sys(mincore(p, NPAGES * PAGE, vec) == 0);
	for (unsigned i = 0; i < NPAGES; i++)
		check((vec[i] & 1) == there, "member %d: new page %u is %sthere", n, i,
		      there ? "not " : "");
	check_sys(munmap(p, NPAGES * PAGE) == 0);
}

static void check_member(int n)
{
	for (unsigned i = 0; i < COUNT_OF(old); i++)
		check_flags(n, old[i].what, old[i].addr, rows[n].old, false);
	for (unsigned i = 0; i < NPAGES; i++)
		check(page_is(old[0].addr + i * PAGE, i), "member %d: page %u has changed", n, i);
	check_new(n);
}

static void map_old(void)
{
	int fd = open(victim_path("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	check_sys(fd >= 0 && ftruncate(fd, (off_t)PAGE) == 0);
	old[0].what = "memory";
	old[0].addr = map(PROT_READ | PROT_WRITE, -1, NPAGES);
	for (unsigned i = 0; i < NPAGES; i++)
		page_fill(old[0].addr + i * PAGE, i);
	old[1].what = "memory without access";
	old[1].addr = map(PROT_NONE, -1, NPAGES);
	old[2].what = "a file of which less is there";
	old[2].addr = map(PROT_READ, fd, NPAGES);
	old[3].what = "memory with a guard page"; /* Linux 6.13 */
	old[3].addr = map(PROT_READ, -1, NPAGES);
	(void)madvise(old[3].addr + PAGE, PAGE, MADV_GUARD_INSTALL);
	check_sys(close(fd) == 0);
}

static void lock(int n)
{
	if (mlockall(rows[n].flags) == 0)
		return;
	check(errno == EPERM || errno == ENOMEM, "mlockall: %s", strerror(errno));
	victim_skip("not so much memory may be locked here: mlockall: %s", strerror(errno));
}

/* One process, which has lowered its limit since: "low", of memory that is locked, to nothing;
 * "full", of memory to come, to what has no room for more. */
static int alone(bool low)
{
	struct rlimit limit = { 0, 0 };

	if (!low) {
		check_sys(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
		limit.rlim_cur = 64ul * 1024;
	}
	check_sys(low ? mlock(old[0].addr, NPAGES * PAGE) == 0 : mlockall(MCL_FUTURE) == 0);
	check_sys(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	victim_ready();
	while (victim_wait()) {
		if (low) /* else there is no room for what looking takes */
			check_flags(0, old[0].what, old[0].addr, true, false);
		victim_ok();
	}
	return 0;
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	map_old();
	if (argc > 2)
		return alone(!strcmp(argv[2], "low"));
	family_init();
	family_note(0, -1);
	lock(LOCKS_ALL);
	check_sys(munlockall() == 0);
	for (int n = 1; n < MEMBERS; n++) {
		if (family_fork(n) > 0)
			continue;
		if (rows[n].flags)
			lock(n);
		family[n].also = check_member;
		family_note(n, 0);
		family_serve(n);
	}
	lock(0);
	family_wait(MEMBERS);
	check_member(0);
	family_ask(MEMBERS);
	victim_ready();
	while (victim_wait()) {
		check_member(0);
		family_ask(MEMBERS);
		victim_ok();
	}
	return 0;
}
