/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: the vdso works where it was, no clock jumps back, and CLOCK_MONOTONIC goes on where it
 * stopped. */
#include "victim.h"

#include <sched.h>
#include <sys/auxv.h>

static uint64_t biggest_gap_ns;
static uint64_t last[3];
static const clockid_t clocks[3] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME };

static uint64_t by_syscall(clockid_t clock)
{
	struct timespec ts;

	check_sys(syscall(SYS_clock_gettime, clock, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* From the vdso and from the kernel in turn: each must lie between its neighbours. */
static void sample(void)
{
	for (unsigned i = 0; i < 3; i++) {
		uint64_t a = by_syscall(clocks[i]);
		uint64_t v = now_ns(clocks[i]);
		uint64_t b = by_syscall(clocks[i]);

		check(a <= v && v <= b, "clock %d: kernel %lu, vdso %lu, kernel %lu", clocks[i],
		      (unsigned long)a, (unsigned long)v, (unsigned long)b);
		check(a >= last[i], "clock %d jumped back from %lu to %lu", clocks[i],
		      (unsigned long)last[i], (unsigned long)a);
		if (i == 0 && last[0] && a - last[0] > biggest_gap_ns)
			biggest_gap_ns = a - last[0];
		last[i] = b;
	}
}

static volatile int stop;

static void *sampler(void *arg)
{
	while (!stop) {
		sample();
		sleep_ms(1);
	}
	return arg;
}

static void check_vdso(uintptr_t had)
{
	char line[512];
	unsigned long start = 0;
	bool vvar = false;
	FILE *f = fopen("/proc/self/maps", "re");

	check_sys(f);
	while (fgets(line, sizeof line, f)) {
		if (strstr(line, "[vdso]"))
			start = strtoul(line, NULL, 16);
		vvar = vvar || strstr(line, "[vvar]");
	}
	(void)fclose(f);
	check(getauxval(AT_SYSINFO_EHDR) == had, "AT_SYSINFO_EHDR");
	check(start == had, "[vdso] is at %lx, was at %lx", start, (unsigned long)had);
	check(vvar, "[vvar] is gone");
	check(!memcmp((void *)had, "\177ELF", 4), "no vdso at %lx", (unsigned long)had);
}

int main(int argc, char **argv)
{
	uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);
	unsigned cpu;

	victim_init(argc, argv);
	(void)thread_start(sampler, NULL);
	check_vdso(vdso);
	victim_ready();
	while (victim_wait()) {
		check_vdso(vdso);
		check(getcpu(&cpu, NULL) == 0 && cpu < 4096, "getcpu");
		/* Where a time namespace can be had, the time when nothing ran is not seen. */
		victim_say("gap %lu ms", (unsigned long)(biggest_gap_ns / 1000000));
		biggest_gap_ns = 0;
		victim_ok();
	}
	return 0;
}
