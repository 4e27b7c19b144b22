/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compare CHAIN PID: once. compare CHAIN PID SUPERVISOR STATS ROUNDS STEPS: ROUNDS times, victim
 * changed makes STEPS steps, ckpt-run a checkpoint, and every byte is compared: what a shell would
 * need half a second for. SUPERVISOR: ckpt-run or ckpt-restart, STATS: its --stats.
 */
#include "compare.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 60000

static void pause_ms(long ms)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

_Noreturn static void give_up(const char *what)
{
	printf("%s\n", what);
	exit(2);
}

static void read_proc(pid_t pid, const char *name, char *buf, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, buf, size - 1);
	buf[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		(void)close(fd);
}

static uint64_t field(const char *status, const char *name, int base)
{
	const char *at = strstr(status, name);

	return at ? strtoull(at + strlen(name), NULL, base) : 1;
}

/* It has taken the signal, is back in rt_sigtimedwait() (128), and nobody traces it. In this order:
 * what it has not taken yet is pending. */
static bool is_resting(pid_t pid)
{
	char status[4096], call[128];

	read_proc(pid, "status", status, sizeof status);
	read_proc(pid, "syscall", call, sizeof call);
	return !(field(status, "\nShdPnd:", 16) & 1ull << (SIGUSR2 - 1)) &&
	       !field(status, "\nTracerPid:", 10) && !strncmp(call, "128 ", 4);
}

static void wait_resting(pid_t pid)
{
	for (int ms = 0; !is_resting(pid); ms++) {
		if (ms > PATIENCE_MS || kill(pid, 0) < 0)
			give_up("the victim does not rest");
		pause_ms(1);
	}
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : st.st_size;
}

/* The line that came at the end; not before it is whole: it may be written in two pieces. */
static bool last_line(const char *path, off_t from, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, buf, size - 1, from);

	buf[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		(void)close(fd);
	return n > 0 && buf[n - 1] == '\n';
}

static bool attempt(pid_t supervisor, const char *stats)
{
	off_t before = size_of(stats);
	char line[4096];

	if (kill(supervisor, SIGUSR1) < 0)
		give_up("the supervisor is gone");
	for (int ms = 0; !last_line(stats, before, line, sizeof line); ms++) {
		if (ms > PATIENCE_MS)
			give_up("no checkpoint came");
		pause_ms(1);
	}
	if (strstr(line, "\"result\": \"ok\""))
		return true;
	/* legal: it could not be stopped just then */
	if (!strstr(line, "\"result\": \"skipped\""))
		give_up(line);
	return false;
}

static void checkpoint(pid_t supervisor, const char *stats)
{
	for (int i = 0; i < 5; i++)
		if (attempt(supervisor, stats))
			return;
	give_up("skipped five times");
}

static bool round_of(const char *chain, pid_t pid, pid_t supervisor, const char *stats, int steps,
		     unsigned long *pages)
{
	if (sigqueue(pid, SIGUSR2, (union sigval){ .sival_int = steps }) < 0)
		give_up("the victim is gone");
	wait_resting(pid);
	checkpoint(supervisor, stats);
	wait_resting(pid);
	return compare_newest(chain, pid, pages);
}

int main(int argc, char **argv)
{
	unsigned long pages = 0;
	bool good = true;
	int rounds = 0;

	if (argc != 3 && argc != 7)
		return 2;
	if (argc == 3)
		good = compare_newest(argv[1], atoi(argv[2]), &pages);
	for (; argc == 7 && good && rounds < atoi(argv[5]); rounds++)
		good = round_of(argv[1], atoi(argv[2]), atoi(argv[3]), argv[4], atoi(argv[6]),
				&pages);
	printf("%lu pages compared, round %d: %s\n", pages, rounds, good ? "all alike" : "differ");
	return !good;
}
