/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: System V shared memory (attached twice, protected in part, removed, not attached),
 * semaphores and message queues with content, and a thread blocked on each. */
#include "victim.h"

#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define NPAGES 40u

enum { ATTACHED, REMOVED, LOOSE, NSHM };

struct message {
	long type;
	char text[64];
};

static int shm[NSHM], sem, full, empty;
static char *rw, *ro, *removed;
static key_t key;
static pid_t tids[2];
static unsigned sem_got, msg_got;
static bool ending; /* the waiters are told by the objects' removal */

static void set_up(void)
{
	unsigned short values[5] = { 1, 2, 30000, 0, 7 };

	key = (key_t)(mix((uint64_t)getpid() + now_ns(CLOCK_MONOTONIC)) & 0x7fffffff) | 1;
	shm[ATTACHED] = shmget(key, NPAGES * PAGE - 100, IPC_CREAT | IPC_EXCL | 0640);
	shm[REMOVED] = shmget(IPC_PRIVATE, PAGE, 0600);
	shm[LOOSE] = shmget(IPC_PRIVATE, 300000, 0600);
	check_sys(shm[ATTACHED] >= 0 && shm[REMOVED] >= 0 && shm[LOOSE] >= 0);
	rw = shmat(shm[ATTACHED], NULL, 0);
	ro = shmat(shm[ATTACHED], NULL, SHM_RDONLY);
	removed = shmat(shm[REMOVED], NULL, 0);
	check_sys(rw != (void *)-1 && ro != (void *)-1 && removed != (void *)-1);
	check_sys(shmctl(shm[REMOVED], IPC_RMID, NULL) == 0);
	check_sys(mprotect(rw + 10 * PAGE, PAGE, PROT_READ) == 0);
	sem = semget(key, 5, IPC_CREAT | IPC_EXCL | 0600);
	check_sys(sem >= 0 && semctl(sem, 0, SETALL, values) == 0);
	full = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	empty = msgget(IPC_PRIVATE, 0600);
	check_sys(full >= 0 && empty >= 0);
	victim_say("ipc -m %d -m %d -s %d -q %d -q %d", shm[ATTACHED], shm[LOOSE], sem, full,
		   empty);
}

static void put_message(int queue, long type, const char *fmt, unsigned n)
{
	struct message m = { .type = type };

	(void)snprintf(m.text, sizeof m.text, fmt, n);
	check_sys(msgsnd(queue, &m, strlen(m.text) + 1, 0) == 0);
}

static void get_message(int queue, long type, const char *fmt, unsigned n)
{
	struct message m;
	char want[64];

	(void)snprintf(want, sizeof want, fmt, n);
	check(msgrcv(queue, &m, sizeof m.text, type, IPC_NOWAIT) == (ssize_t)strlen(want) + 1,
	      "message '%s': %s", want, strerror(errno));
	check(!strcmp(m.text, want), "message '%s', should be '%s'", m.text, want);
}

static void write_loose(unsigned round)
{
	char *at = shmat(shm[LOOSE], NULL, 0);

	check_sys(at != (void *)-1);
	page_fill(at + 70 * PAGE, round);
	memset(at + 299990, (int)round, 10);
	check_sys(shmdt(at) == 0);
}

static void fill(unsigned round)
{
	struct sembuf op = { .sem_num = 1, .sem_op = 1 };

	page_fill(rw, round);
	page_fill(rw + 20 * PAGE, round + 1000);
	page_fill(removed, round + 2000);
	write_loose(round);
	put_message(full, 5, "five %u", round);
	put_message(full, 3, "three %u", round);
	check_sys(round == 0 || semop(sem, &op, 1) == 0);
}

static void check_shm(unsigned round)
{
	struct shmid_ds ds;
	char *at;

	check(page_is(rw, round) && page_is(ro, round), "attached");
	check(page_is(ro + 20 * PAGE, round + 1000) && page_is_zero(ro + 30 * PAGE), "attached");
	check(page_is(removed, round + 2000), "removed");
	at = shmat(shm[LOOSE], NULL, SHM_RDONLY);
	check_sys(at != (void *)-1);
	check(page_is(at + 70 * PAGE, round) && page_is_zero(at), "the one not attached");
	check(at[299995] == (char)round, "its end");
	check_sys(shmdt(at) == 0);
	check_sys(shmctl(shm[ATTACHED], IPC_STAT, &ds) == 0);
	/* the protected page makes it three mappings, the read-only one is the fourth */
	check(ds.shm_nattch == 4 && ds.shm_segsz == NPAGES * PAGE - 100, "%lu attached",
	      (unsigned long)ds.shm_nattch);
	check((ds.shm_perm.mode & 0777) == 0640 && ds.shm_perm.__key == key, "mode %o",
	      ds.shm_perm.mode);
	check(shmget(key, 0, 0) == shm[ATTACHED], "by key");
	check_sys(shmctl(shm[REMOVED], IPC_STAT, &ds) == 0);
	check((ds.shm_perm.mode & SHM_DEST) && ds.shm_nattch == 1, "the removed one");
	/* it is a real attachment */
	check_sys(shmdt(ro) == 0);
	check_sys(shmat(shm[ATTACHED], ro, SHM_RDONLY) == ro);
}

static void check_sem(unsigned round)
{
	unsigned short now[5];

	check_sys(semctl(sem, 0, GETALL, now) == 0);
	check(now[0] == 1 && now[1] == 2 + round && now[2] == 30000 && now[3] == 0 && now[4] == 7,
	      "semaphores %u %u %u %u %u", now[0], now[1], now[2], now[3], now[4]);
	check(semget(key, 0, 0) == sem, "by key");
}

static void *wait_sem(void *arg)
{
	struct sembuf op = { .sem_num = 3, .sem_op = -1 };

	(void)arg;
	__atomic_store_n(&tids[0], gettid_raw(), __ATOMIC_RELEASE);
	for (;;) {
		int rc = semop(sem, &op, 1);

		if (rc < 0 && __atomic_load_n(&ending, __ATOMIC_ACQUIRE))
			return NULL;
		check_sys(rc == 0);
		__atomic_add_fetch(&sem_got, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *wait_msg(void *arg)
{
	struct message m;

	(void)arg;
	__atomic_store_n(&tids[1], gettid_raw(), __ATOMIC_RELEASE);
	for (;;) {
		ssize_t n = msgrcv(empty, &m, sizeof m.text, -9, 0);

		if (n < 0 && __atomic_load_n(&ending, __ATOMIC_ACQUIRE))
			return NULL;
		check_sys(n > 0);
		check(m.type == 4, "type %ld", m.type);
		__atomic_add_fetch(&msg_got, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void check_waiters(unsigned round)
{
	struct sembuf op = { .sem_num = 3, .sem_op = 1 };

	thread_wait_blocked(tids[0], SYS_semtimedop);
	thread_wait_blocked(tids[1], SYS_msgrcv);
	check_sys(semop(sem, &op, 1) == 0);
	put_message(empty, 4, "x", 0);
	for (int i = 0; i < 60000 && (__atomic_load_n(&sem_got, __ATOMIC_ACQUIRE) != round ||
				     __atomic_load_n(&msg_got, __ATOMIC_ACQUIRE) != round);
	     i++)
		sleep_ms(1);
	check(sem_got == round && msg_got == round, "the waiters got %u and %u", sem_got, msg_got);
}

int main(int argc, char **argv)
{
	unsigned round = 0;

	victim_init(argc, argv);
	set_up();
	fill(0);
	(void)thread_start(wait_sem, NULL);
	(void)thread_start(wait_msg, NULL);
	for (int i = 0; i < 2; i++)
		while (!__atomic_load_n(&tids[i], __ATOMIC_ACQUIRE))
			sleep_ms(1);
	thread_wait_blocked(tids[0], SYS_semtimedop);
	thread_wait_blocked(tids[1], SYS_msgrcv);
	victim_ready();
	while (victim_wait()) {
		check_shm(round);
		check_sem(round);
		get_message(full, 3, "three %u", round);
		get_message(full, 0, "five %u", round);
		check(msgget(key, 0) == full, "by key");
		fill(++round);
		check_waiters(round);
		victim_ok();
	}
	__atomic_store_n(&ending, true, __ATOMIC_RELEASE);
	check_sys(shmctl(shm[ATTACHED], IPC_RMID, NULL) == 0);
	check_sys(shmctl(shm[LOOSE], IPC_RMID, NULL) == 0);
	check_sys(semctl(sem, 0, IPC_RMID) == 0);
	check_sys(msgctl(full, IPC_RMID, NULL) == 0 && msgctl(empty, IPC_RMID, NULL) == 0);
	return 0;
}
