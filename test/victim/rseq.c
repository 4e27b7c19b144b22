/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: glibc's rseq registration stays in force, and threads inside rseq critical sections lose
 * no count. */
#include "victim.h"

#include <sched.h>
#include <sys/rseq.h>

#define NTHREADS 4u
#define NCPUS    64u

/*
 * Each thread adds 1 to its CPU's counter, without an atomic instruction, within a critical section
 * that idles long between load and store: nearly every stop hits its middle. A thread that went on
 * there after a restart (its rseq_cs forgotten, or the registration gone) would overwrite what
 * another has counted.
 */
static struct {
	volatile uint64_t n;
	uint64_t pad[7];
} counters[NCPUS];

static volatile int stop;
static volatile uint64_t done[NTHREADS], aborts[NTHREADS];

static struct rseq *area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* 0 = counted, 1 = aborted, 2 = on another CPU by now. */
static int add_one(struct rseq *rs, uint32_t cpu)
{
	volatile uint64_t *counter = &counters[cpu].n;

	__asm__ goto(".pushsection __rseq_cs, \"aw\"\n"
		     ".balign 32\n"
		     "3: .long 0, 0\n"
		     ".quad 1f, 2f - 1f, 4f\n"
		     ".popsection\n"
		     "lea 3b(%%rip), %%rax\n"
		     "mov %%rax, 8(%[rs])\n"     /* rseq_cs */
		     "1: cmp %[cpu], 4(%[rs])\n" /* cpu_id */
		     "jne %l[moved]\n"
		     "mov (%[counter]), %%rax\n"
		     "mov $3000, %%ecx\n"
		     "5: dec %%ecx\n"
		     "jnz 5b\n"
		     "inc %%rax\n"
		     "mov %%rax, (%[counter])\n" /* the commit */
		     "2:\n"
		     ".pushsection __rseq_failure, \"ax\"\n"
		     ".byte 0x0f, 0xb9, 0x3d\n" /* ud1, so that the signature is an instruction */
		     ".long 0x53053053\n"
		     "4: jmp %l[aborted]\n"
		     ".popsection\n"
		     :
		     : [rs] "r"(rs), [cpu] "r"(cpu), [counter] "r"(counter)
		     : "rax", "rcx", "memory", "cc"
		     : aborted, moved);
	return 0;
aborted:
	return 1;
moved:
	return 2;
}

static void *runner(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	struct rseq *rs = area();

	while (!stop) {
		uint32_t cpu = __atomic_load_n(&rs->cpu_id_start, __ATOMIC_RELAXED);
		int rc = cpu < NCPUS ? add_one(rs, cpu) : 2;
		if (rc == 0)
			done[i]++;
		else if (rc == 1)
			aborts[i]++;
		check(cpu < NCPUS, "rseq says CPU %u", cpu);
	}
	return NULL;
}

/* Registering once more says EBUSY as long as the first registration stands. */
static void check_registered(void)
{
	struct rseq *rs = area();
	cpu_set_t old, one;

	check(syscall(SYS_rseq, rs, 32, 0, 0x53053053) == -1 && errno == EBUSY,
	      "rseq is no longer registered: %s", strerror(errno));
	check_sys(sched_getaffinity(0, sizeof old, &old) == 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &old))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		check_sys(sched_setaffinity(0, sizeof one, &one) == 0);
		check(__atomic_load_n(&rs->cpu_id, __ATOMIC_RELAXED) == (uint32_t)cpu,
		      "rseq says CPU %u on CPU %d", rs->cpu_id, cpu);
	}
	check_sys(sched_setaffinity(0, sizeof old, &old) == 0);
}

static void check_sums(const pthread_t *threads)
{
	uint64_t sum = 0, want = 0, seen = 0;

	stop = 1;
	for (unsigned i = 0; i < NTHREADS; i++) {
		check_sys(pthread_join(threads[i], NULL) == 0);
		want += done[i];
		seen += aborts[i];
	}
	for (unsigned i = 0; i < NCPUS; i++)
		sum += counters[i].n;
	check(sum == want, "%lu counted in critical sections, %lu in the counters (%lu aborts)",
	      (unsigned long)want, (unsigned long)sum, (unsigned long)seen);
	stop = 0;
}

int main(int argc, char **argv)
{
	pthread_t threads[NTHREADS];

	victim_init(argc, argv);
	if (!__rseq_size)
		victim_skip("the C library has not registered rseq");
	for (unsigned i = 0; i < NTHREADS; i++)
		threads[i] = thread_start(runner, (void *)(uintptr_t)i);
	check_registered();
	victim_ready();
	while (victim_wait()) {
		check_registered();
		check_sums(threads);
		for (unsigned i = 0; i < NTHREADS; i++)
			threads[i] = thread_start(runner, (void *)(uintptr_t)i);
		victim_ok();
	}
	return 0;
}
