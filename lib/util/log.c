/* SPDX-License-Identifier: BSD-2-Clause */
/* Debug log by room, the library's only output. */
#include "util/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const rooms[] = {
	"image", "chain", "proc", "trace", "inject", "object", "dump", "restore", "run",
};

static const char *wanted;
static const char *program_name = "ckpt";

void log_init(const char *program)
{
	program_name = program;
	wanted = getenv("CKPT_DEBUG");
	if (wanted && !strcmp(wanted, "help")) {
		printf("CKPT_DEBUG takes 'all' or a list of:");
		for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++)
			printf(" %s", rooms[i]);
		printf("\n");
		exit(0);
	}
}

bool log_enabled(const char *room)
{
	size_t len = strlen(room);

	if (!wanted)
		return false;
	if (!strcmp(wanted, "all"))
		return true;
	for (const char *p = wanted; *p;) {
		size_t n = strcspn(p, ",");

		if (n == len && !memcmp(p, room, n))
			return true;
		p += n;
		p += *p == ',';
	}
	return false;
}

void log_write(const char *room, const char *fmt, ...)
{
	struct timespec ts;
	char line[1024];
	va_list ap;
	int n, m;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	n = snprintf(line, sizeof line, "%s[%d] %5ld.%06ld %s: ", program_name, (int)getpid(),
		     (long)(ts.tv_sec % 100000), ts.tv_nsec / 1000, room);
	va_start(ap, fmt);
	m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n = (n + m < (int)sizeof line - 1) ? n + m : (int)sizeof line - 2;
	line[n++] = '\n';
	(void)!write(STDERR_FILENO, line, (size_t)n);
}
