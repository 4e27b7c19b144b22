/* SPDX-License-Identifier: BSD-2-Clause */
/* A real program of 64 threads: mutexes, condition variables, a work queue, and threads made in a
 * loop. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define NTHREADS 64
#define QUEUE    100

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static uint64_t queue[QUEUE];
static unsigned head, count;
static int closed;
static uint64_t total; /* under lock */

static uint64_t work(uint64_t n)
{
	uint64_t x = n * 0x9e3779b97f4a7c15u + 1;

	for (int i = 0; i < 150000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

static void put(uint64_t item)
{
	pthread_mutex_lock(&lock);
	while (count == QUEUE)
		pthread_cond_wait(&not_full, &lock);
	queue[(head + count++) % QUEUE] = item;
	pthread_cond_signal(&not_empty);
	pthread_mutex_unlock(&lock);
}

static int get(uint64_t *item)
{
	int got = 0;

	pthread_mutex_lock(&lock);
	while (!count && !closed)
		pthread_cond_wait(&not_empty, &lock);
	if (count) {
		*item = queue[head];
		head = (head + 1) % QUEUE;
		count--;
		got = 1;
		pthread_cond_signal(&not_full);
	}
	pthread_mutex_unlock(&lock);
	return got;
}

static void *consumer(void *arg)
{
	uint64_t item, sum = 0, result;

	while (get(&item)) {
		result = work(item);
		sum += result;
		pthread_mutex_lock(&lock);
		total += result;
		pthread_mutex_unlock(&lock);
	}
	*(uint64_t *)arg = sum;
	return arg;
}

static void *short_lived(void *arg)
{
	*(uint64_t *)arg = work(*(uint64_t *)arg);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[NTHREADS], t;
	uint64_t sums[NTHREADS] = { 0 }, all = 0, chain = 1;
	unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;

	for (int i = 0; i < NTHREADS; i++)
		if (pthread_create(&threads[i], NULL, consumer, &sums[i]))
			return 1;
	for (unsigned i = 0; i < n; i++) {
		put(i);
		if (i % 20)
			continue;
		/* Thread creation never stops, so that a checkpoint meets threads that begin and
		 * that end. */
		if (pthread_create(&t, NULL, short_lived, &chain) || pthread_join(t, NULL))
			return 1;
		if (i % 1000 == 0) {
			printf("%u %016llx\n", i, (unsigned long long)chain);
			fflush(stdout);
		}
	}
	pthread_mutex_lock(&lock);
	closed = 1;
	pthread_cond_broadcast(&not_empty);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < NTHREADS; i++) {
		pthread_join(threads[i], NULL);
		all += sums[i];
	}
	printf("total %016llx %s\n", (unsigned long long)total,
	       all == total ? "agrees" : "DIFFERS");
	return all != total;
}
