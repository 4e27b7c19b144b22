/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: one open file description of each kind in three processes: here, in a child by fork, and
 * in another by SCM_RIGHTS, which has a thread blocked on each (some by two numbers, dup(2), in the
 * first two); a signal for that child when
 * something can be read here (F_SETOWN_EX, F_SETSIG); a robust mutex whose owner in the first child
 * ends while the other waits for it.
 */
#include "victim.h"

#include <linux/kcmp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK  37
#define F_OFD_SETLKW 38
#endif
#ifndef F_SETSIG
#define F_SETSIG 10
#endif

/* What is shared. */
enum {
	EVENT,
	TIMER,
	SIGNAL,
	OUTER,
	INNER,
	INOTIFY,
	PACKET_IN,
	PACKET_OUT,
	PIDFD,
	MEMFD,
	UNNAMED,
	DELETED,
	GONE_DIR,
	ON_TMPFS,
	LOCKED,
	PROC_FILE,
	SYS_FILE,
	NFDS
};
/* Who waits, in the second child. */
enum { W_EVENT, W_TIMER, W_SIGNAL, W_EPOLL, W_INOTIFY, W_PACKET, W_OFD, W_MSG, W_ROBUST, NWAIT };

#define FAR                                                                                        \
	(struct itimerspec)                                                                        \
	{                                                                                          \
		.it_value.tv_sec = 100000                                                          \
	}
#define LOW_BASE   200 /* numbers in the second child */
#define TWICE_BASE 300 /* second numbers, here and in the first child */

static struct shared {
	pthread_mutex_t robust;
	pid_t tid[NWAIT];
	unsigned got[NWAIT], round, held, told;
	int order; /* to the first child: rounds that its owner of the mutex has ended in */
} * shared;
/* What has two numbers in a process. */
static const int twice[] = { PIDFD, PROC_FILE, EVENT };
#define NTWICE (int)COUNT_OF(twice)
static int fds[NFDS], channel[2], asked[2], queue;
static pid_t forked, passed;

static void make_files(void)
{
	const char *dir = victim_path("gone"), *gone = victim_path("deleted");
	char base[256], path[300], *slash;

	(void)snprintf(base, sizeof base, "%s", victim_path(""));
	slash = strrchr(base, '/');
	*slash = '\0';
	fds[MEMFD] = memfd_create("shared", MFD_CLOEXEC);
	fds[UNNAMED] = open(base, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fds[UNNAMED] < 0)
		fds[UNNAMED] = memfd_create("no O_TMPFILE here", MFD_CLOEXEC);
	fds[DELETED] = open(gone, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check_sys(fds[DELETED] >= 0 && unlink(gone) == 0 && mkdir(dir, 0700) == 0);
	fds[GONE_DIR] = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check_sys(fds[GONE_DIR] >= 0 && rmdir(dir) == 0);
	slash = strrchr(base, '/');
	(void)snprintf(path, sizeof path, "/dev/shm/%s.shared", slash ? slash + 1 : base);
	fds[ON_TMPFS] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check_sys(fds[ON_TMPFS] >= 0 && unlink(path) == 0);
	fds[LOCKED] = open(victim_path("locked"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	fds[PROC_FILE] = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	fds[SYS_FILE] = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
	if (fds[SYS_FILE] < 0)
		fds[SYS_FILE] = open("/proc/sys/kernel/ostype", O_RDONLY | O_CLOEXEC);
}

static void make_all(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = mix(1) };
	sigset_t set;
	int ends[2];

	fds[EVENT] = eventfd(0, EFD_CLOEXEC);
	fds[TIMER] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	check_sys(timerfd_settime(fds[TIMER], 0, &FAR, NULL) == 0);
	check_sys(sigemptyset(&set) == 0 && sigaddset(&set, SIGRTMIN + 4) == 0);
	fds[SIGNAL] = signalfd(-1, &set, SFD_CLOEXEC);
	check_sys(pipe2(ends, O_DIRECT | O_CLOEXEC) == 0);
	check_sys(fcntl(ends[1], F_SETPIPE_SZ, 16384) == 16384);
	fds[PACKET_IN] = ends[0];
	fds[PACKET_OUT] = ends[1];
	fds[OUTER] = epoll_create1(EPOLL_CLOEXEC);
	fds[INNER] = epoll_create1(EPOLL_CLOEXEC);
	check_sys(epoll_ctl(fds[OUTER], EPOLL_CTL_ADD, fds[INNER], &ev) == 0);
	ev.data.u64 = mix(2);
	check_sys(pipe2(asked, O_CLOEXEC) == 0);
	check_sys(epoll_ctl(fds[INNER], EPOLL_CTL_ADD, asked[0], &ev) == 0);
	fds[INOTIFY] = inotify_init1(IN_CLOEXEC);
	check_sys(mkdir(victim_path("watched"), 0700) == 0);
	check_sys(inotify_add_watch(fds[INOTIFY], victim_path("watched"), IN_CREATE) == 1);
	fds[PIDFD] = (int)syscall(SYS_pidfd_open, passed, 0);
	make_files();
	for (int i = 0; i < NFDS; i++)
		check(fds[i] >= 0, "descriptor %d: %s", i, strerror(errno));
}

/* --- the second child ------------------------------------------------------------------------- */

static void pass_all(void)
{
	char room[CMSG_SPACE(sizeof fds)] = { 0 }, byte = 1;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fds);
	memcpy(CMSG_DATA(c), fds, sizeof fds);
	check_sys(sendmsg(channel[0], &m, 0) == 1);
}

static void take_all(void)
{
	char room[CMSG_SPACE(sizeof fds)] = { 0 }, byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};
	struct cmsghdr *c;

	check_sys(recvmsg(channel[1], &m, MSG_CMSG_CLOEXEC) == 1);
	c = CMSG_FIRSTHDR(&m);
	check(c && c->cmsg_len == CMSG_LEN(sizeof fds), "descriptors did not come");
	memcpy(fds, CMSG_DATA(c), sizeof fds);
	for (int i = 0; i < NFDS; i++) {
		check_sys(dup3(fds[i], LOW_BASE + i, O_CLOEXEC) >= 0 && close(fds[i]) == 0);
		fds[i] = LOW_BASE + i;
	}
}

static void wait_robust(void)
{
	int rc = pthread_mutex_lock(&shared->robust);

	check(rc == EOWNERDEAD, "robust: %s", strerror(rc));
	check(pthread_mutex_consistent(&shared->robust) == 0, "robust");
	check(pthread_mutex_unlock(&shared->robust) == 0, "robust");
}

static void wait_once(int i, int own)
{
	struct flock whole = { .l_type = F_WRLCK };
	struct {
		long type;
		char text[8];
	} m;
	struct signalfd_siginfo si;
	struct epoll_event ev;
	char buf[512];
	uint64_t n;

	switch (i) {
	case W_EVENT:
		check(read(fds[EVENT], &n, 8) == 8 && n == 3, "eventfd");
		break;
	case W_TIMER:
		check(read(fds[TIMER], &n, 8) == 8 && n == 1, "timerfd");
		break;
	case W_SIGNAL:
		check(read(fds[SIGNAL], &si, sizeof si) == (ssize_t)sizeof si && si.ssi_int == 9,
		      "signalfd");
		break;
	case W_EPOLL:
		check(epoll_wait(fds[OUTER], &ev, 1, -1) == 1 && ev.data.u64 == mix(1), "outer");
		check(epoll_wait(fds[INNER], &ev, 1, 0) == 1 && ev.data.u64 == mix(2), "inner");
		break;
	case W_INOTIFY:
		check(read(fds[INOTIFY], buf, sizeof buf) > 0, "inotify: %s", strerror(errno));
		break;
	case W_PACKET:
		check(read(fds[PACKET_IN], buf, sizeof buf) == 5, "a packet");
		check(read(fds[PACKET_IN], buf, sizeof buf) == 2, "another packet");
		break;
	case W_OFD:
		check_sys(fcntl(own, F_OFD_SETLKW, &whole) == 0);
		whole.l_type = F_UNLCK;
		check_sys(fcntl(own, F_OFD_SETLK, &whole) == 0);
		break;
	case W_MSG:
		check(msgrcv(queue, &m, sizeof m.text, 6, 0) == 4, "msgrcv: %s", strerror(errno));
		break;
	default:
		wait_robust();
	}
}

static void *waiter(void *arg)
{
	int i = (int)(intptr_t)arg, own = open(victim_path("locked"), O_RDWR | O_CLOEXEC);

	check_sys(own >= 0);
	__atomic_store_n(&shared->tid[i], gettid_raw(), __ATOMIC_RELEASE);
	for (;;) {
		unsigned round;

		wait_once(i, own);
		round = __atomic_add_fetch(&shared->got[i], 1, __ATOMIC_RELEASE);
		/* until this process has everything set up for another round */
		while (__atomic_load_n(&shared->round, __ATOMIC_ACQUIRE) != round)
			sleep_ms(1);
	}
	return NULL;
}

static void on_io(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	(void)context;
	if (si->si_code == POLL_IN && si->si_fd == channel[0])
		__atomic_add_fetch(&shared->told, 1, __ATOMIC_RELEASE);
}

static _Noreturn void be_passed(void)
{
	struct sigaction sa = { .sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART };

	check_sys(sigaction(SIGRTMIN + 5, &sa, NULL) == 0);
	take_all();
	for (intptr_t i = 0; i < NWAIT; i++)
		(void)thread_start(waiter, (void *)i);
	for (;;)
		sleep_ms(1000);
}

/* --- the first child -------------------------------------------------------------------------- */

/* Ends as the owner of the mutex. */
static void *owner(void *arg)
{
	int round = (int)(intptr_t)arg;

	check(pthread_mutex_lock(&shared->robust) == 0, "robust, round %d", round);
	__atomic_store_n(&shared->held, (unsigned)round + 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&shared->order, __ATOMIC_ACQUIRE) == round)
		sleep_ms(1);
	return NULL;
}

static _Noreturn void be_forked(void)
{
	for (intptr_t round = 0;; round++) {
		pthread_t t = thread_start(owner, (void *)round);

		check(pthread_join(t, NULL) == 0, "join");
		/* the waiter has been given it */
		while (__atomic_load_n(&shared->got[W_ROBUST], __ATOMIC_ACQUIRE) !=
		       (unsigned)round + 1)
			sleep_ms(1);
	}
}

/* --- the root --------------------------------------------------------------------------------- */

static void wait_blocked(void)
{
	static const long calls[] = { SYS_read, SYS_read,  SYS_read,   SYS_epoll_wait, SYS_read,
				      SYS_read, SYS_fcntl, SYS_msgrcv, SYS_futex };
	char path[64], buf[256];

	for (int i = 0; i < NWAIT; i++)
		for (int k = 0;; k++) {
			pid_t tid = __atomic_load_n(&shared->tid[i], __ATOMIC_ACQUIRE);
			long nr = -1;

			(void)snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", passed, tid);
			if (tid && read_small(path, buf, sizeof buf) && buf[0] >= '0' &&
			    buf[0] <= '9')
				nr = strtol(buf, NULL, 10);
			if (nr == calls[i])
				break;
			check(k < 30000, "waiter %d is not blocked but in %ld", i, nr);
			sleep_ms(2);
		}
}

static void check_one_description(void)
{
	for (int i = 0; i < NFDS; i++) {
		long a = syscall(SYS_kcmp, getpid(), forked, KCMP_FILE, fds[i], fds[i]);
		long b = syscall(SYS_kcmp, getpid(), passed, KCMP_FILE, fds[i], LOW_BASE + i);

		if (a < 0 && (errno == EPERM || errno == ENOSYS))
			return; /* not allowed here */
		check(a == 0 && b == 0, "description %d: %ld %ld", i, a, b);
	}
	for (int i = 0; i < NTWICE; i++) {
		long a = syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fds[twice[i]],
				 TWICE_BASE + i);
		long b = syscall(SYS_kcmp, getpid(), forked, KCMP_FILE, fds[twice[i]],
				 TWICE_BASE + i);

		check(a == 0 && b == 0, "description %d twice: %ld %ld", twice[i], a, b);
	}
	check(fcntl(fds[PACKET_IN], F_GETPIPE_SZ) == 16384, "size of the pipe");
	check(fcntl(fds[PACKET_OUT], F_GETFL) & O_DIRECT, "packet mode");
}

static void let_go(unsigned round)
{
	struct itimerspec soon = { .it_value.tv_nsec = 1000000 };
	struct flock whole = { .l_type = F_UNLCK };
	struct {
		long type;
		char text[8];
	} m = { 6, "four" };
	uint64_t three = 3;
	char path[4200], c;
	int fd;

	check_sys(write(fds[EVENT], &three, 8) == 8);
	check_sys(timerfd_settime(fds[TIMER], 0, &soon, NULL) == 0);
	check_sys(sigqueue(passed, SIGRTMIN + 4, (union sigval){ .sival_int = 9 }) == 0);
	check_sys(write(asked[1], "x", 1) == 1);
	(void)snprintf(path, sizeof path, "%s/%u", victim_path("watched"), round);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	check_sys(fd >= 0 && close(fd) == 0 && unlink(path) == 0);
	check_sys(write(fds[PACKET_OUT], "12345", 5) == 5 && write(fds[PACKET_OUT], "67", 2) == 2);
	check_sys(fcntl(fds[LOCKED], F_OFD_SETLK, &whole) == 0);
	check_sys(msgsnd(queue, &m, 4, 0) == 0);
	__atomic_store_n(&shared->order, (int)round, __ATOMIC_RELEASE);
	check_sys(write(channel[1], "!", 1) == 1);
	for (int i = 0; i < NWAIT; i++)
		for (int k = 0; __atomic_load_n(&shared->got[i], __ATOMIC_ACQUIRE) != round ||
				__atomic_load_n(&shared->told, __ATOMIC_ACQUIRE) != round;
		     k++) {
			check(k < 30000, "waiter %d got %u, told %u, round %u", i, shared->got[i],
			      shared->told, round);
			sleep_ms(2);
		}
	check_sys(read(channel[0], &c, 1) == 1 && read(asked[0], &c, 1) == 1);
}

static void hold(unsigned round)
{
	struct flock whole = { .l_type = F_WRLCK };

	check_sys(fcntl(fds[LOCKED], F_OFD_SETLKW, &whole) == 0);
	while (__atomic_load_n(&shared->held, __ATOMIC_ACQUIRE) != round + 1)
		sleep_ms(1);
	__atomic_store_n(&shared->round, round, __ATOMIC_RELEASE);
}

static void set_up(void)
{
	pthread_mutexattr_t ma;
	struct f_owner_ex to = { .type = F_OWNER_PID };
	sigset_t set;

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	check_sys(shared != MAP_FAILED);
	check(pthread_mutexattr_init(&ma) == 0 &&
		      pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED) == 0 &&
		      pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST) == 0 &&
		      pthread_mutex_init(&shared->robust, &ma) == 0,
	      "mutex");
	queue = msgget(IPC_PRIVATE, 0600);
	check_sys(queue >= 0);
	victim_say("ipc -q %d", queue);
	check_sys(sigemptyset(&set) == 0 && sigaddset(&set, SIGRTMIN + 4) == 0);
	check_sys(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	check_sys(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) == 0);
	passed = fork();
	check_sys(passed >= 0);
	if (!passed)
		be_passed();
	make_all();
	for (int i = 0; i < NTWICE; i++)
		check_sys(dup3(fds[twice[i]], TWICE_BASE + i, O_CLOEXEC) >= 0);
	forked = fork();
	check_sys(forked >= 0);
	if (!forked)
		be_forked();
	hold(0);
	pass_all();
	wait_blocked();
	to.pid = passed;
	check_sys(fcntl(channel[0], F_SETOWN_EX, &to) == 0);
	check_sys(fcntl(channel[0], F_SETSIG, SIGRTMIN + 5) == 0);
	check_sys(fcntl(channel[0], F_SETFL, O_ASYNC) == 0);
}

int main(int argc, char **argv)
{
	unsigned round = 0;

	victim_init(argc, argv);
	set_up();
	victim_ready();
	while (victim_wait()) {
		wait_blocked();
		check_one_description();
		let_go(++round);
		hold(round);
		wait_blocked();
		victim_ok();
	}
	check_sys(kill(forked, SIGKILL) == 0 && waitpid(forked, NULL, 0) == forked);
	check_sys(kill(passed, SIGKILL) == 0 && waitpid(passed, NULL, 0) == passed);
	check_sys(msgctl(queue, IPC_RMID, NULL) == 0);
	return 0;
}
