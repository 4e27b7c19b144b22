/* SPDX-License-Identifier: BSD-2-Clause */
/* What a process has set up is captured as it is, comes back in another, and is captured from there
 * unchanged. */
#include "harness.h"

#include "object/attrs.h"
#include "util/cleanup.h"

#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SLACK_NS 123456
#define NS_PER_S 1000000000ULL

static char altstack[2][65536];
static char dir[] = "/tmp/ckpt-attrs-XXXXXX";

static void handler(int sig)
{
	(void)sig;
}

/* Of the test, which need not have CPU 0 and nice level 0. */
static unsigned first_cpu(pid_t test)
{
	unsigned cpu = 0;
	cpu_set_t cpus;

	CHECK(sched_getaffinity(test, sizeof cpus, &cpus) == 0);
	while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &cpus))
		cpu++;
	return cpu;
}

static int nice_level(pid_t test, unsigned which)
{
	return MIN(getpriority(PRIO_PROCESS, (id_t)test) + 5 + (int)which, 19);
}

static void own_thread_setup(unsigned which)
{
	stack_t ss = { .ss_sp = altstack[which], .ss_size = 40000 + which };
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(first_cpu(getppid()), &cpus);
	CHECK(sigaltstack(&ss, NULL) == 0);
	CHECK(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
	CHECK(prctl(PR_SET_NAME, which ? "two\\words\n" : "one", 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_TIMERSLACK, SLACK_NS + which, 0, 0, 0) == 0);
	CHECK(syscall(SYS_setpriority, PRIO_PROCESS, 0, nice_level(getppid(), which)) == 0);
	CHECK(syscall(SYS_ioprio_set, 1, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6)) == 0);
}

static void second_thread(void *arg)
{
	struct sched_param batch = { 0 };
	union sigval v = { .sival_int = 77 };
	sigset_t set;

	(void)arg;
	own_thread_setup(1);
	CHECK(sched_setscheduler(0, SCHED_BATCH, &batch) == 0);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR1);
	(void)sigaddset(&set, SIGUSR2);
	(void)sigaddset(&set, SIGRTMIN + 1);
	(void)sigaddset(&set, SIGRTMIN + 2);
	CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
	/* one for this thread, three for the process, two of them the same */
	CHECK(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR2) == 0);
	CHECK(sigqueue(getpid(), SIGRTMIN + 1, v) == 0);
	v.sival_int++;
	CHECK(sigqueue(getpid(), SIGRTMIN + 1, v) == 0);
	CHECK(kill(getpid(), SIGUSR1) == 0);
}

static void set_signals(void)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK };

	(void)sigaddset(&sa.sa_mask, SIGTERM);
	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
}

static void set_timers(void)
{
	struct itimerval it = { .it_value = { 5000, 0 }, .it_interval = { 7, 8 } };
	struct itimerspec ts = { .it_value = { 6000, 5 }, .it_interval = { 3, 4 } };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2 };
	int first, second, id;

	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
	CHECK(setitimer(ITIMER_PROF, &it, NULL) == 0);
	ev.sigev_value.sival_ptr = (void *)0x123456789abcUL;
	CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &first) == 0);
	CHECK(syscall(SYS_timer_create, CLOCK_REALTIME, &ev, &second) == 0);
	CHECK(syscall(SYS_timer_settime, second, 0, &ts, NULL) == 0);
	CHECK(syscall(SYS_timer_delete, first) == 0); /* leaves a gap in the ids */
	CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id) == 0);
	ts.it_value = (struct timespec){ 0, 1 }; /* is over at once, so its signal is pending */
	CHECK(syscall(SYS_timer_settime, id, 0, &ts, NULL) == 0);
	ts.it_value = (struct timespec){ 6000, 5 };
	ev.sigev_notify = SIGEV_THREAD_ID;
	ev._sigev_un._tid = gettid();
	CHECK(syscall(SYS_timer_create, CLOCK_PROCESS_CPUTIME_ID, &ev, &id) == 0);
	CHECK(syscall(SYS_timer_settime, id, 0, &ts, NULL) == 0);
	ev.sigev_notify = SIGEV_NONE;
	for (int i = 0; i < 1500; i++) { /* and a wide gap */
		CHECK(syscall(SYS_timer_create, CLOCK_BOOTTIME, &ev, &first) == 0);
		CHECK(syscall(SYS_timer_delete, first) == 0);
	}
	for (int i = 0; i < 300; i++) /* more than are made in one batch */
		CHECK(syscall(SYS_timer_create, CLOCK_BOOTTIME, &ev, &id) == 0);
}

static void set_limits(void)
{
	struct rlimit nofile = { 200, 300 }, core = { 1234, 5678 };

	CHECK(setrlimit(RLIMIT_NOFILE, &nofile) == 0);
	CHECK(setrlimit(RLIMIT_CORE, &core) == 0);
}

static void raise_oom_score(void)
{
	FILE *f = fopen("/proc/self/oom_score_adj", "we");

	CHECK(f);
	CHECK(fputs("300", f) >= 0);
	CHECK(fclose(f) == 0);
}

static void setup(void *arg)
{
	sigset_t set;

	(void)arg;
	CHECK(setsid() == getpid());
	set_signals();
	(void)sigemptyset(&set);
	for (int i = 0; i < 3; i++)
		(void)sigaddset(&set, SIGRTMIN + i);
	(void)sigaddset(&set, SIGUSR1);
	CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	target_thread(second_thread, NULL);
	own_thread_setup(0);
	set_timers();
	set_limits();
	(void)umask(027);
	raise_oom_score();
	CHECK(chdir(dir) == 0);
	CHECK(personality(ADDR_NO_RANDOMIZE) != -1);
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) == 0);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void plain(void *arg)
{
	(void)arg;
	(void)signal(SIGHUP, SIG_IGN); /* must become default */
	target_thread(nothing, NULL);
}

/* --- the capture says what was set up ------------------------------------------------------- */

static const struct sigaction_state *action(const struct process *p, int sig)
{
	for (unsigned i = 0; i < p->n_sigactions; i++)
		if (p->sigactions[i].signo == (uint32_t)sig)
			return &p->sigactions[i];
	return NULL;
}

static const siginfo_t *info(const struct pending_signal *s)
{
	CHECK_INT(s->siginfo.len, sizeof(siginfo_t));
	return (const siginfo_t *)(const void *)s->siginfo.data;
}

static void check_signals(const struct process *p, pid_t sender)
{
	const struct sigaction_state *usr1 = action(p, SIGUSR1), *pipe_act = action(p, SIGPIPE);

	CHECK(usr1 && pipe_act && !action(p, SIGHUP));
	CHECK_INT(usr1->handler, (uintptr_t)handler);
	CHECK_INT(usr1->mask, 1ULL << (SIGTERM - 1));
	CHECK_INT(usr1->flags & ~0x04000000ULL, SA_RESTART | SA_ONSTACK);
	CHECK_INT(pipe_act->handler, (uintptr_t)SIG_IGN);
	CHECK_INT(p->n_pending, 4);
	CHECK_INT(info(&p->pending[0])->si_signo, SIGRTMIN + 1);
	CHECK_INT(info(&p->pending[0])->si_value.sival_int, 77);
	CHECK_INT(info(&p->pending[0])->si_pid, sender);
	CHECK_INT(info(&p->pending[1])->si_value.sival_int, 78);
	CHECK_INT(info(&p->pending[2])->si_signo, SIGUSR1);
	CHECK_INT(info(&p->pending[2])->si_code, SI_USER);
	CHECK_INT(info(&p->pending[3])->si_signo, SIGRTMIN + 2);
	CHECK_INT(info(&p->pending[3])->si_code, SI_TIMER);
	CHECK_INT(info(&p->pending[3])->si_timerid, 2);
	CHECK_INT((uintptr_t)info(&p->pending[3])->si_value.sival_ptr, 0x123456789abc);
	CHECK_INT(p->threads[0].n_pending, 0);
	CHECK_INT(p->threads[1].n_pending, 1);
	CHECK_INT(info(&p->threads[1].pending[0])->si_signo, SIGUSR2);
	CHECK_INT(info(&p->threads[1].pending[0])->si_code, SI_TKILL);
	CHECK_INT(info(&p->threads[1].pending[0])->si_pid, sender);
}

static const struct posix_timer *timer(const struct process *p, int id)
{
	for (unsigned i = 0; i < p->n_timers; i++)
		if (p->timers[i].id == id)
			return &p->timers[i];
	return NULL;
}

static void check_timers(const struct process *p)
{
	const struct posix_timer *wall = timer(p, 1), *cpu = timer(p, 3);

	CHECK_INT(p->n_timers, 303);
	CHECK(wall && cpu && !timer(p, 0) && timer(p, 1803));
	CHECK_INT(wall->clockid, CLOCK_REALTIME);
	CHECK_INT(wall->sigval, 0x123456789abc);
	CHECK_INT(wall->signo, SIGRTMIN + 2);
	CHECK(wall->value_ns > 5900 * NS_PER_S && wall->value_ns < 6001 * NS_PER_S);
	CHECK_INT(wall->interval_ns, 3 * NS_PER_S + 4);
	CHECK_INT(cpu->notify, SIGEV_THREAD_ID);
	CHECK_INT(cpu->notify_tid, p->threads[0].tid);
	CHECK(cpu->value_ns > 5900 * NS_PER_S);
	CHECK_INT(timer(p, 1803)->notify, SIGEV_NONE);
	CHECK_INT(p->n_itimers, 2);
	CHECK_INT(p->itimers[0].which, ITIMER_REAL);
	CHECK(p->itimers[0].value_us > 4900000000 && p->itimers[0].value_us <= 5000000000);
	CHECK_INT(p->itimers[1].which, ITIMER_PROF);
	CHECK_INT(p->itimers[1].interval_us, 7000008);
}

static void check_threads(const struct process *p)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct thread *t = &p->threads[i];

		CHECK(!strcmp(t->comm, i ? "two\\words\n" : "one"));
		CHECK_INT(t->altstack_sp, (uintptr_t)altstack[i]);
		CHECK_INT(t->altstack_size, 40000 + i);
		CHECK_INT(t->nice, nice_level(getpid(), i));
		CHECK_INT(t->ioprio, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6));
		CHECK_INT(t->timer_slack_ns, SLACK_NS + i);
		CHECK(t->robust_list && t->clear_child_tid);
		if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
			unsigned cpu = first_cpu(getpid());

			CHECK_INT(t->affinity.len, cpu / 8 + 1);
			CHECK_INT(t->affinity.data[cpu / 8], 1 << cpu % 8);
		}
	}
	CHECK_INT(p->threads[0].parent_death_signal, SIGTERM);
	CHECK_INT(p->threads[0].personality, ADDR_NO_RANDOMIZE);
	CHECK_INT(p->threads[1].personality, 0);
	CHECK_INT(p->threads[0].sched_policy, SCHED_OTHER);
	CHECK_INT(p->threads[1].sched_policy, SCHED_BATCH);
	CHECK_INT(p->threads[0].sigmask, 7ULL << (SIGRTMIN - 1) | 1ULL << (SIGUSR1 - 1));
}

static void check_identity(const struct process *p)
{
	CHECK_INT(p->umask, 027);
	CHECK_INT(p->oom_score_adj, 300);
	CHECK(!strcmp(p->cwd, dir));
	CHECK(!strcmp(p->root, "/"));
	CHECK(strstr(p->exe, "roundtrip"));
	CHECK(p->exe_size && p->exe_mtime_ns);
	CHECK_INT(p->child_subreaper, 1);
	CHECK_INT(p->thp_disable, 1);
	CHECK_INT(p->dumpable, 1);
	CHECK_INT(p->n_rlimits, 16);
	CHECK_INT(p->rlimits[RLIMIT_NOFILE].soft, 200);
	CHECK_INT(p->rlimits[RLIMIT_NOFILE].hard, 300);
	CHECK_INT(p->rlimits[RLIMIT_CORE].soft, 1234);
	CHECK_INT(p->creds.euid, geteuid());
	CHECK_INT(p->creds.no_new_privs, 1);
}

static void check_all(const struct process *p, pid_t pid)
{
	CHECK_INT(p->n_threads, 2);
	check_identity(p);
	check_threads(p);
	check_signals(p, pid);
	check_timers(p);
}

/* What was not set up by hand comes back too. */
static void check_same(const struct process *a, const struct process *b)
{
	CHECK_INT(b->n_sigactions, a->n_sigactions);
	CHECK(!memcmp(b->sigactions, a->sigactions, a->n_sigactions * sizeof *a->sigactions));
	CHECK(!memcmp(b->rlimits, a->rlimits, a->n_rlimits * sizeof *a->rlimits));
	CHECK_INT(b->creds.cap_prm, a->creds.cap_prm);
	CHECK_INT(b->creds.cap_bnd, a->creds.cap_bnd);
	CHECK_INT(b->creds.securebits, a->creds.securebits);
	CHECK_INT(b->oom_score_adj, a->oom_score_adj);
	for (unsigned i = 0; i < a->n_threads; i++) {
		const struct thread *x = &a->threads[i], *y = &b->threads[i];

		CHECK_INT(y->sigmask, x->sigmask);
		CHECK_INT(y->robust_list, x->robust_list);
		CHECK_INT(y->clear_child_tid, x->clear_child_tid);
		CHECK_INT(y->rseq_ptr, x->rseq_ptr);
		CHECK_INT(y->rseq_len, x->rseq_len);
		CHECK_INT(y->rseq_sig, x->rseq_sig);
		CHECK_INT(y->altstack_flags, x->altstack_flags);
		CHECK_INT(y->sched_flags, x->sched_flags);
	}
}

static void round_trip(void)
{
	struct target from, to;
	struct err err = { 0 };

	target_start(&from, setup, NULL);
	CHECK_OK(target_capture(&from, &err));
	check_all(&from.process, from.pid);
	CHECK(from.tree.host.monotonic_ns && from.tree.host.boottime_ns);
	target_start(&to, plain, NULL);
	CHECK_OK(target_put(&to, &from.process, &err));
	CHECK_OK(target_capture(&to, &err));
	check_all(&to.process, to.pid);
	check_same(&from.process, &to.process);
	target_end(&from);
	target_end(&to);
}

int main(void)
{
	CHECK(mkdtemp(dir));
	round_trip();
	ptimers_force_counted = true;
	round_trip();
	CHECK(rmdir(dir) == 0);
	return 0;
}
