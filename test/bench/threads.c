/* SPDX-License-Identifier: BSD-2-Clause */
/* Benchmark target: many threads, half of them in a condition wait, half sleeping. */
#include "gap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static atomic_uint running;

static void *waiting(void *arg)
{
	(void)pthread_mutex_lock(&lock);
	atomic_fetch_add(&running, 1);
	for (;;)
		(void)pthread_cond_wait(&never, &lock);
	return arg;
}

static void *sleeping(void *arg)
{
	struct timespec ts = { .tv_nsec = 100000000 };

	atomic_fetch_add(&running, 1);
	for (;;)
		(void)nanosleep(&ts, NULL);
	return arg;
}

/* bench-threads LOG N */
int main(int argc, char **argv)
{
	unsigned long n = gap_number(argc, argv, 2);
	pthread_attr_t attr;

	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, 65536);
	for (unsigned long i = 1; i < n; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &attr, i % 2 ? waiting : sleeping, NULL)) {
			(void)fprintf(stderr, "only %lu threads can be had\n", i);
			return 1;
		}
	}
	while (atomic_load(&running) < n - 1)
		(void)usleep(1000);
	gap_serve(argv[1], NULL);
}
