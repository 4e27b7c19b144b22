/* SPDX-License-Identifier: BSD-2-Clause */
/* Files with names and without: regular, deleted, memfd, directories, devices, locks, /proc. */
#include "harness.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void write_at(int fd, const char *s)
{
	CHECK_EQ(write(fd, s, strlen(s)), strlen(s));
}

static void put_file(const char *name, const char *s)
{
	int fd = open(in_dir(name), O_CREAT | O_WRONLY | O_TRUNC, 0644);

	CHECK(fd >= 0);
	write_at(fd, s);
	CHECK(close(fd) == 0);
}

static void expect_read(int fd, const char *s)
{
	char buf[256] = "";

	CHECK_EQ(read(fd, buf, strlen(s)), strlen(s));
	if (memcmp(buf, s, strlen(s)))
		fail(__FILE__, __LINE__, "read '%s', not '%s'", buf, s);
}

static int flags_of(int fd)
{
	return fcntl(fd, F_GETFL) & ~0100000;
}

/* --- regular ---------------------------------------------------------------------------------- */

static void regular_setup(void)
{
	put_file("in", "0123456789");
	move_fd(open(in_dir("in"), O_RDONLY | O_NOATIME), 10);
	CHECK_EQ(lseek(10, 3, SEEK_SET), 3);
	CHECK_EQ(dup3(10, 11, O_CLOEXEC), 11);
	move_fd(open(in_dir("in"), O_RDONLY), 12);
	move_fd(open(in_dir("out"), O_CREAT | O_EXCL | O_WRONLY | O_APPEND, 0600), 13);
	write_at(13, "line 1\n");
	move_fd(open(in_dir("both"), O_CREAT | O_TRUNC | O_RDWR | O_NONBLOCK, 0600), 14);
	write_at(14, "abcdef");
	CHECK_EQ(lseek(14, 100, SEEK_SET), 100);
}

static void regular_between(void)
{
	int fd = open(in_dir("out"), O_WRONLY | O_APPEND);

	write_at(fd, "written after the checkpoint\n");
	CHECK(close(fd) == 0);
}

static void regular_verify(void)
{
	struct stat st;

	expect_read(10, "3456");
	CHECK_EQ(lseek(11, 0, SEEK_CUR), 7);
	CHECK_EQ(lseek(12, 0, SEEK_CUR), 0);
	CHECK(shares_description(10, 11) && !shares_description(10, 12));
	CHECK_EQ(fcntl(10, F_GETFD), 0);
	CHECK_EQ(fcntl(11, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(flags_of(10), O_RDONLY | O_NOATIME);
	CHECK_EQ(flags_of(13), O_WRONLY | O_APPEND);
	CHECK_EQ(flags_of(14), O_RDWR | O_NONBLOCK);
	CHECK(stat(in_dir("out"), &st) == 0 && st.st_size == 7);
	write_at(13, "line 2\n");
	CHECK(stat(in_dir("out"), &st) == 0 && st.st_size == 14);
	CHECK_EQ(lseek(14, 0, SEEK_CUR), 100);
	CHECK(fcntl(15, F_GETFD) < 0 && fcntl(3, F_GETFD) < 0 && fcntl(300, F_GETFD) < 0);
	CHECK(fcntl(2, F_GETFD) == 0);
}

static void output_setup(void)
{
	put_file("out", "0123456789");
	move_fd(open(in_dir("out"), O_RDWR), 10);
}

static void input_setup(void)
{
	put_file("in", "0123456789");
	move_fd(open(in_dir("in"), O_RDONLY), 10);
}

static void shrink(void)
{
	CHECK(truncate(in_dir("out"), 4) == 0);
}

static void replace(void)
{
	put_file("new", "0123456789");
	CHECK(rename(in_dir("new"), in_dir("out")) == 0);
}

static void cut_input(void)
{
	CHECK(truncate(in_dir("in"), 9) == 0);
}

static void vanish(void)
{
	CHECK(unlink(in_dir("in")) == 0);
}

static void become_directory(void)
{
	CHECK(unlink(in_dir("in")) == 0 && mkdir(in_dir("in"), 0700) == 0);
}

/* A reader of a file that the job itself writes: its size is the writer's business. */
static void tail_setup(void)
{
	output_setup();
	move_fd(open(in_dir("out"), O_RDONLY), 11);
}

static void tail_between(void)
{
	CHECK(truncate(in_dir("out"), 50) == 0);
}

static void tail_verify(void)
{
	struct stat st;

	CHECK(fstat(11, &st) == 0 && st.st_size == 10);
	expect_read(11, "0123456789");
}

static void closed_setup(void)
{
	CHECK(close(0) == 0);
	move_fd(open(in_dir("out"), O_CREAT | O_WRONLY, 0600), 1);
	write_at(1, "x");
}

static void closed_verify(void)
{
	CHECK(fcntl(0, F_GETFD) < 0);
	CHECK_EQ(lseek(1, 0, SEEK_CUR), 1);
	CHECK_EQ(flags_of(1), O_WRONLY);
}

/* --- without a name --------------------------------------------------------------------------- */

static void deleted_setup(void)
{
	move_fd(open(in_dir("gone"), O_CREAT | O_RDWR, 0640), 10);
	move_fd(open(in_dir("gone"), O_RDONLY), 11);
	write_at(10, "head");
	CHECK_EQ(pwrite(10, "tail", 4, 1 << 20), 4);
	CHECK(unlink(in_dir("gone")) == 0);
	move_fd(open(test_dir, O_TMPFILE | O_WRONLY, 0600), 12);
	write_at(12, "unnamed");
	move_fd(open(in_dir("locked"), O_CREAT | O_RDWR, 0600), 13);
	CHECK(unlink(in_dir("locked")) == 0 && fchmod(13, 0) == 0);
}

static void deleted_verify(void)
{
	struct stat st, other;
	char buf[8];

	CHECK(fstat(10, &st) == 0 && st.st_size == (1 << 20) + 4 && (st.st_mode & 07777) == 0640 &&
	      st.st_nlink == 0);
	CHECK(st.st_blocks * 512 < 1 << 20);
	CHECK(fstat(11, &other) == 0 && other.st_ino == st.st_ino && !shares_description(10, 11));
	CHECK_EQ(lseek(10, 0, SEEK_CUR), 4);
	expect_read(11, "head");
	CHECK(pread(10, buf, 4, 1 << 20) == 4 && !memcmp(buf, "tail", 4));
	CHECK_EQ(flags_of(10), O_RDWR);
	CHECK_EQ(flags_of(11), O_RDONLY);
	CHECK_EQ(flags_of(12), O_WRONLY);
	CHECK(fstat(12, &st) == 0 && st.st_size == 7 && st.st_nlink == 0);
	CHECK_EQ(lseek(12, 0, SEEK_CUR), 7);
	CHECK(fstat(13, &st) == 0 && (st.st_mode & 07777) == 0);
}

static void linked_setup(void)
{
	char path[32];

	put_file("a", "content");
	move_fd(open(in_dir("a"), O_RDWR), 10);
	CHECK(link(in_dir("a"), in_dir("b")) == 0 && unlink(in_dir("a")) == 0);
	move_fd(open(test_dir, O_TMPFILE | O_RDWR, 0600), 11);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", 11);
	CHECK(linkat(AT_FDCWD, path, AT_FDCWD, in_dir("named"), AT_SYMLINK_FOLLOW) == 0);
}

static void linked_verify(void)
{
	struct stat st, named;

	CHECK(fstat(10, &st) == 0 && stat(in_dir("b"), &named) == 0 && st.st_ino == named.st_ino);
	CHECK(fstat(11, &st) == 0 && stat(in_dir("named"), &named) == 0 &&
	      st.st_ino == named.st_ino);
	CHECK_EQ(flags_of(11), O_RDWR);
}

static void odd_name_setup(void)
{
	put_file("x (deleted)", "odd");
	move_fd(open(in_dir("x (deleted)"), O_RDONLY), 10);
}

static void odd_name_verify(void)
{
	expect_read(10, "odd");
	CHECK_EQ(access(in_dir("x (deleted)"), F_OK), 0);
}

static void memfd_setup(void)
{
	char path[32];

	move_fd(memfd_create("my memory", MFD_ALLOW_SEALING), 10);
	CHECK_EQ(pwrite(10, "hello", 5, 8192), 5);
	CHECK(fchmod(10, 0600) == 0);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", 10);
	move_fd(open(path, O_RDONLY), 11);
	CHECK(fcntl(10, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE) == 0);
	move_fd(memfd_create("plain", 0), 12);
}

/* As when it is mapped beyond its end: the space then covers the mapping. */
static void memfd_between(void)
{
	CHECK_EQ(last_tree->spaces[0].size, 8197);
	last_tree->spaces[0].size = 16384;
}

static void memfd_verify(void)
{
	char link[64] = "", buf[8];
	struct stat a, b;

	CHECK(readlink("/proc/self/fd/10", link, sizeof link - 1) > 0);
	if (strcmp(link, "/memfd:my memory (deleted)"))
		fail(__FILE__, __LINE__, "memfd is called '%s'", link);
	CHECK(fstat(10, &a) == 0 && fstat(11, &b) == 0 && a.st_ino == b.st_ino &&
	      a.st_size == 8197);
	CHECK_EQ(a.st_mode & 07777, 0600);
	CHECK_EQ(fcntl(10, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_WRITE);
	CHECK_EQ(fcntl(12, F_GET_SEALS), F_SEAL_SEAL);
	CHECK(pread(11, buf, 5, 8192) == 5 && !memcmp(buf, "hello", 5));
	CHECK(write(10, "x", 1) < 0 && errno == EPERM);
	CHECK_EQ(flags_of(11), O_RDONLY);
}

/* --- other things with names ------------------------------------------------------------------ */

static void named_setup(void)
{
	char name[16];

	CHECK(mkdir(in_dir("d"), 0700) == 0);
	for (int i = 0; i < 20; i++) {
		(void)snprintf(name, sizeof name, "d/%d", i);
		put_file(name, "");
	}
	CHECK(symlink("d", in_dir("link")) == 0);
	move_fd(open(in_dir("d"), O_RDONLY | O_DIRECTORY), 10);
	move_fd(open(in_dir("d"), O_PATH), 11);
	move_fd(open(in_dir("link"), O_PATH | O_NOFOLLOW), 12);
	move_fd(open("/dev/zero", O_RDONLY), 13);
	move_fd(open("/dev/full", O_WRONLY), 14);
	move_fd(open("/dev/urandom", O_RDONLY | O_CLOEXEC), 15);
	move_fd(open("/proc/self/status", O_RDONLY), 16);
	move_fd(open("/proc/meminfo", O_RDONLY), 17);
	CHECK_EQ(lseek(17, 10, SEEK_SET), 10);
}

static void named_verify(void)
{
	char buf[4096] = "", mine[32];
	struct stat st;
	DIR *d;
	int n = 0;

	d = fdopendir(dup(10));
	while (d && readdir(d))
		n++;
	CHECK_EQ(n, 22);
	CHECK_EQ(fcntl(11, F_GETFL) & O_PATH, O_PATH);
	CHECK(fstat(11, &st) == 0 && S_ISDIR(st.st_mode));
	CHECK(fstat(12, &st) == 0 && S_ISLNK(st.st_mode));
	CHECK(read(13, buf, 1) == 1 && buf[0] == 0);
	CHECK(write(14, "x", 1) < 0 && errno == ENOSPC);
	CHECK_EQ(read(15, buf, 8), 8);
	CHECK_EQ(fcntl(15, F_GETFD), FD_CLOEXEC);
	CHECK(read(16, buf, sizeof buf - 1) > 0);
	(void)snprintf(mine, sizeof mine, "\nPid:\t%d\n", getpid());
	CHECK(strstr(buf, mine));
	CHECK_EQ(lseek(17, 0, SEEK_CUR), 10);
}

/* Half a directory was read: the rest is read on, nothing twice. */
static void directory_setup(void)
{
	char name[32], buf[1024];

	for (int i = 0; i < 200; i++) {
		(void)snprintf(name, sizeof name, "a-rather-long-name-%d", i);
		put_file(name, "");
	}
	move_fd(open(test_dir, O_RDONLY | O_DIRECTORY), 10);
	CHECK(getdents64(10, buf, sizeof buf) > 0);
	CHECK(lseek(10, 0, SEEK_CUR) > 0);
}

static void directory_verify(void)
{
	DIR *rest = fdopendir(dup(10)), *all = opendir(test_dir);
	int n_rest = 0, n_all = 0;
	long at = lseek(10, 0, SEEK_CUR);

	CHECK(rest && all && at > 0);
	while (readdir(rest))
		n_rest++;
	while (readdir(all))
		n_all++;
	CHECK_EQ(n_all, 202);
	CHECK(n_rest > 100 && n_rest < 202);
}

/* The whole directory was read: the end stays the end, and the beginning can be gone back to. */
static void directory_end_setup(void)
{
	char buf[4096];

	put_file("a", "");
	put_file("b", "");
	move_fd(open(test_dir, O_RDONLY | O_DIRECTORY), 10);
	while (getdents64(10, buf, sizeof buf) > 0)
		;
}

static void directory_end_verify(void)
{
	char buf[4096];

	CHECK_EQ(getdents64(10, buf, sizeof buf), 0);
	CHECK_EQ(lseek(10, 0, SEEK_SET), 0);
	CHECK(getdents64(10, buf, sizeof buf) >= 4 * 24);
}

/* --- locks ------------------------------------------------------------------------------------ */

static void locks_setup(void)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 20 };

	put_file("flock", "");
	put_file("ofd", "");
	put_file("posix", "");
	move_fd(open(in_dir("flock"), O_RDONLY), 10);
	CHECK(flock(10, LOCK_EX) == 0);
	CHECK(dup2(10, 20) == 20);
	move_fd(open(in_dir("ofd"), O_RDWR), 11);
	CHECK(fcntl(11, F_OFD_SETLK, &fl) == 0);
	fl.l_pid = 0;
	move_fd(open(in_dir("posix"), O_RDWR), 12);
	CHECK(fcntl(12, F_SETLK, &fl) == 0);
	fl = (struct flock){ .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100 };
	CHECK(fcntl(12, F_SETLK, &fl) == 0);
	CHECK(dup2(12, 21) == 21);
}

static void expect_lock(const char *name, int cmd, off_t start, off_t len, short type)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start };
	int fd = open(in_dir(name), O_RDWR);

	CHECK(fd >= 0 && fcntl(fd, cmd, &fl) == 0);
	CHECK_EQ(fl.l_type, type);
	CHECK_EQ(fl.l_start, start);
	CHECK_EQ(fl.l_len, len);
}

static void locks_verify(void)
{
	int fd = open(in_dir("flock"), O_RDONLY);
	pid_t pid;

	CHECK(flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	expect_lock("ofd", F_OFD_GETLK, 10, 20, F_WRLCK);
	/* one's own POSIX locks can only be seen by another process */
	pid = fork();
	if (pid == 0) {
		expect_lock("posix", F_GETLK, 10, 20, F_WRLCK);
		expect_lock("posix", F_GETLK, 100, 0, F_RDLCK);
		_exit(0);
	}
	CHECK(pid > 0);
	while (waitpid(pid, &fd, 0) != pid)
		;
	CHECK_EQ(fd, 0);
}

static const struct test tests[] = {
	{ "regular files", regular_setup, regular_between, regular_verify },
	{ "closed standard input, output to a file", closed_setup, NULL, closed_verify },
	{ "output shorter", output_setup, shrink, NULL,
	  "is shorter than at the checkpoint (4 < 10 bytes)", true },
	{ "output replaced", output_setup, replace, NULL, "was replaced since", true },
	{ "input cut", input_setup, cut_input, NULL, "has changed since the checkpoint", true },
	{ "input gone", input_setup, vanish, NULL, "fd 10: cannot find '", true, -ENOENT },
	{ "input became a directory", input_setup, become_directory, NULL,
	  "is not a regular file any more", true },
	{ "input that the job writes", tail_setup, tail_between, tail_verify },
	{ "deleted files", deleted_setup, NULL, deleted_verify },
	{ "deleted names of files with others", linked_setup, NULL, linked_verify },
	{ "a name that ends in (deleted)", odd_name_setup, NULL, odd_name_verify },
	{ "memfd", memfd_setup, memfd_between, memfd_verify },
	{ "directory, O_PATH, devices, /proc", named_setup, NULL, named_verify },
	{ "directory half read", directory_setup, NULL, directory_verify },
	{ "directory read to its end", directory_end_setup, NULL, directory_end_verify },
	{ "locks", locks_setup, NULL, locks_verify },
};

int main(void)
{
	return run_tests(tests, ARRAY_SIZE(tests));
}
