/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: interval timers, and POSIX timers with gaps in their ids, all ways of notification and
 * values. */
#include "victim.h"

#include <sys/time.h>

#define NTIMERS 9u

static volatile sig_atomic_t alarms, virtuals, profs;
static volatile int fired[NTIMERS], thread_fired;
static volatile pid_t thread_tid;
static int ids[NTIMERS];
static sigset_t alarm_set;
static const bool deleted[NTIMERS] = { [1] = true, [3] = true, [4] = true };

static void on_itimer(int sig)
{
	if (sig == SIGALRM)
		alarms++;
	else if (sig == SIGVTALRM)
		virtuals++;
	else
		profs++;
}

static void on_timer(int sig, siginfo_t *info, void *context)
{
	int i = info->si_value.sival_int - 1000;

	(void)sig;
	(void)context;
	check(info->si_code == SI_TIMER && i >= 0 && i < (int)NTIMERS, "timer signal with value %d",
	      info->si_value.sival_int);
	/* si_timerid: what the kernel calls the timer. */
	check(info->si_timerid == ids[i], "timer %d: si_timerid %d", ids[i], info->si_timerid);
	fired[i]++;
	if (i == 7) {
		thread_fired++;
		check(gettid_raw() == thread_tid, "SIGEV_THREAD_ID came to another thread");
	}
}

/* A timer may not be told to notify a thread before that thread is there. */
static void *target(void *arg)
{
	/* SIGALRM is the main thread's. */
	check_sys(sigaddset(&alarm_set, SIGALRM) == 0 &&
		  pthread_sigmask(SIG_BLOCK, &alarm_set, NULL) == 0);
	thread_tid = gettid_raw();
	for (;;) {
		sleep_ms(20);
		thread_tid = gettid_raw();
	}
	return arg;
}

static void create(unsigned i, clockid_t clock, int notify)
{
	struct sigevent ev = { .sigev_notify = notify, .sigev_signo = SIGRTMIN + 2 };
	struct itimerspec spec = { { 0, 50000000 }, { 0, 50000000 } };

	ev.sigev_value.sival_int = 1000 + (int)i;
	if (notify == SIGEV_THREAD_ID)
		ev._sigev_un._tid = thread_tid;
	check_sys(syscall(SYS_timer_create, clock, &ev, &ids[i]) == 0);
	if (i == 6)
		return; /* stays disarmed */
	if (i == 5) {
		spec.it_value.tv_sec = 100000; /* one shot, far away */
		spec.it_interval.tv_nsec = 0;
	}
	check_sys(syscall(SYS_timer_settime, ids[i], 0, &spec, NULL) == 0);
}

static void check_timer(unsigned i)
{
	struct itimerspec now;
	long rc = syscall(SYS_timer_gettime, ids[i], &now);

	if (deleted[i]) {
		check(rc == -1 && errno == EINVAL, "timer %d had been deleted and is there",
		      ids[i]);
		return;
	}
	check(rc == 0, "timer %d is gone: %s", ids[i], strerror(errno));
	if (i == 6)
		check(!now.it_value.tv_sec && !now.it_value.tv_nsec, "timer %d is armed", ids[i]);
	else if (i == 5)
		check(now.it_value.tv_sec > 90000 && now.it_value.tv_sec <= 100000 &&
			      !now.it_interval.tv_nsec && !now.it_interval.tv_sec,
		      "timer %d has %ld s to go", ids[i], (long)now.it_value.tv_sec);
	else
		check(now.it_interval.tv_nsec == 50000000 && !now.it_interval.tv_sec,
		      "timer %d: interval %ld ns", ids[i], now.it_interval.tv_nsec);
}

static void check_itimer(int which, long usec)
{
	struct itimerval now;

	/* Just expired, it shows nothing until its signal has been taken, on the way back to us. */
	for (int i = 0; i < 5; i++) {
		check_sys(getitimer((__itimer_which_t)which, &now) == 0);
		if (now.it_value.tv_usec || now.it_value.tv_sec)
			break;
	}
	check(now.it_interval.tv_usec == usec, "itimer %d: interval %ld us", which,
	      (long)now.it_interval.tv_usec);
	check(now.it_value.tv_usec || now.it_value.tv_sec, "itimer %d is not armed", which);
	check(now.it_value.tv_sec == 0 && now.it_value.tv_usec <= usec + 10000,
	      "itimer %d has %ld us to go", which, (long)now.it_value.tv_usec);
}

/* All that should tick goes on ticking. The loop burns CPU for the virtual ones. */
static void check_ticks(void)
{
	int a = alarms, v = virtuals, p = profs, before[NTIMERS];
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 60000000000ull;

	for (unsigned i = 0; i < NTIMERS; i++)
		before[i] = fired[i];
	for (;;) {
		bool all = alarms > a + 1 && virtuals > v + 1 && profs > p + 1;
		for (unsigned i = 0; i < NTIMERS; i++)
			if (!deleted[i] && i != 5 && i != 6 && i != 8)
				all = all && fired[i] > before[i] + 1;
		if (all)
			break;
		check(now_ns(CLOCK_MONOTONIC) < end,
		      "ticks: real %d virtual %d prof %d posix %d %d %d", alarms - a, virtuals - v,
		      profs - p, fired[0] - before[0], fired[2] - before[2], fired[7] - before[7]);
		for (volatile int spin = 0; spin < 100000; spin++)
			;
	}
	check(fired[6] == 0 && fired[5] == 0 && fired[8] == 0, "a timer went off that should not");
}

/* What is created now has an id of its own. */
static void check_new_id(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_NONE };
	int id = -1;

	check_sys(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id) == 0);
	for (unsigned i = 0; i < NTIMERS; i++)
		check(deleted[i] || id != ids[i], "a new timer has the id %d of an old one", id);
	check_sys(syscall(SYS_timer_delete, id) == 0);
}

/*
 * ITIMER_REAL expired, with its signal pending: its next interval begins when the signal is taken,
 * and until then it shows nothing to go.
 */
static void alarm_pending(void)
{
	sigset_t pending;

	check_sys(pthread_sigmask(SIG_BLOCK, &alarm_set, NULL) == 0);
	do {
		sleep_ms(40);
		check_sys(sigpending(&pending) == 0);
	} while (!sigismember(&pending, SIGALRM));
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_itimer, .sa_flags = SA_RESTART };
	static const struct itimerval real = { { 0, 30000 }, { 0, 30000 } };
	static const struct itimerval virt = { { 0, 40000 }, { 0, 40000 } };
	static const struct itimerval prof = { { 0, 60000 }, { 0, 60000 } };

	victim_init(argc, argv);
	check_sys(sigaction(SIGALRM, &act, NULL) == 0 && sigaction(SIGVTALRM, &act, NULL) == 0 &&
		  sigaction(SIGPROF, &act, NULL) == 0);
	act.sa_sigaction = on_timer;
	act.sa_flags = SA_SIGINFO | SA_RESTART;
	(void)thread_start(target, NULL);
	while (!thread_tid)
		sleep_ms(1);
	/* The handler looks at ids[]: it is installed before any timer is armed, and blocked until
	 * all are. */
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGRTMIN + 2);
	check_sys(sigaction(SIGRTMIN + 2, &act, NULL) == 0);
	for (unsigned i = 0; i < NTIMERS; i++) {
		static const clockid_t clocks[NTIMERS] = { CLOCK_MONOTONIC, CLOCK_REALTIME,
							   CLOCK_REALTIME,  CLOCK_MONOTONIC,
							   CLOCK_MONOTONIC, CLOCK_MONOTONIC,
							   CLOCK_MONOTONIC, CLOCK_MONOTONIC,
							   CLOCK_BOOTTIME };
		check_sys(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
		create(i, clocks[i], i == 7 ? SIGEV_THREAD_ID : i == 8 ? SIGEV_NONE : SIGEV_SIGNAL);
		if (deleted[i])
			check_sys(syscall(SYS_timer_delete, ids[i]) == 0);
		check_sys(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	}
	check_sys(setitimer(ITIMER_REAL, &real, NULL) == 0 &&
		  setitimer(ITIMER_VIRTUAL, &virt, NULL) == 0 &&
		  setitimer(ITIMER_PROF, &prof, NULL) == 0);
	alarm_pending();
	victim_ready();
	while (victim_wait()) {
		check_sys(pthread_sigmask(SIG_UNBLOCK, &alarm_set, NULL) == 0);
		check_itimer(ITIMER_REAL, 30000);
		check_itimer(ITIMER_VIRTUAL, 40000);
		check_itimer(ITIMER_PROF, 60000);
		for (unsigned i = 0; i < NTIMERS; i++)
			check_timer(i);
		check_ticks();
		check_new_id();
		alarm_pending();
		victim_ok();
	}
	return 0;
}
