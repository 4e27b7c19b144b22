/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: two processes, each of which sees the locks of the other: a POSIX and an OFD record lock,
 * a flock, a lease where there are leases, and robust mutexes in shared memory, one held by the
 * first thread, one by another, one by the second process. Told to end, the first process lets go
 * of each, and the second takes it at once.
 */
#include "victim.h"

#include <semaphore.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { FIRST, THREADS, SECOND, N_MUTEXES };

static struct common {
	pthread_mutex_t mutex[N_MUTEXES];
	int lease_fd; /* the first process's; -1: there are no leases here */
} * common;

static int posix_fd, ofd_fd, flock_fd, ask[2], answer[2];
static sem_t thread_holds, thread_may_end;
static pid_t second;

static int must_open(const char *suffix)
{
	int fd = open(victim_path(suffix), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	check_sys(fd >= 0);
	return fd;
}

static struct flock range(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = 100, .l_len = 100 };
}

static void set_lock(int fd, int cmd, short type)
{
	struct flock l = range(type);

	check_sys(fcntl(fd, cmd, &l) == 0);
}

/* --- what one process sees of the other
 * -----------------------------------------------------------
 */

static void see_record(const char *suffix, short type)
{
	struct flock l = range(F_RDLCK);
	int fd = must_open(suffix);

	check_sys(fcntl(fd, F_GETLK, &l) == 0);
	check(l.l_type == type, "%s: type %d is in the way, not %d", suffix, l.l_type, type);
	check(type == F_UNLCK || (l.l_start == 100 && l.l_len == 100),
	      "%s: %lld bytes from %lld are locked", suffix, (long long)l.l_len,
	      (long long)l.l_start);
	check_sys(close(fd) == 0);
}

static void see_flock(bool held)
{
	int fd = must_open("flock");
	int rc = flock(fd, LOCK_SH | LOCK_NB);

	check(held ? rc < 0 && errno == EWOULDBLOCK : rc == 0, "flock says %d (%s)", rc,
	      strerror(errno));
	check_sys(close(fd) == 0);
}

/* Held: as the first process's descriptor tells, since an attempt to open would break it. */
static void see_lease(bool held)
{
	char path[64], text[1024];
	int fd;

	if (common->lease_fd < 0)
		return;
	if (held) {
		(void)snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)getppid(),
			       common->lease_fd);
		check_sys(read_small(path, text, sizeof text) > 0);
		check(strstr(text, "LEASE  ACTIVE    WRITE"), "the lease: %s", text);
		return;
	}
	fd = open(victim_path("lease"), O_WRONLY | O_NONBLOCK);
	check(fd >= 0, "a lease that was given back: %s", strerror(errno));
	check_sys(close(fd) == 0);
}

static void see_mutex(int which, bool held)
{
	int rc = pthread_mutex_trylock(&common->mutex[which]);

	check(rc == (held ? EBUSY : 0), "mutex %d: %s", which, strerror(rc));
	check(held || pthread_mutex_unlock(&common->mutex[which]) == 0, "cannot unlock %d", which);
}

/* Asked 'h' it must find all held, 'f' free. */
static void second_process(void)
{
	char what;

	check_sys(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	check_sys(close(ask[1]) == 0 && close(answer[0]) == 0);
	check_sys(pthread_mutex_lock(&common->mutex[SECOND]) == 0);
	check_sys(write(answer[1], "r", 1) == 1);
	while (read(ask[0], &what, 1) == 1) {
		bool held = what == 'h';

		see_record("posix", held ? F_WRLCK : F_UNLCK);
		see_record("ofd", held ? F_WRLCK : F_UNLCK);
		see_flock(held);
		see_lease(held);
		see_mutex(FIRST, held);
		see_mutex(THREADS, held);
		if (!held)
			check_sys(pthread_mutex_unlock(&common->mutex[SECOND]) == 0);
		check_sys(write(answer[1], "r", 1) == 1);
	}
	_exit(0);
}

static void wait_answer(void)
{
	char c;

	check(read(answer[0], &c, 1) == 1, "the second process has ended");
}

static void ask_second(char what)
{
	check_sys(write(ask[1], &what, 1) == 1);
	wait_answer();
}

/* --- the first process
 * ----------------------------------------------------------------------------
 */

static void *thread(void *arg)
{
	check_sys(pthread_mutex_lock(&common->mutex[THREADS]) == 0);
	check_sys(sem_post(&thread_holds) == 0);
	while (sem_wait(&thread_may_end) < 0)
		check_sys(errno == EINTR);
	check_sys(pthread_mutex_unlock(&common->mutex[THREADS]) == 0);
	return arg;
}

static void make_common(void)
{
	pthread_mutexattr_t attr;

	common = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(common != MAP_FAILED);
	check_sys(pthread_mutexattr_init(&attr) == 0);
	check_sys(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0);
	check_sys(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
	for (int i = 0; i < N_MUTEXES; i++)
		check_sys(pthread_mutex_init(&common->mutex[i], &attr) == 0);
	check_sys(pipe(ask) == 0 && pipe(answer) == 0);
	check_sys(sem_init(&thread_holds, 0, 0) == 0 && sem_init(&thread_may_end, 0, 0) == 0);
}

static pthread_t hold(void)
{
	pthread_t t = thread_start(thread, NULL);

	while (sem_wait(&thread_holds) < 0)
		check_sys(errno == EINTR);
	check_sys(pthread_mutex_lock(&common->mutex[FIRST]) == 0);
	posix_fd = must_open("posix");
	ofd_fd = must_open("ofd");
	flock_fd = must_open("flock");
	set_lock(posix_fd, F_SETLK, F_WRLCK);
	set_lock(ofd_fd, F_OFD_SETLK, F_WRLCK);
	check_sys(flock(flock_fd, LOCK_EX) == 0);
	common->lease_fd = must_open("lease");
	if (fcntl(common->lease_fd, F_SETLEASE, F_WRLCK) < 0)
		common->lease_fd = -1;
	return t;
}

static void let_go(pthread_t t)
{
	check_sys(sem_post(&thread_may_end) == 0);
	check_sys(pthread_join(t, NULL) == 0);
	check_sys(pthread_mutex_unlock(&common->mutex[FIRST]) == 0);
	set_lock(posix_fd, F_SETLK, F_UNLCK);
	/* closed: the locks go with their descriptions only if nobody else has these */
	check_sys(close(flock_fd) == 0 && close(ofd_fd) == 0);
	check_sys(common->lease_fd < 0 || close(common->lease_fd) == 0);
}

static void end_second(void)
{
	int status;

	see_mutex(SECOND, false);
	check_sys(close(ask[1]) == 0);
	check_sys(waitpid(second, &status, 0) == second);
	check(status == 0, "the second process ended with %x", status);
}

int main(int argc, char **argv)
{
	pthread_t t;

	victim_init(argc, argv);
	make_common();
	second = fork();
	check_sys(second >= 0);
	if (second == 0)
		second_process();
	check_sys(close(ask[0]) == 0 && close(answer[1]) == 0);
	wait_answer();
	t = hold();
	victim_ready();
	while (victim_wait()) {
		ask_second('h');
		see_mutex(SECOND, true);
		check(common->lease_fd < 0 || fcntl(common->lease_fd, F_GETLEASE) == F_WRLCK,
		      "it has no lease any more");
		if (!strcmp(victim_token(), "quit")) {
			let_go(t);
			ask_second('f');
			end_second();
		}
		victim_ok();
	}
	return 0;
}
