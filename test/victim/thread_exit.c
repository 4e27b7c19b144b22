/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: robust mutexes, pthread_join and clear_child_tid go on working after a restart. */
#include "victim.h"

/* A robust mutex whose owner ends is handed on with EOWNERDEAD: the kernel walks the restored list.
 */
static pthread_mutex_t robust, mine;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int phase; /* 0: wait, 1: end now, 2: has the mutex */

static void *owner(void *arg)
{
	check_sys(pthread_mutex_lock(&robust) == 0);
	(void)pthread_mutex_lock(&lock);
	phase = 2;
	(void)pthread_cond_broadcast(&cond);
	while (phase != 1)
		(void)pthread_cond_wait(&cond, &lock);
	(void)pthread_mutex_unlock(&lock);
	return arg;
}

static pthread_t start_owner(void)
{
	pthread_t t;

	phase = 0;
	t = thread_start(owner, &phase);
	(void)pthread_mutex_lock(&lock);
	while (phase != 2)
		(void)pthread_cond_wait(&cond, &lock);
	(void)pthread_mutex_unlock(&lock);
	return t;
}

int main(int argc, char **argv)
{
	pthread_mutexattr_t attr;
	pthread_t t;
	void *ret;

	victim_init(argc, argv);
	(void)pthread_mutexattr_init(&attr);
	(void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	(void)pthread_mutex_init(&robust, &attr);
	(void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	(void)pthread_mutex_init(&mine, &attr);
	(void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_DEFAULT);
	check_sys(pthread_mutex_lock(&mine) == 0);
	t = start_owner();
	victim_ready();
	while (victim_wait()) {
		check(pthread_mutex_trylock(&robust) == EBUSY, "the mutex is not held");
		(void)pthread_mutex_lock(&lock);
		phase = 1;
		(void)pthread_cond_broadcast(&cond);
		(void)pthread_mutex_unlock(&lock);
		/* pthread_join waits for the kernel to clear and wake *clear_child_tid. */
		check_sys(pthread_join(t, &ret) == 0 && ret == &phase);
		int rc = pthread_mutex_lock(&robust);
		check(rc == EOWNERDEAD, "the dead owner's mutex: %s", strerror(rc));
		check_sys(pthread_mutex_consistent(&robust) == 0);
		check_sys(pthread_mutex_unlock(&robust) == 0);
		/* One's own can be given back, though the id in it is new. */
		check_sys(pthread_mutex_unlock(&mine) == 0);
		check_sys(pthread_mutex_lock(&mine) == 0);
		t = start_owner();
		victim_ok();
	}
	return 0;
}
