/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: what semop(2) is to undo when a process ends (SEM_UNDO): of a process with threads and of
 * one without, of both signs and up to the limits; one that releases what it held after a restart
 * must leave nothing to be undone.
 */
#include "victim.h"

#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/wait.h>

enum { MUTEX, DOWN, HIGH, LOW, OTHER, NSEMS };
enum { WAIT, END, RELEASE };
#define TOP 32767

static struct shared {
	int order[2]; /* for each worker */
	bool there[2];
} * shared;
static int sem[2]; /* of each worker */
static pid_t worker[2];

static void op(int id, int num, int by, int flags)
{
	struct sembuf o = { .sem_num = (unsigned short)num,
			    .sem_op = (short)by,
			    .sem_flg = (short)flags };

	check(semop(id, &o, 1) == 0, "semaphore %d by %d: %s", num, by, strerror(errno));
}

static int value(int id, int num)
{
	return semctl(id, num, GETVAL);
}

static void *acquire(void *arg)
{
	int id = *(int *)arg;

	op(id, MUTEX, -1, SEM_UNDO);
	op(id, DOWN, 7, SEM_UNDO);
	op(id, HIGH, -TOP, SEM_UNDO);
	op(id, LOW, 20000, SEM_UNDO);
	op(id, OTHER, 3, 0);
	return NULL;
}

static _Noreturn void work(int i)
{
	int order;

	if (i) {
		pthread_t t = thread_start(acquire, &sem[i]);

		check(pthread_join(t, NULL) == 0, "join");
	} else {
		(void)acquire(&sem[i]);
	}
	__atomic_store_n(&shared->there[i], true, __ATOMIC_RELEASE);
	while ((order = __atomic_load_n(&shared->order[i], __ATOMIC_ACQUIRE)) == WAIT)
		sleep_ms(1);
	if (order == RELEASE)
		op(sem[i], MUTEX, 1, SEM_UNDO);
	_exit(0);
}

static void start(int i)
{
	unsigned short values[NSEMS] = { 1, 5, TOP, 0, 9 };

	check_sys(semctl(sem[i], 0, SETALL, values) == 0);
	shared->order[i] = WAIT;
	shared->there[i] = false;
	worker[i] = fork();
	check_sys(worker[i] >= 0);
	if (!worker[i])
		work(i);
	while (!__atomic_load_n(&shared->there[i], __ATOMIC_ACQUIRE))
		sleep_ms(1);
	op(sem[i], DOWN, -4, 0);
	op(sem[i], HIGH, 1000, 0);
	op(sem[i], LOW, -19000, 0);
}

static void expect(int i, const char *when, int mutex, int down, int high, int low)
{
	int id = sem[i];

	check(value(id, MUTEX) == mutex && value(id, DOWN) == down && value(id, HIGH) == high &&
		      value(id, LOW) == low && value(id, OTHER) == 12,
	      "%s, worker %d: %d %d %d %d %d", when, i, value(id, MUTEX), value(id, DOWN),
	      value(id, HIGH), value(id, LOW), value(id, OTHER));
}

static void round_of(int i, bool release)
{
	int status;

	expect(i, "before the end", 0, 8, 1000, 1000);
	__atomic_store_n(&shared->order[i], release ? RELEASE : END, __ATOMIC_RELEASE);
	check_sys(waitpid(worker[i], &status, 0) == worker[i]);
	check(status == 0, "status %x", status);
	expect(i, release ? "released" : "ended", 1, 1, TOP, 0);
	start(i);
}

int main(int argc, char **argv)
{
	unsigned round = 0;

	victim_init(argc, argv);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	check_sys(shared != MAP_FAILED);
	for (int i = 0; i < 2; i++) {
		sem[i] = semget(IPC_PRIVATE, NSEMS, 0600);
		check_sys(sem[i] >= 0);
		start(i);
	}
	victim_say("ipc -s %d -s %d", sem[0], sem[1]);
	victim_ready();
	while (victim_wait()) {
		round++;
		for (int i = 0; i < 2; i++)
			round_of(i, (round + (unsigned)i) % 2);
		victim_ok();
	}
	for (int i = 0; i < 2; i++) {
		check_sys(kill(worker[i], SIGKILL) == 0);
		check_sys(waitpid(worker[i], NULL, 0) == worker[i]);
		expect(i, "killed", 1, 1, TOP, 0);
		check_sys(semctl(sem[i], 0, IPC_RMID) == 0);
	}
	return 0;
}
