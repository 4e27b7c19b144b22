/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: madvise() flags, mlock() and mseal(), as /proc/self/smaps shows them. */
#include "victim.h"

#include <sys/wait.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif
#define NPAGES 4u

enum { USE_MADVISE, USE_MLOCK, USE_MLOCK2, USE_MSEAL, USE_GROWSDOWN };

static struct {
	const char *flag; /* as smaps shows it */
	int how, arg;
	char *addr; /* NULL: this kernel does not have it */
} rows[] = {
	{ "dc", USE_MADVISE, MADV_DONTFORK, NULL },
	{ "dd", USE_MADVISE, MADV_DONTDUMP, NULL },
	{ "hg", USE_MADVISE, MADV_HUGEPAGE, NULL },
	{ "nh", USE_MADVISE, MADV_NOHUGEPAGE, NULL },
	{ "mg", USE_MADVISE, MADV_MERGEABLE, NULL },
	{ "wf", USE_MADVISE, MADV_WIPEONFORK, NULL },
	{ "sr", USE_MADVISE, MADV_SEQUENTIAL, NULL },
	{ "rr", USE_MADVISE, MADV_RANDOM, NULL },
	{ "lo", USE_MLOCK, 0, NULL },
	{ "lf", USE_MLOCK2, MLOCK_ONFAULT, NULL },
	{ "sl", USE_MSEAL, 0, NULL },
	{ "gd", USE_GROWSDOWN, MAP_GROWSDOWN, NULL },
};

/* Each mapping stands between two of PROT_NONE, so that none merges with another. */
static char *lonely(int flags)
{
	char *p = mmap(NULL, (NPAGES + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_sys(p != MAP_FAILED);
	p = mmap(p + PAGE, NPAGES * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0);
	check_sys(p != MAP_FAILED);
	for (unsigned i = 0; i < NPAGES; i++)
		page_fill(p + i * PAGE, i);
	return p;
}

static bool apply(char *p, int how, int arg)
{
	switch (how) {
	case USE_MADVISE:
		return madvise(p, NPAGES * PAGE, arg) == 0;
	case USE_MLOCK:
		return mlock(p, NPAGES * PAGE) == 0;
	case USE_MLOCK2:
		return syscall(SYS_mlock2, p, NPAGES * PAGE, arg) == 0;
	case USE_MSEAL:
		return syscall(462, p, NPAGES * PAGE, 0) == 0;
	default:
		return true;
	}
}

/* In a child: WIPEONFORK memory is zero there. The child touches nothing else and goes. */
static void check_wiped(const char *p)
{
	pid_t pid = fork();
	int status;

	check_sys(pid >= 0);
	if (pid == 0)
		_exit(page_is_zero(p) ? 0 : 1);
	check_sys(waitpid(pid, &status, 0) == pid);
	check(status == 0, "MADV_WIPEONFORK memory is not wiped in a child: status %x", status);
}

int main(int argc, char **argv)
{
	char flags[512], want[8];

	victim_init(argc, argv);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		char *p = lonely(rows[i].how == USE_GROWSDOWN ? MAP_GROWSDOWN : 0);
		if (!apply(p, rows[i].how, rows[i].arg))
			continue; /* a kernel without it */
		(void)snprintf(want, sizeof want, " %s ", rows[i].flag);
		if (!vmflags_of(p, flags, sizeof flags) || !strstr(flags, want))
			continue;
		rows[i].addr = p;
	}
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < COUNT_OF(rows); i++) {
			if (!rows[i].addr)
				continue;
			(void)snprintf(want, sizeof want, " %s ", rows[i].flag);
			check(vmflags_of(rows[i].addr, flags, sizeof flags), "no mapping for '%s'",
			      rows[i].flag);
			check(strstr(flags, want), "'%s' is lost:%s", rows[i].flag, flags);
			for (unsigned j = 0; j < NPAGES; j++)
				check(page_is(rows[i].addr + j * PAGE, j), "content under '%s'",
				      rows[i].flag);
			if (!strcmp(rows[i].flag, "wf"))
				check_wiped(rows[i].addr);
		}
		victim_ok();
	}
	return 0;
}
