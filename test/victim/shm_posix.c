/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: POSIX shared memory, mapped only and open, with process-shared and robust mutexes, a
 * condition variable and a barrier in it, a named semaphore, and a waiter blocked on each. */
#include "victim.h"

#include <semaphore.h>
#include <sys/stat.h>

struct shared {
	pthread_mutex_t mutex, robust;
	pthread_cond_t cond;
	unsigned turn, turns_seen, mutex_got, sem_got, rounds;
	char page[PAGE];
};

static struct shared *shared;
static sem_t *sem;
static char names[3][64];
static int open_fd;
static pid_t tids[3];

static const char *name_of(int i, const char *prefix)
{
	char *slash;
	char dir[256];

	/* the test's directory makes it unique */
	(void)snprintf(dir, sizeof dir, "%s", victim_path("x"));
	slash = strrchr(dir, '/');
	*slash = '\0';
	slash = strrchr(dir, '/');
	(void)snprintf(names[i], sizeof names[i], "/%s-%s%d", slash + 1, prefix, i);
	return names[i];
}

static void set_up(void)
{
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;
	int fd = shm_open(name_of(0, "mapped"), O_RDWR | O_CREAT | O_EXCL, 0600);

	check_sys(fd >= 0 && ftruncate(fd, sizeof *shared) == 0);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check_sys(shared != MAP_FAILED && close(fd) == 0);
	open_fd = shm_open(name_of(1, "open"), O_RDWR | O_CREAT | O_EXCL, 0640);
	check_sys(open_fd >= 0 && ftruncate(open_fd, 3 * PAGE + 5) == 0);
	check_sys(pwrite(open_fd, "round 0", 8, PAGE) == 8);
	sem = sem_open(name_of(2, "sem"), O_CREAT | O_EXCL, 0600, 0);
	check_sys(sem != SEM_FAILED);
	check(pthread_mutexattr_init(&ma) == 0 && pthread_condattr_init(&ca) == 0, "attributes");
	check(pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED) == 0, "pshared");
	check(pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED) == 0, "pshared");
	check(pthread_mutex_init(&shared->mutex, &ma) == 0, "mutex");
	check(pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST) == 0, "robust");
	check(pthread_mutex_init(&shared->robust, &ma) == 0, "mutex");
	check(pthread_cond_init(&shared->cond, &ca) == 0, "cond");
	page_fill(shared->page, 0);
}

static void started(int i)
{
	__atomic_store_n(&tids[i], gettid_raw(), __ATOMIC_RELEASE);
}

static void *wait_cond(void *arg)
{
	started(0);
	(void)arg;
	for (;;) {
		check(pthread_mutex_lock(&shared->robust) == 0, "robust");
		while (shared->turn == shared->turns_seen)
			check(pthread_cond_wait(&shared->cond, &shared->robust) == 0, "cond");
		shared->turns_seen++;
		check(pthread_mutex_unlock(&shared->robust) == 0, "robust");
	}
	return NULL;
}

static void *wait_sem(void *arg)
{
	started(1);
	(void)arg;
	for (;;) {
		check(sem_wait(sem) == 0, "sem_wait: %s", strerror(errno));
		__atomic_add_fetch(&shared->sem_got, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *wait_mutex(void *arg)
{
	started(2);
	(void)arg;
	for (;;) {
		check(pthread_mutex_lock(&shared->mutex) == 0, "mutex");
		shared->mutex_got++;
		check(pthread_mutex_unlock(&shared->mutex) == 0, "mutex");
		/* until the main thread has it again */
		while (__atomic_load_n(&shared->rounds, __ATOMIC_ACQUIRE) != shared->mutex_got)
			sleep_ms(1);
	}
	return NULL;
}

static void wait_for(unsigned *value, unsigned want, const char *what)
{
	for (int i = 0; i < 60000 && __atomic_load_n(value, __ATOMIC_ACQUIRE) != want; i++)
		sleep_ms(1);
	check(__atomic_load_n(value, __ATOMIC_ACQUIRE) == want, "%s: %u, should be %u", what,
	      *value, want);
}

/* A copy of us that runs at the same time has taken the names. */
static bool copied(void)
{
	return access(victim_path("copied"), F_OK) == 0;
}

static void check_round(unsigned round)
{
	char text[32], want[32];
	struct stat st;

	check(shared->rounds == round, "round %u in shared memory, own memory says %u",
	      shared->rounds, round);
	check(page_is(shared->page, round), "the shared page is not that of round %u", round);
	(void)snprintf(want, sizeof want, "round %u", round);
	check_sys(pread(open_fd, text, sizeof text, PAGE) == sizeof text);
	check(!strcmp(text, want), "the open one holds '%s', should be '%s'", text, want);
	check_sys(fstat(open_fd, &st) == 0);
	check(st.st_size == 3 * PAGE + 5 && (st.st_mode & 0777) == 0640 &&
		      (st.st_nlink == 1 || copied()),
	      "size %ld mode %o links %lu", (long)st.st_size, st.st_mode, (long)st.st_nlink);
	for (int i = 0; i < 3; i++)
		thread_wait_blocked(tids[i], SYS_futex);
}

static void go_on(unsigned round)
{
	char text[32];
	int fd;

	check(pthread_mutex_lock(&shared->robust) == 0, "robust");
	shared->turn++;
	check(pthread_cond_signal(&shared->cond) == 0, "cond");
	check(pthread_mutex_unlock(&shared->robust) == 0, "robust");
	wait_for(&shared->turns_seen, round, "turns");
	check_sys(sem_post(sem) == 0);
	wait_for(&shared->sem_got, round, "semaphore");
	check(pthread_mutex_unlock(&shared->mutex) == 0, "mutex");
	wait_for(&shared->mutex_got, round, "mutex");
	check(pthread_mutex_lock(&shared->mutex) == 0, "mutex");
	page_fill(shared->page, round);
	(void)snprintf(text, sizeof text, "round %u", round);
	check_sys(pwrite(open_fd, text, sizeof text, PAGE) == sizeof text);
	__atomic_store_n(&shared->rounds, round, __ATOMIC_RELEASE);
	/* whoever opens it by name gets the same memory */
	if (copied())
		return;
	fd = shm_open(names[0], O_RDWR, 0);
	check_sys(fd >= 0);
	check_sys(pread(fd, text, 4, offsetof(struct shared, rounds)) == 4);
	check(!memcmp(text, &round, 4), "by name it is another");
	check_sys(close(fd) == 0);
}

int main(int argc, char **argv)
{
	unsigned round = 0;

	victim_init(argc, argv);
	set_up();
	check(pthread_mutex_lock(&shared->mutex) == 0, "mutex");
	(void)thread_start(wait_cond, NULL);
	(void)thread_start(wait_sem, NULL);
	(void)thread_start(wait_mutex, NULL);
	for (int i = 0; i < 3; i++) {
		while (!__atomic_load_n(&tids[i], __ATOMIC_ACQUIRE))
			sleep_ms(1);
		thread_wait_blocked(tids[i], SYS_futex);
	}
	victim_ready();
	while (victim_wait()) {
		check_round(round);
		go_on(++round);
		victim_ok();
	}
	for (int i = 0; i < 2; i++)
		check_sys(shm_unlink(names[i]) == 0);
	check_sys(sem_unlink(names[2]) == 0);
	return 0;
}
