/* SPDX-License-Identifier: BSD-2-Clause */
/* The log of gaps: a busy loop that reads the clock knows exactly when it was kept from running. */
#include "gap.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Less than this is the machine's ordinary noise, and would only fill the log. */
#define SHORTEST_NS 200000
/* To write a line takes no longer, unless there was a stop in the middle. */
#define WRITING_NS 2000000

static const char *log_path;
static int64_t last;
static volatile sig_atomic_t ordered;

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void say(const char *line)
{
	int64_t begin = now_ns(), end;
	int fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line))
		abort();
	(void)close(fd);
	end = now_ns();
	last = end - begin < WRITING_NS ? end : begin; /* writing is no gap */
}

static void on_order(int sig)
{
	ordered = sig - SIGRTMIN;
}

void gap_start(const char *log)
{
	struct sigaction sa = { .sa_handler = on_order, .sa_flags = SA_RESTART };
	char line[64];

	log_path = log;
	for (int i = 1; i < N_ORDERS; i++)
		(void)sigaction(SIGRTMIN + i, &sa, NULL);
	(void)snprintf(line, sizeof line, "ready %d\n", (int)getpid());
	say(line);
}

int gap_tick(void)
{
	int64_t t = now_ns();
	int order = ordered;
	char line[64];

	if (t - last >= SHORTEST_NS) {
		(void)snprintf(line, sizeof line, "gap %lld %lld\n", (long long)last, (long long)t);
		say(line);
	} else {
		last = t;
	}
	if (order)
		ordered = ORDER_NONE;
	return order;
}

void gap_done(int order)
{
	char line[32];

	(void)snprintf(line, sizeof line, "done %d\n", order);
	say(line);
}

void gap_serve(const char *log, void (*verify)(void))
{
	gap_start(log);
	for (;;) {
		int order = gap_tick();

		if (order == ORDER_VERIFY && verify)
			verify();
		if (order)
			gap_done(order);
	}
}

void gap_bad(const char *what)
{
	char line[128];

	(void)snprintf(line, sizeof line, "bad: %s\n", what);
	say(line);
	exit(1);
}

uint64_t gap_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

unsigned long gap_number(int argc, char **argv, int i)
{
	char *end = NULL;
	unsigned long n = i < argc ? strtoul(argv[i], &end, 10) : 0;

	if (!end || *end || end == argv[i]) {
		(void)fprintf(stderr, "%s: argument %d is not a number\n", argv[0], i);
		exit(2);
	}
	return n;
}
