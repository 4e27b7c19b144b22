/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: threads in pure computation whose general, x87, SSE, AVX and AVX-512 registers are
 * checked always. */
#include "victim.h"
#include "regs.h"

#define NTHREADS 4u

static volatile int stop;
static struct regs_job jobs[NTHREADS];

static void *runner(void *arg)
{
	struct regs_job *job = arg;

	if (job->seed % 2)
		regs_general_loop(job);
	else
		regs_vector_loop(job);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[NTHREADS];
	uint64_t before[NTHREADS];

	victim_init(argc, argv);
	for (unsigned i = 0; i < NTHREADS; i++) {
		jobs[i].seed = i;
		jobs[i].stop = &stop;
		threads[i] = thread_start(runner, &jobs[i]);
	}
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < NTHREADS; i++)
			before[i] = jobs[i].rounds;
		for (unsigned i = 0; i < NTHREADS; i++) {
			/* Each must still be running: it gets time until it has gone on a good way.
			 */
			for (int ms = 0; jobs[i].rounds < before[i] + 1000 && !jobs[i].bad;
			     ms += 5) {
				check(ms < 60000, "computing thread %u stands still", i);
				sleep_ms(5);
			}
			check(!jobs[i].bad, "thread %u: %s (%d) is %#lx, was %#lx", i, jobs[i].bad,
			      jobs[i].bad_index, (unsigned long)jobs[i].bad_got,
			      (unsigned long)jobs[i].bad_want);
		}
		victim_ok();
	}
	stop = 1;
	for (unsigned i = 0; i < NTHREADS; i++)
		check_sys(pthread_join(threads[i], NULL) == 0);
	return 0;
}
