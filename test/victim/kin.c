/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim of two processes and what they have between them: a pseudo-terminal on which the child
 * leads its session, System V and anonymous shared memory with a process-shared mutex, a POSIX
 * message queue, record locks and flocks that the child waits for, a pidfd of the child in an
 * epoll, files of /proc about each other, a lease.
 */
#include "victim.h"

#include <mqueue.h>
#include <poll.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <termios.h>

enum { W_TTY, W_MUTEX, W_SEM, W_MQ, W_POSIX, W_FLOCK, N_WAITERS };

struct shared {
	pthread_mutex_t mutex;
	pid_t tid[N_WAITERS];
	unsigned got[N_WAITERS];
	unsigned round;
};

static struct shared *shared;
static unsigned *segment;
static int master, shm, sem, epoll, child_pidfd, dead_pidfd, status_fd, posix_fd, flock_fd,
	child_flock, lease_fd, gone_fd;
static char above[4200]; /* the deleted directory */
static mqd_t queue;
static char queue_name[64];
static pid_t child;

static long call_of(int i)
{
	static const long calls[] = { SYS_read,  SYS_futex, SYS_semtimedop, SYS_mq_timedreceive,
				      SYS_fcntl, SYS_flock };

	return calls[i];
}

static void got(int i)
{
	__atomic_add_fetch(&shared->got[i], 1, __ATOMIC_RELEASE);
	/* whoever waits for a lock waits until the parent has it again */
	while (i != W_TTY && i != W_SEM && i != W_MQ &&
	       __atomic_load_n(&shared->round, __ATOMIC_ACQUIRE) != shared->got[i])
		sleep_ms(1);
}

static void wait_once(int i)
{
	struct flock whole = { .l_type = F_WRLCK };
	struct sembuf op = { .sem_op = -1 };
	char text[128];

	switch (i) {
	case W_TTY:
		check(read(0, text, sizeof text) == 3 && !memcmp(text, "hi\n", 3), "a line");
		check_sys(write(1, "ho\n", 3) == 3);
		got(i);
		break;
	case W_MUTEX:
		check(pthread_mutex_lock(&shared->mutex) == 0, "mutex");
		check(pthread_mutex_unlock(&shared->mutex) == 0, "mutex");
		got(i);
		break;
	case W_SEM:
		check_sys(semop(sem, &op, 1) == 0);
		++*segment;
		got(i);
		break;
	case W_MQ:
		check(mq_receive(queue, text, sizeof text, NULL) == 5, "message");
		got(i);
		break;
	case W_POSIX:
		check_sys(fcntl(posix_fd, F_SETLKW, &whole) == 0);
		whole.l_type = F_UNLCK;
		check_sys(fcntl(posix_fd, F_SETLK, &whole) == 0);
		got(i);
		break;
	case W_FLOCK:
		check_sys(flock(child_flock, LOCK_EX) == 0 && flock(child_flock, LOCK_UN) == 0);
		got(i);
		break;
	}
}

static void *waiter(void *arg)
{
	int i = (int)(intptr_t)arg;

	__atomic_store_n(&shared->tid[i], gettid_raw(), __ATOMIC_RELEASE);
	for (;;)
		wait_once(i);
	return NULL;
}

static _Noreturn void be_child(int slave)
{
	int tty;

	check_sys(setsid() == getpid() && ioctl(slave, TIOCSCTTY, 0) == 0);
	check_sys(dup2(slave, 0) == 0 && dup2(slave, 1) == 1);
	if (slave > 1)
		(void)close(slave);
	(void)close(master);
	child_flock = open(victim_path("flock"), O_RDWR | O_CLOEXEC);
	check_sys(child_flock >= 0);
	for (intptr_t i = 1; i < N_WAITERS; i++)
		(void)thread_start(waiter, (void *)i);
	for (;;) {
		tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
		check_sys(tty >= 0);
		check(tcgetpgrp(tty) == getpgrp() && tcgetsid(tty) == getpid(), "session");
		(void)close(tty);
		__atomic_store_n(&shared->tid[W_TTY], gettid_raw(), __ATOMIC_RELEASE);
		wait_once(W_TTY);
	}
}

/* The child's threads as /proc shows them here. */
static void wait_all_blocked(void)
{
	char path[64], buf[256];

	for (int i = 0; i < N_WAITERS; i++)
		for (int k = 0; k < 5000; k++) {
			pid_t tid = __atomic_load_n(&shared->tid[i], __ATOMIC_ACQUIRE);
			FILE *f;
			long nr = -1;

			(void)snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", child, tid);
			f = tid ? fopen(path, "re") : NULL;
			if (f && fgets(buf, sizeof buf, f) && buf[0] >= '0' && buf[0] <= '9')
				nr = strtol(buf, NULL, 10);
			if (f)
				(void)fclose(f);
			if (nr == call_of(i))
				break;
			check(k < 30000, "waiter %d (%d) is not blocked but in %ld", i, tid, nr);
			sleep_ms(2);
		}
}

static void take_locks(void)
{
	struct flock whole = { .l_type = F_WRLCK };

	check(pthread_mutex_lock(&shared->mutex) == 0, "mutex");
	check_sys(fcntl(posix_fd, F_SETLKW, &whole) == 0);
	check_sys(flock(flock_fd, LOCK_EX) == 0);
}

static void make_pidfds(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 4711 };
	char path[64];
	pid_t gone = fork();

	if (gone == 0)
		_exit(3);
	dead_pidfd = (int)syscall(SYS_pidfd_open, gone, 0);
	check_sys(dead_pidfd >= 0 && waitpid(gone, NULL, 0) == gone);
	child_pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	check_sys(child_pidfd >= 0 && epoll >= 0);
	check_sys(epoll_ctl(epoll, EPOLL_CTL_ADD, child_pidfd, &ev) == 0);
	(void)snprintf(path, sizeof path, "/proc/%d/status", child);
	status_fd = open(path, O_RDONLY | O_CLOEXEC);
	check_sys(status_fd >= 0);
}

static void set_up(void)
{
	struct mq_attr attr = { .mq_maxmsg = 3, .mq_msgsize = 100 };
	pthread_mutexattr_t ma;
	int slave;

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	check_sys(shared != MAP_FAILED);
	check(pthread_mutexattr_init(&ma) == 0 &&
		      pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED) == 0 &&
		      pthread_mutex_init(&shared->mutex, &ma) == 0,
	      "mutex");
	shm = shmget(IPC_PRIVATE, PAGE, 0600);
	sem = semget(IPC_PRIVATE, 1, 0600);
	check_sys(shm >= 0 && sem >= 0);
	victim_say("ipc -m %d -s %d", shm, sem);
	segment = shmat(shm, NULL, 0);
	check_sys(segment != (void *)-1);
	(void)snprintf(queue_name, sizeof queue_name, "/ckpt-%d-%llx", (int)getpid(),
		       (unsigned long long)now_ns(CLOCK_REALTIME));
	queue = mq_open(queue_name, O_RDWR | O_CREAT | O_EXCL, 0640, &attr);
	check_sys(queue >= 0);
	victim_say("queue %s", queue_name);
	posix_fd = open(victim_path("posix"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	flock_fd = open(victim_path("flock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check_sys(posix_fd >= 0 && flock_fd >= 0);
	check_sys(close(open(victim_path("leased"), O_RDWR | O_CREAT, 0600)) == 0);
	lease_fd = open(victim_path("leased"), O_RDONLY | O_CLOEXEC);
	check_sys(lease_fd >= 0 && fcntl(lease_fd, F_SETLEASE, F_RDLCK) == 0);
	(void)snprintf(above, sizeof above, "%s", victim_path("gone"));
	check_sys(mkdir(above, 0700) == 0);
	gone_fd = open(victim_path("gone"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check_sys(gone_fd >= 0 && rmdir(above) == 0);
	*strrchr(above, '/') = '\0';
	take_locks();
	check_sys(openpty(&master, &slave, NULL, NULL, NULL) == 0);
	child = fork();
	check_sys(child >= 0);
	if (child == 0)
		be_child(slave);
	check_sys(close(slave) == 0);
	make_pidfds();
}

static void check_child(void)
{
	struct pollfd p = { .fd = dead_pidfd, .events = POLLIN };
	char text[4096], want[32];
	struct epoll_event ev;
	siginfo_t si = { 0 };
	struct stat st, up, base;
	ssize_t n;

	check(epoll_wait(epoll, &ev, 1, 0) == 0, "the child has ended");
	check_sys(syscall(SYS_pidfd_send_signal, child_pidfd, 0, NULL, 0) == 0);
	check(waitid((idtype_t)3 /* P_PIDFD */, (id_t)child_pidfd, &si, WEXITED | WNOHANG) == 0,
	      "waitid: %s", strerror(errno));
	check(poll(&p, 1, 0) == 1 && (p.revents & POLLIN), "the dead one: %x", p.revents);
	check(syscall(SYS_pidfd_send_signal, dead_pidfd, 0, NULL, 0) == -1 && errno == ESRCH,
	      "the dead one: %s", strerror(errno));
	n = pread(status_fd, text, sizeof text - 1, 0);
	check(n > 0, "status of the child: %s", strerror(errno));
	text[n] = '\0';
	(void)snprintf(want, sizeof want, "\nPid:\t%d\n", child);
	check(strstr(text, want), "status of another: %.60s", text);
	check_sys(fstat(gone_fd, &st) == 0);
	check(S_ISDIR(st.st_mode) && openat(gone_fd, "x", O_CREAT | O_RDWR, 0600) == -1 &&
		      errno == ENOENT,
	      "the deleted directory: %o, %s", st.st_mode, strerror(errno));
	check_sys(fstatat(gone_fd, "..", &up, 0) == 0 && stat(above, &base) == 0);
	check(up.st_ino == base.st_ino && up.st_dev == base.st_dev,
	      "above the deleted directory is another than before");
	check(fcntl(lease_fd, F_GETLEASE) == F_RDLCK, "lease %d", fcntl(lease_fd, F_GETLEASE));
}

static void expect(const char *want)
{
	char text[64];
	size_t len = 0;

	while (len < strlen(want)) {
		ssize_t n = read(master, text + len, sizeof text - len);

		check(n > 0, "the child's terminal: %s", strerror(errno));
		len += (size_t)n;
	}
	check(len == strlen(want) && !memcmp(text, want, len), "'%.*s', should be '%s'", (int)len,
	      text, want);
}

static void let_go(unsigned round)
{
	struct flock whole = { .l_type = F_UNLCK };
	struct sembuf op = { .sem_op = 1 };

	check_sys(write(master, "hi\n", 3) == 3);
	expect("hi\r\nho\r\n");
	check_sys(semop(sem, &op, 1) == 0);
	check_sys(mq_send(queue, "hello", 5, 1) == 0);
	check(pthread_mutex_unlock(&shared->mutex) == 0, "mutex");
	check_sys(fcntl(posix_fd, F_SETLK, &whole) == 0 && flock(flock_fd, LOCK_UN) == 0);
	for (int i = 0; i < N_WAITERS; i++)
		for (int k = 0; __atomic_load_n(&shared->got[i], __ATOMIC_ACQUIRE) != round; k++) {
			check(k < 30000, "waiter %d got %u, should be %u", i, shared->got[i],
			      round);
			sleep_ms(2);
		}
	check(*segment == round, "shared memory %u", *segment);
	take_locks();
	__atomic_store_n(&shared->round, round, __ATOMIC_RELEASE);
}

int main(int argc, char **argv)
{
	unsigned round = 0;

	victim_init(argc, argv);
	check_sys(signal(SIGIO, SIG_IGN) != SIG_ERR);
	set_up();
	wait_all_blocked();
	victim_ready();
	while (victim_wait()) {
		check_child();
		wait_all_blocked();
		let_go(++round);
		wait_all_blocked();
		victim_ok();
	}
	check_sys(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
	check_sys(shmctl(shm, IPC_RMID, NULL) == 0 && semctl(sem, 0, IPC_RMID) == 0);
	check_sys(mq_unlink(queue_name) == 0);
	return 0;
}
