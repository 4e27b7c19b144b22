/* SPDX-License-Identifier: BSD-2-Clause */
/* Not a victim but a nuisance: traces the process argv[2] and all its threads, as a debugger would,
 * until told to quit. */
#include "victim.h"

#include <dirent.h>
#include <sys/ptrace.h>

int main(int argc, char **argv)
{
	char path[64];
	struct dirent *d;
	DIR *dir;

	victim_init(argc, argv);
	check(argc > 2, "tracer needs a pid");
	(void)snprintf(path, sizeof path, "/proc/%.20s/task", argv[2]);
	dir = opendir(path);
	check_sys(dir);
	while ((d = readdir(dir)) != NULL)
		if (d->d_name[0] != '.' && ptrace(PTRACE_SEIZE, atoi(d->d_name), 0, 0) != 0)
			victim_skip("tracing is not allowed: %s", strerror(errno));
	(void)closedir(dir);
	victim_ready();
	while (victim_wait())
		victim_ok();
	return 0;
}
