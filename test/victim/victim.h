/* SPDX-License-Identifier: BSD-2-Clause */
/* What every victim shares: the protocol with the test that drives it, checks, and page patterns.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/*
 * A victim is started as `victim BASE [ARG...]`. It sets up one kernel thing and appends "ready
 *PID" to BASE.out. The symbolic link BASE.poke (a link, so that waiting opens no descriptor) then
 * names a token: each time the token is a new one the victim verifies itself and appends "ok
 *TOKEN". What is wrong it reports as "bad: FILE:LINE: what" and exits 1. The token "quit" makes it
 *verify once more, answer and exit 0. What this machine cannot do ends in "skip: why" and exit
 *status 77. A file BASE.newpids tells that pids may differ from those at the start (restart with
 *new pids).
 *
 *	int main(int argc, char **argv)
 *	{
 *		victim_init(argc, argv);
 *		...
 *		victim_ready();
 *		while (victim_wait()) {
 *			check(...);
 *			victim_ok();
 *		}
 *		return 0;
 *	}
 */
void victim_init(int argc, char **argv);
void victim_ready(void);
/* Returns when there is a new token, always true; after "quit" has been answered: false. */
bool victim_wait(void);
void victim_ok(void);
/* What it is being asked. */
const char *victim_token(void);
/* A line in BASE.out. */
void victim_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void victim_bad(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void victim_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool victim_newpids(void);
/* BASE.SUFFIX, in a static ring of buffers. */
const char *victim_path(const char *suffix);

#define check(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond))                                                                       \
			victim_bad(__FILE__, __LINE__, __VA_ARGS__);                               \
	} while (0)
/* check(), with the name of the condition and errno's text as the message. */
#define check_sys(cond) check(cond, "%s: %s", #cond, strerror(errno))

#define PAGE        4096ul
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

/* A well mixed function of x. */
uint64_t mix(uint64_t x);
/* Fills a page with a pattern that depends on seed; page_is says whether it still holds it. */
void page_fill(void *page, uint64_t seed);
bool page_is(const void *page, uint64_t seed);
bool page_is_zero(const void *page);

void sleep_ms(long ms);
uint64_t now_ns(clockid_t clock);
pid_t gettid_raw(void);
pthread_t thread_start(void *(*fn)(void *), void *arg);
/* Waits (at most 60 s) until the thread tid is blocked in the system call nr. */
void thread_wait_blocked(pid_t tid, long nr);
/* The whole of a small file, NUL-terminated; its length. */
size_t read_small(const char *path, char *buf, size_t size);
/* The value of a "Name:\tvalue" line of /proc/self/status or another such file; false if not there.
 */
bool status_field(const char *path, const char *name, char *buf, size_t size);
/* The VmFlags of the mapping that holds addr, each with a space before and after; false if none. */
bool vmflags_of(const void *addr, char *buf, size_t size);
