/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * By /proc/PID/stat, proc(5): fields 3 (state), 9 (flags), 20 (threads), 22 (start time), 31
 * (signals pending). A first thread that ends before others stays behind as a zombie, as does that
 * of a process that was killed; so then the others are looked at.
 */
#include "util/ending.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PF_EXITING 4 /* the kernel's include/linux/sched.h */
#define KILLED     (1 << (SIGKILL - 1))

/* Field n (from 3 on): behind a name that may hold anything. */
static const char *field(const char *text, int n)
{
	const char *at = strrchr(text, ')');

	for (int i = 2; i < n && at; i++)
		at = strchr(at + 1, ' ');
	return at ? at + 1 : "";
}

static bool is_zombie(const char *text)
{
	return *field(text, 3) == 'Z' || *field(text, 3) == 'X';
}

bool ending_stat(const char *text)
{
	return is_zombie(text) || (strtoul(field(text, 9), NULL, 10) & PF_EXITING) ||
	       (strtoul(field(text, 31), NULL, 10) & KILLED);
}

/* Does any thread of it go on? */
static bool others_go_on(pid_t pid)
{
	char path[48];
	struct dirent *e;
	bool found = false;
	DIR *dir;

	(void)snprintf(path, sizeof path, "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir))) {
		CLEANUP_FREE char *text = NULL;
		char name[NAME_MAX + 8];

		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(name, sizeof name, "%s/stat", e->d_name);
		found = io_read_records(dirfd(dir), name, &text, NULL) == 0 && !ending_stat(text);
	}
	if (dir)
		(void)closedir(dir);
	return found;
}

static char *stat_text(pid_t pid)
{
	char path[32], *text = NULL;

	(void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
	return pid > 0 && io_read_records(AT_FDCWD, path, &text, NULL) == 0 ? text : NULL;
}

bool process_is_stopped(pid_t pid)
{
	CLEANUP_FREE char *text = stat_text(pid);

	return text && (*field(text, 3) == 'T' || *field(text, 3) == 't');
}

enum ending ending_of(pid_t pid, uint64_t *ret_start_time)
{
	CLEANUP_FREE char *text = stat_text(pid);

	if (!text)
		return ENDING_GONE;
	if (ret_start_time)
		*ret_start_time = strtoull(field(text, 22), NULL, 10);
	if (!ending_stat(text))
		return ENDING_NOT;
	if (strtoul(field(text, 20), NULL, 10) <= 1)
		return is_zombie(text) ? ENDING_DONE : ENDING_SOON;
	return others_go_on(pid) ? ENDING_LEADER : ENDING_SOON;
}
