/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: file leases, seen by somebody who wants to open the files: for writing and for reading,
 * with a signal of their own and with SIGIO, of a file in memory and of one without a name.
 *
 * "mapped": two of the files are mapped too. The token "told": somebody waits to open the first.
 */
#include "victim.h"

#include <sys/wait.h>

#define SIG_LEASE (SIGRTMIN + 2)

enum { WRITE, READ, MEMORY, GONE, N_FILES };

static struct leased {
	const char *path;
	int fd, type, sig;
} files[N_FILES];

static void take(int i, int flags, int type, int sig)
{
	struct leased *l = &files[i];

	check_sys(close(open(l->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) == 0);
	l->fd = open(l->path, flags | O_CLOEXEC);
	l->type = type;
	l->sig = sig ? sig : SIGIO;
	check_sys(l->fd >= 0);
	check_sys(!sig || fcntl(l->fd, F_SETSIG, sig) == 0);
	if (fcntl(l->fd, F_SETLEASE, type) < 0)
		victim_skip("no leases on %s: %s", l->path, strerror(errno));
}

static void set_up(void)
{
	static char memory[64];
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGIO);
	(void)sigaddset(&set, SIG_LEASE);
	check_sys(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	(void)snprintf(memory, sizeof memory, "/dev/shm/ckpt-lease-%d-%llx", (int)getpid(),
		       (unsigned long long)now_ns(CLOCK_REALTIME));
	files[MEMORY].path = memory;
	files[WRITE].path = strdup(victim_path("write"));
	files[READ].path = strdup(victim_path("read"));
	files[GONE].path = strdup(victim_path("gone"));
	take(WRITE, O_RDWR, F_WRLCK, SIG_LEASE);
	take(READ, O_RDONLY, F_RDLCK, 0);
	take(MEMORY, O_RDWR, F_WRLCK, SIG_LEASE);
	take(GONE, O_RDWR, F_WRLCK, SIG_LEASE);
	check_sys(unlink(files[GONE].path) == 0);
}

static void map(int i)
{
	check_sys(ftruncate(files[i].fd, PAGE) == 0);
	check_sys(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, files[i].fd, 0) !=
		  MAP_FAILED);
}

static void check_told(const struct leased *l)
{
	struct timespec long_enough = { .tv_sec = 60 };
	siginfo_t si = { 0 };
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, l->sig);
	check(sigtimedwait(&set, &si, &long_enough) == l->sig, "%s: no signal", l->path);
	check(l->sig == SIGIO || si.si_fd == l->fd, "%s: told of fd %d", l->path, si.si_fd);
	check(fcntl(l->fd, F_GETLEASE) != l->type, "%s: still its lease", l->path);
}

static void take_again(const struct leased *l)
{
	check_sys(fcntl(l->fd, F_SETLEASE, F_UNLCK) == 0);
	/* with the lease goes what it was to be told by */
	check_sys(l->sig == SIGIO || fcntl(l->fd, F_SETSIG, l->sig) == 0);
	for (int i = 0; fcntl(l->fd, F_SETLEASE, l->type) < 0; i++) {
		check(errno == EAGAIN && i < 30000, "lease again: %s", strerror(errno));
		sleep_ms(2); /* who has opened it closes it again */
	}
}

static void check_one(const struct leased *l)
{
	sigset_t pending;
	int status;
	pid_t pid;

	check(fcntl(l->fd, F_GETLEASE) == l->type, "%s: lease %d, not %d", l->path,
	      fcntl(l->fd, F_GETLEASE), l->type);
	check_sys(sigpending(&pending) == 0);
	check(!sigismember(&pending, l->sig), "%s: a signal", l->path);
	if (l == &files[GONE])
		return;
	pid = fork();
	if (pid == 0)
		_exit(open(l->path, O_WRONLY | O_NONBLOCK) >= 0 ? 1 : errno == EAGAIN ? 0 : 2);
	check_sys(pid > 0 && waitpid(pid, &status, 0) == pid);
	check(status == 0, "%s: it can be opened (%x)", l->path, status);
	check_told(l);
	take_again(l);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	set_up();
	if (argc > 2) {
		map(WRITE);
		map(MEMORY);
	}
	victim_ready();
	while (victim_wait()) {
		if (!strcmp(victim_token(), "told")) {
			check_told(&files[WRITE]);
			take_again(&files[WRITE]);
		}
		for (int i = 0; i < N_FILES; i++)
			check_one(&files[i]);
		victim_ok();
	}
	check_sys(unlink(files[MEMORY].path) == 0);
	return 0;
}
