/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: threads that are born and die all the time, so that a checkpoint finds some of them
 * between the two. */
#include "victim.h"

#define CREATORS 3u

static volatile uint64_t rounds[CREATORS];
static _Thread_local uint64_t local = 7;

/* Each has fresh thread-local storage, and ends at once. */
static void *mayfly(void *arg)
{
	uint64_t *x = arg;

	check(local == 7, "thread-local storage holds %llu", (unsigned long long)local);
	local = *x;
	*x = mix(local);
	return arg;
}

static void *creator(void *arg)
{
	volatile uint64_t *count = arg;

	for (;;) {
		uint64_t x[2] = { *count, ~*count };
		pthread_t t[2];

		for (unsigned i = 0; i < COUNT_OF(t); i++)
			check(pthread_create(&t[i], NULL, mayfly, &x[i]) == 0, "pthread_create");
		for (unsigned i = 0; i < COUNT_OF(t); i++)
			check(pthread_join(t[i], NULL) == 0, "pthread_join");
		check(x[0] == mix(*count) && x[1] == mix(~*count), "what two threads computed");
		++*count;
	}
	return arg;
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	for (unsigned i = 0; i < CREATORS; i++)
		(void)thread_start(creator, (void *)&rounds[i]);
	victim_ready();
	while (victim_wait()) {
		for (unsigned i = 0; i < CREATORS; i++) {
			uint64_t had = rounds[i], end = now_ns(CLOCK_MONOTONIC) + 60000000000ull;

			while (rounds[i] == had) {
				check(now_ns(CLOCK_MONOTONIC) < end, "creator %u stands still", i);
				sleep_ms(1);
			}
		}
		victim_ok();
	}
	return 0;
}
