/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: eight threads that verify everything about themselves all the time and report the first
 * difference. */
#include "victim.h"
#include "regs.h"

#include <dirent.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define NTHREADS   8u
#define TIMEOUT_MS 50

/*
 * 0, 1: registers in pure computation (general; vector). 2 to 6: vector registers full across
 * system calls, some of them interruptible ones with timeouts. 7: signal mask, descriptors,
 * mappings, stack, results.
 */
static struct regs_job jobs[NTHREADS];
static volatile int stop;
static volatile int eintr_ok, remains_ok;
static volatile uint64_t looks;
static int pipe_fds[2], epfd;
static int futex_word;
static const struct timespec timeout = { 0, TIMEOUT_MS * 1000000 };
static const struct timespec short_sleep = { 0, 3000000 };
static uint64_t wait_set;
static struct pollfd pollfd;
static struct epoll_event event;
static char zero_buf[256];
static int null_fd, zero_fd;

static void start_registers(unsigned i, const struct regs_call *calls, unsigned n)
{
	jobs[i] = (struct regs_job){
		.seed = i, .stop = &stop, .calls = calls, .n_calls = n, .eintr_ok = &eintr_ok
	};
}

static void *run_general(void *arg)
{
	regs_general_loop(arg);
	return NULL;
}

static void *run_vector(void *arg)
{
	regs_vector_loop(arg);
	return NULL;
}

/* A set of sorted lines that is looked at again and again and must not change. */
struct view {
	char text[65536];
	size_t len;
};

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void view_fds(struct view *v, DIR *dir)
{
	int fds[256];
	size_t n = 0;
	struct dirent *d;

	rewinddir(dir);
	while ((d = readdir(dir)) != NULL)
		if (d->d_name[0] != '.' && n < COUNT_OF(fds))
			fds[n++] = atoi(d->d_name);
	qsort(fds, n, sizeof fds[0], by_value);
	v->len = 0;
	for (size_t i = 0; i < n; i++) {
		char path[64], target[256];
		(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fds[i]);
		ssize_t len = readlink(path, target, sizeof target - 1);
		/* The protocol's own file comes and goes. */
		if (len < 0)
			continue;
		target[len] = '\0';
		if (len > 4 && !strcmp(target + len - 4, ".out"))
			continue;
		/* What a restart may give another number: a pipe's inode, with new pids our own
		 * /proc. */
		target[strcspn(target, "[")] = '\0';
		size_t digits = strncmp(target, "/proc/", 6) ? 0 : strspn(target + 6, "0123456789");
		if (digits)
			memmove(target + 6, target + 6 + digits, strlen(target + 6 + digits) + 1);
		v->len += (size_t)snprintf(v->text + v->len, sizeof v->text - v->len, "%d %s\n",
					   fds[i], target);
	}
}

/* The mappings, read with one's own system calls into memory that is there: nothing moves while
 * looking. */
static void view_maps(struct view *v, int fd)
{
	ssize_t n;

	check_sys(lseek(fd, 0, SEEK_SET) == 0);
	v->len = 0;
	while ((n = read(fd, v->text + v->len, sizeof v->text - 1 - v->len)) > 0)
		v->len += (size_t)n;
	check(n == 0, "/proc/self/maps: %s", strerror(errno));
	v->text[v->len] = '\0';
}

static bool is_same(const struct view *a, const struct view *b)
{
	return a->len == b->len && !memcmp(a->text, b->text, a->len);
}

/* The first line in which the two differ, for the report. */
static void same_view(const struct view *had, const struct view *now, const char *what)
{
	const char *a = had->text, *b = now->text;

	if (is_same(had, now))
		return;
	while (*a && *a == *b) {
		a++;
		b++;
	}
	while (a > had->text && a[-1] != '\n') {
		a--;
		b--;
	}
	check(0, "%s: '%.*s' was '%.*s'", what, (int)strcspn(b, "\n"), b, (int)strcspn(a, "\n"), a);
}

/* The end of the vdso, where ckpt's code stands during a checkpoint, is zero: nothing has been
 * left. */
static size_t zero_tail(const struct view *maps)
{
	const char *line = strstr(maps->text, "[vdso]");
	unsigned long end;
	size_t n = 0;

	if (!line)
		return 0;
	while (line > maps->text && line[-1] != '\n')
		line--;
	check(sscanf(line, "%*x-%lx", &end) == 1, "no end of the vdso");
	while (n < 4096 && ((const volatile char *)end)[-1 - (long)n] == 0)
		n++;
	return n;
}

static void check_results(pid_t pid, pid_t tid)
{
	char path[64], buf[8];
	sigset_t mask;
	off_t at;

	check(getpid() == pid || victim_newpids(), "getpid: %d, was %d", (int)getpid(), (int)pid);
	check(gettid_raw() == tid || victim_newpids(), "gettid");
	check_sys(sigprocmask(SIG_BLOCK, NULL, &mask) == 0);
	check(sigismember(&mask, SIGRTMIN + 5) == 1 && sigismember(&mask, SIGUSR1) == 0 &&
		      sigismember(&mask, SIGRTMIN + 6) == 1 && sigismember(&mask, SIGTRAP) == 0,
	      "signal mask %lx", *(unsigned long *)&mask);
	check(close(900) == -1 && errno == EBADF, "close(900): %s", strerror(errno));
	check(getppid() > 0 || victim_newpids(), "getppid");
	check(read(null_fd, path, 1) == 0, "read of /dev/null");
	check(read(zero_fd, buf, 8) == 8 && !memcmp(buf, "\0\0\0\0\0\0\0", 8), "read of /dev/zero");
	at = lseek(pipe_fds[0], 0, SEEK_CUR);
	check(at == -1 && errno == ESPIPE, "lseek of a pipe: %s", strerror(errno));
	check(waitid(P_ALL, 0, NULL, WEXITED | WNOHANG) == -1 && errno == ECHILD,
	      "a child that is not ours");
	check(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0, "sigmask");
}

/* Frames with a pattern, compared on the way back; the red zone and registers are the other
 * threads'. */
static __attribute__((noinline)) uint64_t stack_check(unsigned depth, uint64_t seed)
{
	volatile uint64_t frame[64];
	uint64_t sum = 0;

	for (unsigned i = 0; i < 64; i++)
		frame[i] = mix(seed + i);
	if (depth)
		sum = stack_check(depth - 1, seed + 1000);
	for (unsigned i = 0; i < 64; i++)
		check(frame[i] == mix(seed + i), "stack frame at depth %u", depth);
	return sum + frame[5];
}

/* What another thread found is said at once, not when somebody asks. */
static void check_jobs(void)
{
	for (unsigned i = 0; i < 7; i++)
		check(!jobs[i].bad, "thread %u: %s (%d) is %#lx, was %#lx", i, jobs[i].bad,
		      jobs[i].bad_index, (unsigned long)jobs[i].bad_got,
		      (unsigned long)jobs[i].bad_want);
}

static void *run_looker(void *arg)
{
	static struct view fds, maps, now;
	DIR *dir = opendir("/proc/self/fd");
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	pid_t pid = getpid(), tid = gettid_raw();
	uint64_t sum = stack_check(20, 1);
	double d = 1.0 / 3.0;
	size_t tail;

	check_sys(dir && fd >= 0);
	/* until all other threads have what they need for it, their stacks among it */
	for (unsigned i = 0; i < 7; i++)
		while (jobs[i].rounds < 2)
			sleep_ms(5);
	view_fds(&fds, dir);
	view_maps(&maps, fd);
	tail = zero_tail(&maps);
	while (!stop) {
		/* All that traces was killed at once: a thread may not have closed ours yet. */
		for (int i = 0; i < (remains_ok ? 100 : 1); i++) {
			if (i)
				sleep_ms(2);
			view_fds(&now, dir);
			if (is_same(&fds, &now))
				break;
		}
		same_view(&fds, &now, "descriptors");
		/*
		 * A look takes several reads. Between two of them a restart may come, or a killed
		 * ckpt-run's code be on its way out: what is there to stay is still there a moment
		 * later.
		 */
		for (int i = 0; i < 100; i++) {
			view_maps(&now, fd);
			if (is_same(&maps, &now))
				break;
			sleep_ms(2);
		}
		same_view(&maps, &now, "mappings");
		check_results(pid, tid);
		check(remains_ok || zero_tail(&maps) == tail, "the vdso's end: %zu zeros, were %zu",
		      zero_tail(&maps), tail);
		check(stack_check(20, 1) == sum && d == 1.0 / 3.0, "stack");
		check_jobs();
		looks++;
	}
	return arg;
}

int main(int argc, char **argv)
{
	/* Each thread's calls: number, arguments, least and greatest result. */
	const struct regs_call quick[] = {
		{ SYS_getuid, { 0 }, getuid(), getuid() },
		{ SYS_sched_yield, { 0 }, 0, 0 },
		{ SYS_close, { 901 }, -EBADF, -EBADF },
	};
	const struct regs_call polls[] = {
		{ SYS_poll, { (uintptr_t)&pollfd, 1, TIMEOUT_MS }, 0, 0 },
		{ SYS_nanosleep, { (uintptr_t)&short_sleep, 0 }, 0, 0 },
	};
	const struct regs_call epolls[] = {
		{ SYS_getuid, { 0 }, getuid(), getuid() },
		{ SYS_clock_nanosleep, { CLOCK_MONOTONIC, 0, (uintptr_t)&short_sleep, 0 }, 0, 0 },
		/* epoll_wait has no restart block: a stop without a signal must not be seen all the
		   same */
		{ SYS_epoll_wait, { 0 /* epfd */, (uintptr_t)&event, 1, TIMEOUT_MS }, 0, 0, 1 },
	};
	const struct regs_call futexes[] = {
		{ SYS_futex,
		  { (uintptr_t)&futex_word, FUTEX_WAIT_PRIVATE, 0, (uintptr_t)&timeout },
		  -ETIMEDOUT,
		  -ETIMEDOUT },
		{ SYS_futex,
		  { (uintptr_t)&futex_word, FUTEX_WAIT_PRIVATE, 1, (uintptr_t)&timeout },
		  -EAGAIN,
		  -EAGAIN,
		  1 },
	};
	const struct regs_call sigwaits[] = {
		{ SYS_rt_sigtimedwait,
		  { (uintptr_t)&wait_set, 0, (uintptr_t)&timeout, 8 },
		  -EAGAIN,
		  -EAGAIN,
		  1 },
		{ SYS_read, { 0 /* zero_fd */, (uintptr_t)zero_buf, sizeof zero_buf }, 256, 256 },
	};
	struct regs_call epolls_now[3], sigwaits_now[2];
	uint64_t before[NTHREADS + 1];
	sigset_t set;

	victim_init(argc, argv);
	/*
	 * signal(7): epoll_wait and sigtimedwait fail with EINTR after a stop even if no signal
	 * came. ckpt undoes that, but for one moment in which nobody can: a tracer that dies
	 * between asking a thread to stop and seeing it do so. Tests that kill the tracer too allow
	 * it, by this file; and by the other one, that its code stays behind in the vdso's padding.
	 */
	remains_ok = access(victim_path("remains"), F_OK) == 0;
	eintr_ok = access(victim_path("eintr"), F_OK) == 0;
	check_sys(pipe2(pipe_fds, O_CLOEXEC) == 0);
	epfd = epoll_create1(EPOLL_CLOEXEC);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	zero_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	check_sys(epfd >= 0 && null_fd >= 0 && zero_fd >= 0);
	event.events = EPOLLIN;
	check_sys(epoll_ctl(epfd, EPOLL_CTL_ADD, pipe_fds[0], &event) == 0);
	pollfd = (struct pollfd){ .fd = pipe_fds[0], .events = POLLIN };
	memcpy(epolls_now, epolls, sizeof epolls);
	epolls_now[2].arg[0] = (uint64_t)epfd;
	memcpy(sigwaits_now, sigwaits, sizeof sigwaits);
	sigwaits_now[1].arg[0] = (uint64_t)zero_fd;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGRTMIN + 5);
	(void)sigaddset(&set, SIGRTMIN + 6);
	check_sys(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	wait_set = 1ull << (SIGRTMIN + 5 - 1);

	start_registers(0, NULL, 0);
	start_registers(1, NULL, 0);
	start_registers(2, quick, 3);
	start_registers(3, polls, 2);
	start_registers(4, epolls_now, 3);
	start_registers(5, futexes, 2);
	start_registers(6, sigwaits_now, 2);
	for (unsigned i = 0; i < 7; i++)
		(void)thread_start(i == 0 ? run_general : run_vector, &jobs[i]);
	(void)thread_start(run_looker, NULL);
	while (looks < 3)
		sleep_ms(5);
	victim_ready();

	while (victim_wait()) {
		for (unsigned i = 0; i < 7; i++)
			before[i] = jobs[i].rounds;
		before[7] = looks;
		for (int ms = 0;; ms += 5) {
			bool all = looks > before[7] + 1;
			for (unsigned i = 0; i < 7; i++)
				all = all && jobs[i].rounds > before[i] + 1;
			if (all)
				break;
			check(ms < 60000, "a thread stands still");
			sleep_ms(5);
		}
		if (eintr_ok)
			victim_say("eintr %lu", (unsigned long)(jobs[4].eintrs + jobs[6].eintrs));
		victim_ok();
	}
	return 0;
}
