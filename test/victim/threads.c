/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: 64 threads (or as many as argv[2] says), each with attributes of its own that it checks
 * itself. */
#include "victim.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define MAX 1000u

struct attributes {
	pid_t tid;
	pthread_t self;
	char name[16];
	sigset_t mask;
	stack_t alt;
	void *robust;
	size_t robust_len;
	int policy, nice;
	cpu_set_t cpus;
	long slack;
	int *errno_at;
};

static unsigned n_threads = 64;
static struct attributes had[MAX];
static __thread uint64_t tls[100];
static pthread_barrier_t barrier;
static bool quit;

/* What thread i asks for; unprivileged threads can only become nicer. */
static void set_up(unsigned i)
{
	struct sched_param param = { 0 };
	char name[16];
	sigset_t mask;
	stack_t alt = { .ss_size = 16384 + i * 4096 };
	cpu_set_t cpus;

	(void)snprintf(name, sizeof name, "worker %u", i);
	check_sys(prctl(PR_SET_NAME, name) == 0);
	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGRTMIN + (int)i % 30);
	(void)sigaddset(&mask, SIGUSR2);
	check_sys(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
	if (i % 3) {
		alt.ss_sp = malloc(alt.ss_size);
		check_sys(alt.ss_sp && sigaltstack(&alt, NULL) == 0);
	}
	if (i % 4 == 1)
		check_sys(sched_setscheduler(0, SCHED_BATCH, &param) == 0);
	if (i % 4 == 2)
		check_sys(sched_setscheduler(0, SCHED_IDLE, &param) == 0);
	if (i % 5)
		check_sys(setpriority(PRIO_PROCESS, 0,
				      getpriority(PRIO_PROCESS, 0) + (int)(i % 5)) == 0);
	check_sys(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
	for (int cpu = 0; i % 2 && cpu < CPU_SETSIZE; cpu++)
		if (CPU_COUNT(&cpus) > 1 && CPU_ISSET(cpu, &cpus)) {
			CPU_CLR(cpu, &cpus);
			break;
		}
	check_sys(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
	check_sys(prctl(PR_SET_TIMERSLACK, 60000 + i) == 0);
	for (unsigned j = 0; j < COUNT_OF(tls); j++)
		tls[j] = mix(i * 1000 + j);
}

static void look(struct attributes *a)
{
	struct sched_param param;

	memset(a, 0, sizeof *a);
	a->tid = gettid_raw();
	a->self = pthread_self();
	check_sys(prctl(PR_GET_NAME, a->name) == 0);
	check_sys(pthread_sigmask(SIG_SETMASK, NULL, &a->mask) == 0);
	check_sys(sigaltstack(NULL, &a->alt) == 0);
	check_sys(syscall(SYS_get_robust_list, 0, &a->robust, &a->robust_len) == 0);
	a->policy = sched_getscheduler(0);
	check_sys(sched_getparam(0, &param) == 0);
	errno = 0;
	a->nice = getpriority(PRIO_PROCESS, 0);
	check_sys(sched_getaffinity(0, sizeof a->cpus, &a->cpus) == 0);
	a->slack = prctl(PR_GET_TIMERSLACK);
	a->errno_at = &errno;
}

static void compare(unsigned i)
{
	struct attributes *h = &had[i], a;

	look(&a);
	check(victim_newpids() || a.tid == h->tid, "thread %u: tid %d, was %d", i, (int)a.tid,
	      (int)h->tid);
	check(a.self == h->self, "thread %u: pthread_self", i);
	check(!strcmp(a.name, h->name), "thread %u: name '%s', was '%s'", i, a.name, h->name);
	check(!memcmp(&a.mask, &h->mask, 8), "thread %u: signal mask %lx, was %lx", i,
	      *(unsigned long *)&a.mask, *(unsigned long *)&h->mask);
	check(a.alt.ss_sp == h->alt.ss_sp && a.alt.ss_size == h->alt.ss_size &&
		      a.alt.ss_flags == h->alt.ss_flags,
	      "thread %u: alternate stack", i);
	check(a.robust == h->robust && a.robust_len == h->robust_len,
	      "thread %u: robust list %p, was %p", i, a.robust, h->robust);
	check(a.policy == h->policy, "thread %u: policy %d, was %d", i, a.policy, h->policy);
	check(a.nice == h->nice, "thread %u: nice %d, was %d", i, a.nice, h->nice);
	check(CPU_EQUAL(&a.cpus, &h->cpus), "thread %u: affinity", i);
	check(a.slack == h->slack, "thread %u: timer slack %ld, was %ld", i, a.slack, h->slack);
	check(a.errno_at == h->errno_at, "thread %u: errno has moved", i);
	for (unsigned j = 0; j < COUNT_OF(tls); j++)
		check(tls[j] == mix(i * 1000 + j), "thread %u: thread-local storage", i);
}

static void *worker(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;

	set_up(i);
	look(&had[i]);
	(void)pthread_barrier_wait(&barrier);
	for (;;) {
		(void)pthread_barrier_wait(&barrier);
		if (quit)
			return NULL;
		compare(i);
		(void)pthread_barrier_wait(&barrier);
	}
}

/* A thread made after the restart: the C library's own state must be sound for that. */
static void *newcomer(void *arg)
{
	check(tls[5] == 0, "a new thread's storage is not zero");
	return arg;
}

int main(int argc, char **argv)
{
	static pthread_t threads[MAX];
	pthread_attr_t attr;
	void *ret;

	victim_init(argc, argv);
	if (argc > 2)
		n_threads = (unsigned)atoi(argv[2]);
	check(n_threads > 0 && n_threads <= MAX, "%u threads", n_threads);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, 128 * 1024);
	(void)pthread_barrier_init(&barrier, NULL, n_threads + 1);
	for (unsigned i = 0; i < n_threads; i++) {
		int rc = pthread_create(&threads[i], &attr, worker, (void *)(uintptr_t)i);
		if (rc)
			victim_skip("thread %u cannot be made: %s", i, strerror(rc));
	}
	(void)pthread_barrier_wait(&barrier);
	victim_ready();
	while (victim_wait()) {
		(void)pthread_barrier_wait(&barrier);
		(void)pthread_barrier_wait(&barrier);
		pthread_t t = thread_start(newcomer, &attr);
		check_sys(pthread_join(t, &ret) == 0 && ret == &attr);
		victim_ok();
	}
	quit = true;
	(void)pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < n_threads; i++)
		check_sys(pthread_join(threads[i], NULL) == 0);
	return 0;
}
