/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: directories with a position, O_PATH, devices, files of /proc, descriptors 0 to 2, and a
 * file that its mode does not let be opened again. */
#include "victim.h"

#include <dirent.h>

#define NFILES 50

static int count_entries(DIR *dir, int at_most)
{
	int n = 0;

	errno = 0;
	while (n < at_most && readdir(dir))
		n++;
	check(errno == 0, "readdir: %s", strerror(errno));
	return n;
}

static ino_t inode(int fd)
{
	struct stat st;

	check(fstat(fd, &st) == 0, "fstat of descriptor %d: %s", fd, strerror(errno));
	return st.st_ino;
}

/* --- a file about a thread, at two numbers --- */

static int waiting;
static pid_t waiter_tid;

static void *waiter(void *arg)
{
	__atomic_store_n(&waiter_tid, gettid_raw(), __ATOMIC_RELEASE);
	for (;;)
		syscall(SYS_futex, &waiting, 0 /* FUTEX_WAIT */, 0, NULL, NULL, 0);
	return arg;
}

static int about_thread[2];

static void open_about_thread(void)
{
	char path[64];

	(void)thread_start(waiter, NULL);
	while (!__atomic_load_n(&waiter_tid, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	thread_wait_blocked(waiter_tid, SYS_futex);
	(void)snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)waiter_tid);
	about_thread[0] = open(path, O_RDONLY);
	about_thread[1] = fcntl(about_thread[0], F_DUPFD_CLOEXEC, 0);
	check_sys(about_thread[0] >= 0 && about_thread[1] >= 0);
	check_sys(lseek(about_thread[0], 3, SEEK_SET) == 3);
}

static void check_about_thread(void)
{
	char buf[256] = "";

	/* a SIGCONT or a stop may have taken it out of the call for a moment */
	for (int i = 0; i < 5000 && strncmp(buf, "202 ", 4) != 0; i++) {
		sleep_ms(i > 0);
		check(pread(about_thread[0], buf, sizeof buf - 1, 0) > 0, "a thread's syscall: %s",
		      strerror(errno));
	}
	check(!strncmp(buf, "202 ", 4), "a thread's syscall: %s", buf);
	check(lseek(about_thread[1], 0, SEEK_CUR) == 3, "its two numbers lead to %ld and %ld",
	      (long)lseek(about_thread[0], 0, SEEK_CUR), (long)lseek(about_thread[1], 0, SEEK_CUR));
	check(fcntl(about_thread[0], F_GETFD) == 0 && fcntl(about_thread[1], F_GETFD) == FD_CLOEXEC,
	      "close-on-exec has changed");
}

/* The name of the n-th entry that getdents would give next, without moving. */
static void check_position(int fd, off_t want)
{
	off_t now = lseek(fd, 0, SEEK_CUR);

	check(now == want, "position %ld in the directory, was %ld", (long)now, (long)want);
}

static void check_device(const char *path, int fd)
{
	char buf[64];
	ssize_t n;

	memset(buf, 1, sizeof buf);
	n = read(fd, buf, sizeof buf);
	if (!strcmp(path, "/dev/null"))
		check(n == 0, "/dev/null gives %ld bytes", (long)n);
	else
		check(n == (ssize_t)sizeof buf, "%s gives %ld bytes", path, (long)n);
	if (!strcmp(path, "/dev/zero"))
		check(buf[5] == 0 && buf[63] == 0, "/dev/zero gives something else");
	if (!strcmp(path, "/dev/full"))
		check(write(fd, "x", 1) == -1 && errno == ENOSPC, "/dev/full takes data");
	if (strstr(path, "random"))
		check(memcmp(buf, buf + 8, 8) != 0, "%s repeats itself", path);
}

static int make_shut(void)
{
	int fd;

	(void)unlink(victim_path("shut"));
	fd = open(victim_path("shut"), O_WRONLY | O_CREAT | O_EXCL, 0400);
	check_sys(fd >= 0);
	return fd;
}

static void check_shut(int fd)
{
	struct stat st;

	check_sys(pwrite(fd, "s", 1, 0) == 1 && fstat(fd, &st) == 0);
	check((st.st_mode & 07777) == 0400, "mode of the file that is shut: %o", st.st_mode);
	check((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY, "access to the file that is shut");
}

int main(int argc, char **argv)
{
	static const char *const devices[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random",
					       "/dev/urandom" };
	int dev[COUNT_OF(devices)], dirfd, opath, opath_dir, proc, shut;
	char name[64], buf[4096], statm[64];
	ino_t path_ino, dir_ino;
	off_t at;
	DIR *dir;

	victim_init(argc, argv);
	check_sys(mkdir(victim_path("dir"), 0700) == 0 || errno == EEXIST);
	dirfd = open(victim_path("dir"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check_sys(dirfd >= 0);
	for (int i = 0; i < NFILES; i++) {
		(void)snprintf(name, sizeof name, "file-%d", i);
		int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		check_sys(fd >= 0 && close(fd) == 0);
	}
	dir = fdopendir(dup(dirfd));
	check_sys(dir && count_entries(dir, 20) == 20);
	at = lseek(dirfd, 0, SEEK_CUR);
	for (unsigned i = 0; i < COUNT_OF(devices); i++) {
		dev[i] = open(devices[i],
			      (strcmp(devices[i], "/dev/full") ? O_RDONLY : O_RDWR) | O_CLOEXEC);
		check_sys(dev[i] >= 0);
	}
	opath = openat(dirfd, "file-7", O_PATH | O_CLOEXEC);
	opath_dir = open(victim_path("dir"), O_PATH | O_DIRECTORY);
	proc = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	check_sys(opath >= 0 && opath_dir >= 0 && proc >= 0);
	open_about_thread();
	path_ino = inode(opath);
	dir_ino = inode(opath_dir);
	shut = make_shut();
	victim_ready();
	while (victim_wait()) {
		check_position(dirfd, at);
		check(inode(dirfd) == dir_ino && inode(opath_dir) == dir_ino, "another directory");
		check(inode(opath) == path_ino, "O_PATH: another file");
		check(read(opath, buf, 1) == -1 && errno == EBADF, "O_PATH can be read");
		check(faccessat(opath_dir, "file-3", F_OK, 0) == 0, "O_PATH directory: %s",
		      strerror(errno));
		check((fcntl(opath, F_GETFL) & O_PATH) != 0, "no O_PATH any more");
		for (unsigned i = 0; i < COUNT_OF(devices); i++)
			check_device(devices[i], dev[i]);
		/* The rest of the entries, all of them once, then from the start. */
		int left = count_entries(dir, 1000);
		check(left == NFILES + 2 - 20, "%d entries left, should be %d", left,
		      NFILES + 2 - 20);
		rewinddir(dir);
		int again = count_entries(dir, 20);
		check(again == 20, "%d entries after rewinding, not 20", again);
		at = lseek(dirfd, 0, SEEK_CUR);
		check_about_thread();
		check(pread(proc, statm, sizeof statm, 0) > 0 && atol(statm) > 0,
		      "/proc/self/statm: %s", strerror(errno));
		for (int fd = 0; fd < 3; fd++)
			check(fcntl(fd, F_GETFD) >= 0, "descriptor %d: %s", fd, strerror(errno));
		check_shut(shut);
		victim_ok();
	}
	return 0;
}
