/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: argv[2] names something that cannot be checkpointed; it must be refused and the victim go
 * on. */
#include "victim.h"

#include <linux/filter.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static void make_io_uring(void)
{
	char params[120] = { 0 };

	if (syscall(425, 4, params) < 0)
		victim_skip("no io_uring here: %s", strerror(errno));
}

static void make_aio(void)
{
	unsigned long context = 0;

	if (syscall(SYS_io_setup, 8, &context) < 0)
		victim_skip("no AIO here: %s", strerror(errno));
}

static void make_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	check_sys(p != MAP_FAILED);
	if (fd < 0)
		victim_skip("no userfaultfd here: %s", strerror(errno));
	reg.range.start = (uintptr_t)p;
	reg.range.len = PAGE;
	check_sys(ioctl((int)fd, UFFDIO_API, &api) == 0 &&
		  ioctl((int)fd, UFFDIO_REGISTER, &reg) == 0);
}

static void make_perf(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
					.size = sizeof attr,
					.config = PERF_COUNT_SW_PAGE_FAULTS,
					.exclude_kernel = 1 };

	if (syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC) < 0)
		victim_skip("no perf events here: %s", strerror(errno));
}

static void make_bpf(void)
{
	struct {
		uint32_t type, key, value, entries, flags, rest[20];
	} attr = { .type = 2 /* array */, .key = 4, .value = 4, .entries = 4 };

	if (syscall(SYS_bpf, 0, &attr, 72) < 0)
		victim_skip("no bpf here: %s", strerror(errno));
}

static void make_kvm(void)
{
	if (open("/dev/kvm", O_RDWR | O_CLOEXEC) < 0)
		victim_skip("no /dev/kvm here: %s", strerror(errno));
}

static void make_seccomp(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = { 1, &allow };

	check_sys(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
		victim_skip("no seccomp here: %s", strerror(errno));
}

static void make_nondumpable(void)
{
	check_sys(prctl(PR_SET_DUMPABLE, 0) == 0);
}

static void make_socket(void)
{
	if (socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 &&
	    socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) < 0)
		victim_skip("no sockets of a strange kind here: %s", strerror(errno));
}

static void make_userns(void)
{
	if (unshare(CLONE_NEWUSER) != 0)
		victim_skip("no user namespaces here: %s", strerror(errno));
}

static void make_netns(void)
{
	if (unshare(getuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET) != 0)
		victim_skip("no network namespaces here: %s", strerror(errno));
}

static void make_mntns(void)
{
	if (unshare(getuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) != 0)
		victim_skip("no mount namespaces here: %s", strerror(errno));
}

static void make_keyring(void)
{
	if (syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL) < 0)
		victim_skip("no keyrings here: %s", strerror(errno));
}

static void make_nsfd(void)
{
	check_sys(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC) == 3);
}

static void on_value(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	(void)si;
	(void)context;
}

static mqd_t make_queue(void)
{
	char name[64];
	mqd_t q;

	(void)snprintf(name, sizeof name, "/ckpt-refused-%d", (int)getpid());
	q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL);
	check_sys(q >= 0 && mq_unlink(name) == 0);
	return q;
}

/* A value that its handler sees, and that nobody else can. */
static void make_mq_notify(void)
{
	struct sigaction sa = { .sa_sigaction = on_value, .sa_flags = SA_SIGINFO };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL,
				  .sigev_signo = SIGUSR2,
				  .sigev_value.sival_int = 5 };

	check_sys(sigaction(SIGUSR2, &sa, NULL) == 0);
	check_sys(mq_notify(make_queue(), &event) == 0);
}

/* A value that sigwaitinfo() would return. */
static void make_mq_notify_blocked(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR2);
	check_sys(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	check_sys(mq_notify(make_queue(), &event) == 0);
}

static void on_message(union sigval value)
{
	(void)value;
}

static void make_mq_notify_thread(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD,
				  .sigev_notify_function = on_message };

	check_sys(mq_notify(make_queue(), &event) == 0);
}

/* By a child that has this process's descriptors (CLONE_FILES), with a signal that it ignores. */
static void make_mq_notify_shared(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGCHLD };
	mqd_t q = make_queue();
	int told[2];
	char done;
	long child;

	check_sys(pipe2(told, O_CLOEXEC) == 0);
	child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	check_sys(child >= 0);
	if (!child) {
		check_sys(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
		check_sys(mq_notify(q, &event) == 0 && write(told[1], "x", 1) == 1);
		for (;;)
			(void)pause();
	}
	check_sys(read(told[0], &done, 1) == 1);
}

static void make_netlink(void)
{
	static const int protocols[] = { 12 /* netfilter */, 6 /* xfrm */, 9 /* audit */ };

	for (unsigned i = 0; i < COUNT_OF(protocols); i++) {
		struct sockaddr_nl name = { .nl_family = AF_NETLINK };
		int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocols[i]);

		if (fd >= 0 && bind(fd, (void *)&name, sizeof name) == 0)
			return;
	}
	victim_skip("no netlink sockets of a strange kind here: %s", strerror(errno));
}

/* Too far from all that the job is about for anybody but root, who can ask the kernel. */
static void make_watch(void)
{
	char path[4200];
	int fd = inotify_init1(IN_CLOEXEC);

	check_sys(fd >= 0);
	(void)snprintf(path, sizeof path, "%s", victim_path("far"));
	for (int i = 0; i < 4; i++) {
		check_sys(mkdir(path, 0700) == 0);
		strcat(path, "/in");
	}
	check_sys(mkdir(path, 0700) == 0 && inotify_add_watch(fd, path, IN_CREATE) > 0);
}

static void make_procfile(void)
{
	check_sys(open("/proc/1/stat", O_RDONLY | O_CLOEXEC) >= 0);
}

/* Deleted, with its other name elsewhere. */
static void make_linked(void)
{
	char name[4200], other[4300];
	int fd;

	(void)snprintf(name, sizeof name, "%s", victim_path("here"));
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check_sys(fd >= 0 && mkdir(victim_path("there"), 0700) == 0);
	(void)snprintf(other, sizeof other, "%s/name", victim_path("there"));
	check_sys(link(name, other) == 0 && unlink(name) == 0);
}

static void make_opath(void)
{
	const char *name = victim_path("opath");
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	check_sys(fd >= 0 && open(name, O_PATH | O_CLOEXEC) >= 0 && close(fd) == 0);
	check_sys(unlink(name) == 0);
}

static _Noreturn void linger(void *arg)
{
	(void)arg;
	for (;;)
		(void)pause();
}

static void *lock_down(void *arg)
{
	check_sys(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	__atomic_store_n((bool *)arg, true, __ATOMIC_RELEASE);
	linger(arg);
}

static void make_thread_creds(void)
{
	static bool done;

	(void)thread_start(lock_down, &done);
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
		sleep_ms(1);
}

static void *filter_itself(void *arg)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = { 1, &allow };

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
		victim_skip("no seccomp here: %s", strerror(errno));
	__atomic_store_n((bool *)arg, true, __ATOMIC_RELEASE);
	linger(arg);
}

static void make_thread_seccomp(void)
{
	static bool done;

	check_sys(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	(void)thread_start(filter_itself, &done);
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
		sleep_ms(1);
}

/* On the CPU time of a process that is not of the job. */
static void make_timer_cpu(void)
{
	clockid_t clock;
	timer_t timer;

	check_sys(clock_getcpuclockid(getppid(), &clock) == 0);
	check_sys(timer_create(clock, NULL, &timer) == 0);
}

/* A thread that ends when it has a timer that signals it. */
static void *with_timer(void *arg)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGCHLD };
	timer_t timer;

	event._sigev_un._tid = gettid_raw();
	check_sys(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
	return arg;
}

static void make_timer_gone(void)
{
	check_sys(pthread_join(thread_start(with_timer, NULL), NULL) == 0);
}

static void make_pidfd(void)
{
	check_sys(syscall(SYS_pidfd_open, getppid(), 0) >= 0);
}

/* The child has what the epoll watches, and not the epoll. */
static void make_epoll(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC), ends[2], told[2];
	struct epoll_event event = { .events = EPOLLIN };
	pid_t child;
	char done;

	check_sys(epoll >= 0 && pipe2(ends, O_CLOEXEC) == 0 && pipe2(told, O_CLOEXEC) == 0);
	check_sys(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
	child = fork();
	check_sys(child >= 0);
	if (!child) {
		check_sys(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && close(epoll) == 0);
		check_sys(write(told[1], "x", 1) == 1);
		linger(NULL);
	}
	check_sys(read(told[0], &done, 1) == 1 && close(ends[0]) == 0);
}

static const struct {
	const char *name;
	void (*make)(void);
} kinds[] = {
	{ "io_uring", make_io_uring },
	{ "aio", make_aio },
	{ "userfaultfd", make_userfaultfd },
	{ "perf", make_perf },
	{ "bpf", make_bpf },
	{ "kvm", make_kvm },
	{ "keyring", make_keyring },
	{ "mntns", make_mntns },
	{ "nsfd", make_nsfd },
	{ "netns", make_netns },
	{ "userns", make_userns },
	{ "seccomp", make_seccomp },
	{ "nondumpable", make_nondumpable },
	{ "socket", make_socket },
	{ "netlink", make_netlink },
	{ "watch", make_watch },
	{ "procfile", make_procfile },
	{ "linked", make_linked },
	{ "opath", make_opath },
	{ "thread_creds", make_thread_creds },
	{ "thread_seccomp", make_thread_seccomp },
	{ "timer_cpu", make_timer_cpu },
	{ "timer_gone", make_timer_gone },
	{ "pidfd", make_pidfd },
	{ "epoll", make_epoll },
	{ "mq_notify", make_mq_notify },
	{ "mq_notify_blocked", make_mq_notify_blocked },
	{ "mq_notify_thread", make_mq_notify_thread },
	{ "mq_notify_shared", make_mq_notify_shared },
};

int main(int argc, char **argv)
{
	bool found = false;

	victim_init(argc, argv);
	for (unsigned i = 0; i < COUNT_OF(kinds); i++) {
		if (argc < 3 || strcmp(argv[2], kinds[i].name) != 0)
			continue;
		kinds[i].make();
		found = true;
	}
	check(found, "refused needs the name of a thing");
	victim_ready();
	while (victim_wait())
		victim_ok();
	return 0;
}
