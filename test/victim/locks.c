/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: flock, POSIX and OFD locks, held by the right description and range, seen by an outsider.
 */
#include "victim.h"

#include <sys/file.h>
#include <sys/wait.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

static int flocked, flocked_dup, shared, posix, ofd;

static int must_open(const char *suffix)
{
	int fd = open(victim_path(suffix), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	check_sys(fd >= 0);
	return fd;
}

static void set_lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	check_sys(fcntl(fd, cmd, &l) == 0);
}

/* What a lock of this kind meets there: the type in the way, or F_UNLCK. */
static short in_the_way(int fd, int cmd, short type, off_t start)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };

	if (fcntl(fd, cmd, &l) != 0)
		return -1;
	return l.l_type;
}

/* Exit status of the child: the number of what it found wrong. A child owns none of our POSIX
 * locks. */
static int outsider(void)
{
	int fd = must_open("posix"), o = must_open("ofd"), f = must_open("flock"),
	    s = must_open("shared");

	if (in_the_way(fd, F_GETLK, F_WRLCK, 50) != F_UNLCK)
		return 1;
	if (in_the_way(fd, F_GETLK, F_RDLCK, 150) != F_WRLCK)
		return 2;
	if (in_the_way(fd, F_GETLK, F_WRLCK, 350) != F_RDLCK)
		return 3;
	if (in_the_way(fd, F_GETLK, F_RDLCK, 350) != F_UNLCK)
		return 4;
	if (in_the_way(fd, F_GETLK, F_WRLCK, 1000000) != F_WRLCK)
		return 5;
	if (in_the_way(o, F_GETLK, F_WRLCK, 10) != F_WRLCK)
		return 6;
	if (in_the_way(o, F_GETLK, F_WRLCK, 100) != F_UNLCK)
		return 7;
	if (flock(f, LOCK_EX | LOCK_NB) == 0 || flock(f, LOCK_SH | LOCK_NB) == 0)
		return 8;
	if (flock(s, LOCK_EX | LOCK_NB) == 0)
		return 9;
	if (flock(s, LOCK_SH | LOCK_NB) != 0)
		return 10;
	return 0;
}

static void ask_outsider(void)
{
	int status;
	pid_t pid = fork();

	check_sys(pid >= 0);
	if (pid == 0)
		_exit(outsider());
	check_sys(waitpid(pid, &status, 0) == pid);
	check(status == 0, "an outsider finds lock %d not as it was (status %x)",
	      WEXITSTATUS(status), status);
}

int main(int argc, char **argv)
{
	int other;

	victim_init(argc, argv);
	flocked = must_open("flock");
	flocked_dup = dup(flocked);
	shared = must_open("shared");
	posix = must_open("posix");
	ofd = must_open("ofd");
	check_sys(flock(flocked, LOCK_EX) == 0 && flock(shared, LOCK_SH) == 0);
	set_lock(posix, F_SETLK, F_WRLCK, 100, 100);
	set_lock(posix, F_SETLK, F_RDLCK, 300, 100);
	set_lock(posix, F_SETLK, F_WRLCK, 5000, 0);
	set_lock(ofd, F_OFD_SETLK, F_WRLCK, 0, 50);
	victim_ready();
	while (victim_wait()) {
		ask_outsider();
		/* The flock belongs to the description: through the dup it can be changed, from
		 * afar not. */
		other = must_open("flock");
		check(flock(other, LOCK_EX | LOCK_NB) == -1, "the flock does not hold");
		check_sys(flock(flocked_dup, LOCK_SH) == 0 && flock(other, LOCK_SH | LOCK_NB) == 0);
		check_sys(close(other) == 0);
		check_sys(flock(flocked, LOCK_EX) == 0);
		ask_outsider();
		victim_ok();
	}
	return 0;
}
