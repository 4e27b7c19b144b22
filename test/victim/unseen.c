/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: is there anybody whom it did not make? It waits for children of every kind all the time,
 * counts SIGCHLD, and looks at its children in /proc; and what it lets go of (a pipe's end, a
 * file's lock, a shared mapping, which were there at the checkpoint) must be gone at once. The
 * argument "subreaper" has it adopt orphans; "nproc [N]" leaves no room for another process than N;
 * "memory N" gives it N MiB; "beyond" a mapping that the kernel allows nobody a second of.
 */
#include "victim.h"

#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

static volatile sig_atomic_t n_sigchld;

static void on_sigchld(int sig)
{
	(void)sig;
	n_sigchld++;
}

static void *waiter(void *arg)
{
	(void)arg;
	for (;;) {
		int status;
		pid_t pid = (pid_t)syscall(SYS_wait4, -1, &status, WNOHANG | __WALL, NULL);

		check(pid == -1 && errno == ECHILD, "wait4(-1, __WALL) says %d (%s)", pid,
		      pid < 0 ? strerror(errno) : "there is a child");
		(void)usleep(50);
	}
	return NULL;
}

static struct {
	int pipe[2], lock_fd, memfd;
	void *shared;
} held;

static void hold(void)
{
	check_sys(pipe(held.pipe) == 0);
	held.lock_fd = open(victim_path("lock"), O_RDWR | O_CREAT, 0600);
	check_sys(held.lock_fd >= 0 && flock(held.lock_fd, LOCK_EX) == 0);
	held.memfd = memfd_create("unseen", MFD_ALLOW_SEALING);
	check_sys(held.memfd >= 0 && ftruncate(held.memfd, PAGE) == 0);
	held.shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, held.memfd, 0);
	check_sys(held.shared != MAP_FAILED);
	page_fill(held.shared, 7);
}

static void let_go(void)
{
	struct pollfd reader = { .fd = held.pipe[0], .events = POLLIN };
	int fd;

	check_sys(close(held.pipe[1]) == 0);
	check(poll(&reader, 1, 0) == 1 && (reader.revents & POLLHUP),
	      "a pipe's writing end was closed and its reader is not told");
	check_sys(close(held.pipe[0]) == 0);
	check_sys(close(held.lock_fd) == 0);
	fd = open(victim_path("lock"), O_RDWR);
	check(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0, "a closed file is still locked: %s",
	      strerror(errno));
	check_sys(close(fd) == 0);
	check(page_is(held.shared, 7), "shared memory has changed");
	check_sys(munmap(held.shared, PAGE) == 0);
	check(fcntl(held.memfd, F_ADD_SEALS, F_SEAL_WRITE) == 0,
	      "somebody still has a memfd mapped: %s", strerror(errno));
	check_sys(close(held.memfd) == 0);
}

static void look(void)
{
	char path[64], buf[256];

	(void)snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
	check(read_small(path, buf, sizeof buf) == 0, "it has children: %s", buf);
	check(n_sigchld == 0, "SIGCHLD came %d times", (int)n_sigchld);
}

/*
 * With vm.overcommit_memory 0 one mapping may not be larger than all memory and swap. Two that lie
 * together become one that is, and then a fork, which asks for the whole, is refused (ENOMEM).
 */
static void map_beyond(void)
{
	struct sysinfo si;
	char how[16];
	size_t half;
	char *p;

	check_sys(read_small("/proc/sys/vm/overcommit_memory", how, sizeof how) > 0);
	if (how[0] != '0')
		victim_skip("vm.overcommit_memory is %c, not 0", how[0]);
	check_sys(sysinfo(&si) == 0);
	half = (si.totalram + si.totalswap) * si.mem_unit / 5 * 3 / PAGE * PAGE;
	p = mmap(NULL, 2 * half, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check_sys(p != MAP_FAILED);
	for (int i = 0; i < 2; i++)
		check_sys(mmap(p + (size_t)i * half, half, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	page_fill(p + half, 9);
}

static void options(int argc, char **argv)
{
	rlim_t n = 1;

	for (int i = 2; i < argc; i++)
		if (!strcmp(argv[i], "subreaper")) {
			check_sys(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
		} else if (!strcmp(argv[i], "nproc")) {
			if (geteuid() == 0)
				victim_skip("RLIMIT_NPROC does not hold for root");
			if (i + 1 < argc)
				n = strtoul(argv[++i], NULL, 10);
			check_sys(setrlimit(RLIMIT_NPROC, &(struct rlimit){ n, n }) == 0);
		} else if (!strcmp(argv[i], "beyond")) {
			map_beyond();
		} else if (!strcmp(argv[i], "memory") && i + 1 < argc) {
			size_t len = strtoul(argv[++i], NULL, 10) << 20;
			char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			check_sys(p != MAP_FAILED);
			/* how it is saved depends on that */
			(void)madvise(p, len, MADV_NOHUGEPAGE);
			for (size_t at = 0; at < len; at += PAGE)
				page_fill(p + at, at);
		}
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_sigchld };

	victim_init(argc, argv);
	check_sys(sigaction(SIGCHLD, &sa, NULL) == 0);
	hold();
	(void)thread_start(waiter, NULL);
	options(argc, argv);
	victim_ready();
	while (victim_wait()) {
		look();
		let_go();
		hold();
		victim_ok();
	}
	return 0;
}
