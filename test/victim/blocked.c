/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: threads that are blocked in system calls, one kind each: no EINTR, no early return, right
 * results. */
#include "victim.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/select.h>

#define MS       1000000ull
#define TIMED_MS 300

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

struct slot {
	const struct kind *kind;
	pthread_t thread;
	volatile pid_t tid;
	volatile uint64_t rounds; /* how often the call returned as it should */
	volatile int released;    /* main has given the reason to return */
	int word;                 /* a futex, or a gate */
	int fd[2];                /* a pipe */
	int epfd, flockfd[2];
};

/* A timed kind returns by itself, again and again; another only when release() has been called. */
struct kind {
	const char *name;
	long nr;
	bool timed;
	long (*block)(struct slot *s);
	void (*release)(struct slot *s);
	long want; /* the result, or -errno */
};

static long neg(long rc)
{
	return rc < 0 ? -errno : rc;
}

static struct timespec in_ms(clockid_t clock, long ms)
{
	uint64_t t = (clock < 0 ? 0 : now_ns(clock)) + (uint64_t)ms * MS;

	return (struct timespec){ (time_t)(t / 1000000000), (long)(t % 1000000000) };
}

static void wake_by_pipe(struct slot *s)
{
	check_sys(write(s->fd[1], "x", 1) == 1);
}

static void wake_by_signal(struct slot *s)
{
	int rc = pthread_kill(s->thread, SIGRTMIN + 5);

	check(rc == 0, "pthread_kill: %s", strerror(rc));
}

static void take(struct slot *s)
{
	char c;

	check_sys(read(s->fd[0], &c, 1) == 1 && c == 'x');
}

static long block_futex(struct slot *s)
{
	long rc = neg(syscall(SYS_futex, &s->word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));

	/* Issued again after the word has changed: as good as woken. */
	if (rc == -EAGAIN && s->released)
		rc = 0;
	s->word = 0;
	return rc;
}

static void release_futex(struct slot *s)
{
	__atomic_store_n(&s->word, 1, __ATOMIC_SEQ_CST);
	(void)syscall(SYS_futex, &s->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static long block_futex_timed(struct slot *s)
{
	struct timespec ts = in_ms(-1, TIMED_MS);

	return neg(syscall(SYS_futex, &s->word, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0));
}

static long block_futex_abs(struct slot *s)
{
	struct timespec ts = in_ms(CLOCK_MONOTONIC, TIMED_MS);

	return neg(syscall(SYS_futex, &s->word, FUTEX_WAIT_BITSET_PRIVATE, 0, &ts, NULL, ~0u));
}

static long block_futex_waitv(struct slot *s)
{
	struct timespec ts = in_ms(CLOCK_MONOTONIC, TIMED_MS);
	struct {
		uint64_t val, uaddr;
		uint32_t flags, reserved;
	} waiter = { 0, (uintptr_t)&s->word, 2 /* FUTEX2_SIZE_U32 */ | 128 /* private */, 0 };
	long rc = neg(syscall(SYS_futex_waitv, &waiter, 1, 0, &ts, CLOCK_MONOTONIC));

	if (rc == -ENOSYS) {
		sleep_ms(TIMED_MS);
		rc = -ETIMEDOUT;
	}
	return rc;
}

static long block_nanosleep(struct slot *s)
{
	struct timespec ts = in_ms(-1, TIMED_MS);

	(void)s;
	return neg(syscall(SYS_nanosleep, &ts, &ts));
}

static long sleep_clock(clockid_t clock, int flags)
{
	struct timespec ts = in_ms(flags ? clock : -1, TIMED_MS);

	return neg(syscall(SYS_clock_nanosleep, clock, flags, &ts, &ts));
}

static long block_clock_rel(struct slot *s)
{
	(void)s;
	return sleep_clock(CLOCK_MONOTONIC, 0);
}

static long block_clock_abs(struct slot *s)
{
	(void)s;
	return sleep_clock(CLOCK_MONOTONIC, TIMER_ABSTIME);
}

static long block_clock_boot(struct slot *s)
{
	(void)s;
	return sleep_clock(CLOCK_BOOTTIME, TIMER_ABSTIME);
}

static long block_clock_real(struct slot *s)
{
	(void)s;
	return sleep_clock(CLOCK_REALTIME, TIMER_ABSTIME);
}

static long block_poll(struct slot *s)
{
	struct pollfd p = { .fd = s->fd[0], .events = POLLIN };
	long rc = neg(syscall(SYS_poll, &p, 1, -1));

	if (rc == 1)
		take(s);
	return rc;
}

static long block_poll_timed(struct slot *s)
{
	struct pollfd p = { .fd = s->fd[0], .events = POLLIN };

	return neg(syscall(SYS_poll, &p, 1, TIMED_MS));
}

static long block_ppoll(struct slot *s)
{
	struct pollfd p = { .fd = s->fd[0], .events = POLLIN };
	uint64_t mask = ~0ull & ~(1ull << (SIGSEGV - 1));
	long rc = neg(syscall(SYS_ppoll, &p, 1, NULL, &mask, 8));

	if (rc == 1)
		take(s);
	return rc;
}

static long block_ppoll_timed(struct slot *s)
{
	struct pollfd p = { .fd = s->fd[0], .events = POLLIN };
	struct timespec ts = in_ms(-1, TIMED_MS);
	uint64_t mask = 0;

	return neg(syscall(SYS_ppoll, &p, 1, &ts, &mask, 8));
}

static long block_select(struct slot *s)
{
	fd_set set;
	long rc;

	FD_ZERO(&set);
	FD_SET(s->fd[0], &set);
	rc = neg(syscall(SYS_select, s->fd[0] + 1, &set, NULL, NULL, NULL));
	if (rc == 1)
		take(s);
	return rc;
}

static long block_epoll(struct slot *s)
{
	struct epoll_event ev;
	long rc = neg(syscall(SYS_epoll_wait, s->epfd, &ev, 1, -1));

	if (rc == 1) {
		check(ev.data.u64 == mix(77) && ev.events == EPOLLIN, "epoll_wait: wrong event");
		take(s);
	}
	return rc;
}

static long block_epoll_timed(struct slot *s)
{
	struct epoll_event ev;

	return neg(syscall(SYS_epoll_wait, s->epfd, &ev, 1, TIMED_MS));
}

static long block_read(struct slot *s)
{
	char c;

	return neg(read(s->fd[0], &c, 1));
}

/* Main keeps the pipe full; the word is a gate that is closed until it is full again. */
static long block_write(struct slot *s)
{
	while (s->word)
		sleep_ms(1);
	return neg(write(s->fd[1], "y", 1));
}

static void release_write(struct slot *s)
{
	static char buf[4096];
	uint64_t before = s->rounds;

	s->word = 1;
	check_sys(read(s->fd[0], buf, sizeof buf) == sizeof buf);
	while (s->rounds == before)
		sleep_ms(1);
	check_sys(write(s->fd[1], buf, sizeof buf - 1) == sizeof buf - 1);
	__atomic_store_n(&s->word, 0, __ATOMIC_SEQ_CST);
}

static long block_sigwait(struct slot *s)
{
	uint64_t set = 1ull << (SIGRTMIN + 5 - 1);
	siginfo_t info;
	long rc = neg(syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8));

	(void)s;
	if (rc > 0)
		check(info.si_code == SI_TKILL, "sigtimedwait: si_code %d", info.si_code);
	return rc;
}

static long block_sigwait_timed(struct slot *s)
{
	struct timespec ts = in_ms(-1, TIMED_MS);
	uint64_t set = 1ull << (SIGRTMIN + 5 - 1);

	(void)s;
	return neg(syscall(SYS_rt_sigtimedwait, &set, NULL, &ts, 8));
}

static __thread volatile int handled;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	check(sig == SIGRTMIN + 5 && info->si_code == SI_TKILL && context, "a wrong signal");
	handled++;
}

/* These two do return EINTR, and only when the handler has run. */
static long block_pause(struct slot *s)
{
	sigset_t set;
	long rc;

	(void)s;
	handled = 0;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGRTMIN + 5);
	check_sys(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	rc = handled ? -EINTR : neg(syscall(SYS_pause));
	check_sys(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	check(handled == 1, "pause returned (%ld) without a signal", rc);
	return rc;
}

static long block_sigsuspend(struct slot *s)
{
	uint64_t none = 0, before = 0, after = 0;
	long rc;

	(void)s;
	handled = 0;
	check_sys(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &before, 8) == 0);
	rc = neg(syscall(SYS_rt_sigsuspend, &none, 8));
	check_sys(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &after, 8) == 0);
	check(handled == 1, "sigsuspend returned (%ld) without a signal", rc);
	check(before == after, "sigsuspend left the mask %lx, was %lx", (long)after, (long)before);
	return rc;
}

static long block_flock(struct slot *s)
{
	long rc;

	/* Not before main has its lock back. */
	while (s->word)
		sleep_ms(1);
	rc = neg(flock(s->flockfd[1], LOCK_EX));
	if (rc == 0)
		check_sys(flock(s->flockfd[1], LOCK_UN) == 0);
	return rc;
}

static void release_flock(struct slot *s)
{
	uint64_t before = s->rounds;

	s->word = 1;
	check_sys(flock(s->flockfd[0], LOCK_UN) == 0);
	while (s->rounds == before)
		sleep_ms(1);
	check_sys(flock(s->flockfd[0], LOCK_EX) == 0);
	__atomic_store_n(&s->word, 0, __ATOMIC_SEQ_CST);
}

static long block_eventfd(struct slot *s)
{
	uint64_t v = 0;
	long rc = neg(read(s->epfd, &v, 8));

	check(rc != 8 || v == 5, "eventfd: %lu", (unsigned long)v);
	return rc;
}

static void release_eventfd(struct slot *s)
{
	uint64_t v = 5;

	check_sys(write(s->epfd, &v, 8) == 8);
}

static const struct kind kinds[] = {
	{ "futex", SYS_futex, false, block_futex, release_futex, 0 },
	{ "futex timed", SYS_futex, true, block_futex_timed, NULL, -ETIMEDOUT },
	{ "futex absolute", SYS_futex, true, block_futex_abs, NULL, -ETIMEDOUT },
	{ "futex_waitv", SYS_futex_waitv, true, block_futex_waitv, NULL, -ETIMEDOUT },
	{ "nanosleep", SYS_nanosleep, true, block_nanosleep, NULL, 0 },
	{ "clock_nanosleep", SYS_clock_nanosleep, true, block_clock_rel, NULL, 0 },
	{ "clock_nanosleep absolute", SYS_clock_nanosleep, true, block_clock_abs, NULL, 0 },
	{ "clock_nanosleep boottime", SYS_clock_nanosleep, true, block_clock_boot, NULL, 0 },
	{ "clock_nanosleep realtime", SYS_clock_nanosleep, true, block_clock_real, NULL, 0 },
	{ "poll", SYS_poll, false, block_poll, wake_by_pipe, 1 },
	{ "poll timed", SYS_poll, true, block_poll_timed, NULL, 0 },
	{ "ppoll", SYS_ppoll, false, block_ppoll, wake_by_pipe, 1 },
	{ "ppoll timed", SYS_ppoll, true, block_ppoll_timed, NULL, 0 },
	{ "select", SYS_select, false, block_select, wake_by_pipe, 1 },
	{ "epoll_wait", SYS_epoll_wait, false, block_epoll, wake_by_pipe, 1 },
	{ "epoll_wait timed", SYS_epoll_wait, true, block_epoll_timed, NULL, 0 },
	{ "read", SYS_read, false, block_read, wake_by_pipe, 1 },
	{ "write", SYS_write, false, block_write, release_write, 1 },
	{ "sigtimedwait", SYS_rt_sigtimedwait, false, block_sigwait, wake_by_signal, 0 },
	{ "sigtimedwait timed", SYS_rt_sigtimedwait, true, block_sigwait_timed, NULL, -EAGAIN },
	{ "pause", SYS_pause, false, block_pause, wake_by_signal, -EINTR },
	{ "sigsuspend", SYS_rt_sigsuspend, false, block_sigsuspend, wake_by_signal, -EINTR },
	{ "flock", SYS_flock, false, block_flock, release_flock, 0 },
	{ "eventfd", SYS_read, false, block_eventfd, release_eventfd, 8 },
};

static struct slot slots[COUNT_OF(kinds)];

static void *runner(void *arg)
{
	struct slot *s = arg;
	const struct kind *k = s->kind;
	uint64_t before, took;
	clockid_t clock;
	long rc, want = k->want;

	if (k->block == block_sigwait)
		want = SIGRTMIN + 5;
	for (;;) {
		s->tid = gettid_raw();
		/* The time when nothing ran is none for the other clocks. */
		clock = k->block == block_clock_real ? CLOCK_REALTIME : CLOCK_MONOTONIC;
		before = now_ns(clock);
		rc = k->block(s);
		took = now_ns(clock) - before;
		check(rc == want, "%s returned %ld, not %ld%s", k->name, rc, want,
		      rc == -EINTR ? " (EINTR, and no signal came)" : "");
		/* The kernel rounds poll's deadlines; a millisecond is left for the clocks to
		 * differ. */
		check(!k->timed || took >= (TIMED_MS - 1) * MS, "%s ended after %lu of %d ms",
		      k->name, (unsigned long)(took / MS), TIMED_MS);
		check(k->timed || s->released, "%s returned and nothing had happened", k->name);
		s->released = 0;
		s->tid = gettid_raw(); /* another one after a restart with new pids */
		s->rounds++;
	}
	return NULL;
}

static void set_up(struct slot *s)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = mix(77) };
	char byte[4096] = { 0 };

	check_sys(pipe2(s->fd, O_CLOEXEC) == 0);
	if (s->kind->block == block_write) {
		check_sys(fcntl(s->fd[1], F_SETPIPE_SZ, 4096) == 4096);
		check_sys(write(s->fd[1], byte, 4096) == 4096);
	}
	if (s->kind->block == block_eventfd) {
		s->epfd = eventfd(0, EFD_CLOEXEC);
	} else {
		s->epfd = epoll_create1(EPOLL_CLOEXEC);
		check_sys(epoll_ctl(s->epfd, EPOLL_CTL_ADD, s->fd[0], &ev) == 0);
	}
	if (s->kind->block == block_flock) {
		for (int i = 0; i < 2; i++)
			s->flockfd[i] =
				open(victim_path("lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		check_sys(s->flockfd[0] >= 0 && s->flockfd[1] >= 0);
		check_sys(flock(s->flockfd[0], LOCK_EX) == 0);
	}
}

static bool wanted(unsigned i, int argc, char **argv)
{
	return argc < 3 || !strcmp(argv[2], kinds[i].name);
}

static void wait_rounds(struct slot *s, uint64_t until)
{
	for (int ms = 0; s->rounds < until; ms += 5) {
		check(ms < 60000, "%s does not return", s->kind->name);
		sleep_ms(5);
	}
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	uint64_t before[COUNT_OF(kinds)];
	sigset_t set;

	victim_init(argc, argv);
	check_sys(sigaction(SIGRTMIN + 5, &act, NULL) == 0);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGRTMIN + 5);
	check_sys(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	for (unsigned i = 0; i < COUNT_OF(kinds); i++) {
		slots[i].kind = &kinds[i];
		if (!wanted(i, argc, argv))
			continue;
		set_up(&slots[i]);
		slots[i].thread = thread_start(runner, &slots[i]);
	}
	for (unsigned i = 0; i < COUNT_OF(kinds); i++) {
		while (wanted(i, argc, argv) && !slots[i].tid)
			sleep_ms(1);
		if (wanted(i, argc, argv) && !kinds[i].timed)
			thread_wait_blocked(slots[i].tid, kinds[i].nr);
	}
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < COUNT_OF(kinds); i++) {
			before[i] = slots[i].rounds;
			if (!wanted(i, argc, argv) || kinds[i].timed)
				continue;
			/* tids: the thread itself could only tell when it runs again */
			slots[i].released = 1;
			kinds[i].release(&slots[i]);
		}
		for (unsigned i = 0; i < COUNT_OF(kinds); i++)
			if (wanted(i, argc, argv))
				wait_rounds(&slots[i], before[i] + (kinds[i].timed ? 2 : 1));
		for (unsigned i = 0; i < COUNT_OF(kinds); i++)
			if (wanted(i, argc, argv) && !kinds[i].timed)
				thread_wait_blocked(slots[i].tid, kinds[i].nr);
		victim_ok();
	}
	return 0;
}
