/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: dispositions of all 64 signals, and what SA_SIGINFO, SA_RESTART, SA_NODEFER and
 * SA_RESETHAND do. */
#include "victim.h"

struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

static struct kernel_sigaction had[65];
static volatile int got_value, got_count, got_nested;
static volatile uintptr_t stack_at;
static int fds[2];

static void get(int sig, struct kernel_sigaction *ret)
{
	memset(ret, 0, sizeof *ret);
	check_sys(syscall(SYS_rt_sigaction, sig, NULL, ret, 8) == 0);
}

static void on_info(int sig, siginfo_t *info, void *context)
{
	(void)context;
	stack_at = (uintptr_t)__builtin_frame_address(0);
	got_value = info->si_value.sival_int;
	got_count++;
	check(info->si_signo == sig && info->si_code == SI_QUEUE && info->si_uid == getuid(),
	      "siginfo of signal %d: code %d", sig, info->si_code);
}

static void on_nested(int sig)
{
	if (got_nested++ == 0)
		check_sys(raise(sig) == 0);
}

static void on_wake(int sig)
{
	(void)sig;
	got_count++;
}

static void install(void)
{
	struct sigaction act = { 0 };

	for (int i = 0; i < 20; i++) {
		act.sa_sigaction = on_info;
		act.sa_flags = SA_SIGINFO | (i % 2 ? SA_RESTART : 0) | (i % 3 ? SA_ONSTACK : 0);
		(void)sigemptyset(&act.sa_mask);
		(void)sigaddset(&act.sa_mask, SIGRTMIN + 20 - i);
		check_sys(sigaction(SIGRTMIN + i, &act, NULL) == 0);
	}
	act = (struct sigaction){ .sa_handler = on_nested, .sa_flags = SA_NODEFER };
	check_sys(sigaction(SIGUSR2, &act, NULL) == 0);
	act = (struct sigaction){ .sa_handler = on_wake, .sa_flags = SA_RESTART };
	check_sys(sigaction(SIGWINCH, &act, NULL) == 0);
	act = (struct sigaction){ .sa_handler = on_wake };
	check_sys(sigaction(SIGURG, &act, NULL) == 0);
	check_sys(signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGTTOU, SIG_IGN) != SIG_ERR);
	act = (struct sigaction){ .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT | SA_NOCLDSTOP };
	check_sys(sigaction(SIGCHLD, &act, NULL) == 0);
}

static volatile pid_t reader_tid;

static void *reader(void *arg)
{
	char c;
	ssize_t n;

	reader_tid = gettid_raw();
	n = read(fds[0], &c, 1);
	*(int *)arg = n < 0 ? -errno : (int)n;
	return NULL;
}

/* A thread in read() sees EINTR for SIGURG only: SA_RESTART hides SIGWINCH. */
static void check_restart(int sig, int want)
{
	int result = 99, before = got_count;
	pthread_t t;

	reader_tid = 0;
	t = thread_start(reader, &result);
	while (!reader_tid)
		sleep_ms(1);
	thread_wait_blocked(reader_tid, SYS_read);
	check_sys(pthread_kill(t, sig) == 0);
	while (got_count == before)
		sleep_ms(1);
	if (want == 1)
		check_sys(write(fds[1], "z", 1) == 1);
	check_sys(pthread_join(t, NULL) == 0);
	check(result == want, "read() interrupted by signal %d returned %d, not %d", sig, result,
	      want);
}

static void check_delivery(const stack_t *alt)
{
	struct sigaction act = { .sa_handler = on_wake, .sa_flags = (int)SA_RESETHAND };
	struct kernel_sigaction now;

	for (int i = 0; i < 20; i++) {
		uintptr_t lo = (uintptr_t)alt->ss_sp;
		int count = got_count;
		check_sys(sigqueue(getpid(), SIGRTMIN + i,
				   (union sigval){ .sival_int = 100 + i }) == 0);
		check(got_count == count + 1 && got_value == 100 + i, "signal %d: value %d",
		      SIGRTMIN + i, got_value);
		check((stack_at >= lo && stack_at < lo + alt->ss_size) == (i % 3 != 0),
		      "signal %d came on the wrong stack", SIGRTMIN + i);
	}
	got_nested = 0;
	check_sys(raise(SIGUSR2) == 0);
	check(got_nested == 2, "SA_NODEFER: %d calls", got_nested);
	check_sys(sigaction(SIGXCPU, &act, NULL) == 0 && raise(SIGXCPU) == 0);
	get(SIGXCPU, &now);
	check(now.handler == 0, "SA_RESETHAND");
	check(write(-1, "", 1) == -1, "write");
}

int main(int argc, char **argv)
{
	stack_t alt = { .ss_size = 65536 }, now_alt;
	struct kernel_sigaction now;

	victim_init(argc, argv);
	alt.ss_sp = malloc(alt.ss_size);
	check_sys(alt.ss_sp && sigaltstack(&alt, NULL) == 0 && pipe2(fds, O_CLOEXEC) == 0);
	install();
	check_delivery(&alt);
	/* The first thread makes the C library install handlers of its own. */
	check_restart(SIGWINCH, 1);
	for (int sig = 1; sig <= 64; sig++)
		get(sig, &had[sig]);
	victim_ready();
	while (victim_wait()) {
		for (int sig = 1; sig <= 64; sig++) {
			get(sig, &now);
			check(!memcmp(&now, &had[sig], sizeof now),
			      "signal %d: handler %lx flags %lx mask %lx, was %lx %lx %lx", sig,
			      (long)now.handler, (long)now.flags, (long)now.mask,
			      (long)had[sig].handler, (long)had[sig].flags, (long)had[sig].mask);
		}
		check_sys(sigaltstack(NULL, &now_alt) == 0);
		check(now_alt.ss_sp == alt.ss_sp && now_alt.ss_size == alt.ss_size,
		      "alternate stack");
		check_delivery(&alt);
		check_restart(SIGWINCH, 1);
		check_restart(SIGURG, -EINTR);
		victim_ok();
	}
	return 0;
}
