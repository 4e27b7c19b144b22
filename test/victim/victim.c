/* SPDX-License-Identifier: BSD-2-Clause */
/* The victims' side of the protocol of victim.h. */
#include "victim.h"

#include <stdarg.h>

static char base[3000];
static char token[64]; /* the one that is being answered */
static bool quitting;

void victim_init(int argc, char **argv)
{
	if (argc < 2 || strlen(argv[1]) >= sizeof base) {
		fprintf(stderr, "usage: %s BASE [ARG...]\n", argv[0]);
		exit(2);
	}
	strcpy(base, argv[1]);
	/* A token that is there already is not meant for us. */
	ssize_t n = readlink(victim_path("poke"), token, sizeof token - 1);
	token[n > 0 ? n : 0] = '\0';
}

const char *victim_path(const char *suffix)
{
	static char ring[8][sizeof base + 32];
	static unsigned next;
	char *path = ring[__atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % COUNT_OF(ring)];

	(void)snprintf(path, sizeof ring[0], "%s.%s", base, suffix);
	return path;
}

static void say(const char *prefix, const char *fmt, va_list ap)
{
	char line[1200];
	int n = snprintf(line, 200, "%s", prefix);
	int fd;

	n += vsnprintf(line + n, 990, fmt, ap);
	if (n > 1190)
		n = 1190;
	line[n++] = '\n';
	/* By path and only for this line, so that the victim's own descriptors stay what they are.
	 */
	fd = open(victim_path("out"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		_exit(99);
	(void)close(fd);
}

void victim_say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
}

void victim_bad(const char *file, int line, const char *fmt, ...)
{
	const char *name = strrchr(file, '/');
	char where[200];
	va_list ap;

	(void)snprintf(where, sizeof where, "bad: %s:%d: ", name ? name + 1 : file, line);
	va_start(ap, fmt);
	say(where, fmt, ap);
	va_end(ap);
	_exit(1);
}

void victim_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("skip: ", fmt, ap);
	va_end(ap);
	_exit(77);
}

void victim_ready(void)
{
	victim_say("ready %d", (int)getpid());
}

bool victim_wait(void)
{
	char now[sizeof token];
	ssize_t n;

	if (quitting)
		return false;
	for (;;) {
		n = readlink(victim_path("poke"), now, sizeof now - 1);
		if (n > 0) {
			now[n] = '\0';
			if (strcmp(now, token) != 0)
				break;
		}
		sleep_ms(10);
	}
	memcpy(token, now, sizeof token);
	quitting = !strcmp(token, "quit");
	return true;
}

void victim_ok(void)
{
	victim_say("ok %s", token);
}

const char *victim_token(void)
{
	return token;
}

bool victim_newpids(void)
{
	return access(victim_path("newpids"), F_OK) == 0;
}

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

void page_fill(void *page, uint64_t seed)
{
	uint64_t *p = page;

	for (unsigned i = 0; i < PAGE / 8; i++)
		p[i] = mix(seed * 512 + i);
}

bool page_is(const void *page, uint64_t seed)
{
	const uint64_t *p = page;

	for (unsigned i = 0; i < PAGE / 8; i++)
		if (p[i] != mix(seed * 512 + i))
			return false;
	return true;
}

bool page_is_zero(const void *page)
{
	const uint64_t *p = page;

	for (unsigned i = 0; i < PAGE / 8; i++)
		if (p[i])
			return false;
	return true;
}

void sleep_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		;
}

uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	(void)clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

pid_t gettid_raw(void)
{
	return (pid_t)syscall(SYS_gettid);
}

pthread_t thread_start(void *(*fn)(void *), void *arg)
{
	pthread_t t;
	int rc = pthread_create(&t, NULL, fn, arg);

	check(rc == 0, "pthread_create: %s", strerror(rc));
	return t;
}

void thread_wait_blocked(pid_t tid, long nr)
{
	char path[64], buf[256];
	FILE *f;
	long got = -1;

	(void)snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)tid);
	for (int i = 0; i < 6000; i++) {
		f = fopen(path, "re");
		if (!f && errno == ENOENT) { /* one of another process */
			(void)snprintf(path, sizeof path, "/proc/%d/syscall", (int)tid);
			f = fopen(path, "re");
		}
		if (f) {
			if (fgets(buf, sizeof buf, f) && buf[0] >= '0' && buf[0] <= '9')
				got = strtol(buf, NULL, 10);
			(void)fclose(f);
		}
		if (got == nr)
			return;
		sleep_ms(10);
	}
	check(0, "thread %d is not blocked in system call %ld (but %ld)", (int)tid, nr, got);
}

size_t read_small(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	check(fd >= 0, "cannot open %s: %s", path, strerror(errno));
	while ((n = read(fd, buf + len, size - 1 - len)) > 0)
		len += (size_t)n;
	check(n == 0, "cannot read %s: %s", path, strerror(errno));
	(void)close(fd);
	buf[len] = '\0';
	return len;
}

bool status_field(const char *path, const char *name, char *buf, size_t size)
{
	char line[4096];
	size_t len = strlen(name);
	bool found = false;
	FILE *f = fopen(path, "re");

	check(f, "cannot open %s: %s", path, strerror(errno));
	while (!found && fgets(line, sizeof line, f)) {
		if (strncmp(line, name, len) != 0 || line[len] != ':')
			continue;
		char *value = line + len + 1;
		value += strspn(value, " \t");
		value[strcspn(value, "\n")] = '\0';
		(void)snprintf(buf, size, "%s", value);
		found = true;
	}
	(void)fclose(f);
	return found;
}

bool vmflags_of(const void *addr, char *buf, size_t size)
{
	char line[4096];
	bool inside = false, found = false;
	FILE *f = fopen("/proc/self/smaps", "re");

	check(f, "cannot open /proc/self/smaps: %s", strerror(errno));
	while (!found && fgets(line, sizeof line, f)) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = (uintptr_t)addr >= start && (uintptr_t)addr < end;
		if (inside && !strncmp(line, "VmFlags:", 8)) {
			line[strcspn(line, "\n")] = '\0';
			(void)snprintf(buf, size, "%s ", line + 8);
			found = true;
		}
	}
	(void)fclose(f);
	return found;
}
