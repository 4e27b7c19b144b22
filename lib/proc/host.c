/* SPDX-License-Identifier: BSD-2-Clause */
/* The machine: kernel, boot, CPU and its register state, time. */
#include "proc/proc.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* XCR0: which register state the kernel has switched on; and the size of an XSAVE area for it. */
static void read_xsave(struct host *h)
{
	uint32_t a, b, c, d, low, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	h->xfeatures = (uint64_t)high << 32 | low;
	if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
		h->xsave_size = b;
}
#else
static void read_xsave(struct host *h)
{
	(void)h;
}
#endif

/* The first line of a file below /proc without its newline; "" when it is not there. */
static char *first_line(const char *path, struct arena *a)
{
	CLEANUP_FREE char *text = NULL;

	if (io_read_file(AT_FDCWD, path, &text, NULL) < 0)
		return arena_strdup(a, "");
	text[strcspn(text, "\n")] = '\0';
	return arena_strdup(a, text);
}

static char *cpu_model(struct arena *a)
{
	CLEANUP_FREE char *text = NULL;
	const char *p;

	if (io_read_file(AT_FDCWD, "/proc/cpuinfo", &text, NULL) < 0 ||
	    !(p = strstr(text, "model name")) || !(p = strchr(p, ':')))
		return arena_strdup(a, "");
	p += 1 + strspn(p + 1, " \t");
	return arena_printf(a, "%.*s", (int)strcspn(p, "\n"), p);
}

int proc_host_read(struct arena *a, struct host *ret, struct err *err)
{
	struct timespec now;
	struct utsname u;

	if (uname(&u) < 0 || clock_gettime(CLOCK_REALTIME, &now) < 0)
		return err_set(err, -errno, "cannot describe this machine: %m");
	ret->release = arena_strdup(a, u.release);
	ret->version = arena_strdup(a, u.version);
	ret->machine = arena_strdup(a, u.machine);
	ret->nodename = arena_strdup(a, u.nodename);
	ret->boot_id = first_line("/proc/sys/kernel/random/boot_id", a);
	ret->cpu_model = cpu_model(a);
	if (!ret->release || !ret->version || !ret->machine || !ret->nodename || !ret->boot_id ||
	    !ret->cpu_model)
		return err_nomem(err);
	read_xsave(ret);
	ret->realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	return 0;
}
