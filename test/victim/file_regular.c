/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: regular files: offsets, status flags, O_APPEND, O_CLOEXEC; dup'ed and separately opened
 * ones. */
#include "victim.h"

static int open_data(int flags)
{
	int fd = open(victim_path("data"), flags, 0600);

	check_sys(fd >= 0);
	return fd;
}

static void check_flags(int fd, int want_status, int want_fd)
{
	int status = fcntl(fd, F_GETFL), cloexec = fcntl(fd, F_GETFD);

	check(status >= 0 && cloexec >= 0, "descriptor %d is gone: %s", fd, strerror(errno));
	check((status & ~O_LARGEFILE & ~0100000) == want_status,
	      "descriptor %d: F_GETFL %o, was %o", fd, status, want_status);
	check(cloexec == want_fd, "descriptor %d: FD_CLOEXEC %d, was %d", fd, cloexec, want_fd);
}

int main(int argc, char **argv)
{
	int rw, dup_rw, apart, append, rdonly, high, nonblock;
	off_t pos = 1000, apart_pos = 5;
	off_t log_size = 0;
	char buf[100];

	victim_init(argc, argv);
	rw = open_data(O_RDWR | O_CREAT | O_TRUNC);
	for (unsigned i = 0; i < 10000; i++)
		check_sys(dprintf(rw, "%07u\n", i) == 8);
	apart = open_data(O_RDONLY | O_CLOEXEC);
	append =
		open(victim_path("log"), O_WRONLY | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	rdonly = open_data(O_RDONLY | O_NOATIME);
	nonblock = open_data(O_RDWR | O_NONBLOCK | O_DSYNC);
	dup_rw = dup(rw);
	high = fcntl(rw, F_DUPFD_CLOEXEC, 700);
	check_sys(append >= 0 && dup_rw >= 0 && high == 700);
	check_sys(lseek(rw, pos, SEEK_SET) == pos &&
		  lseek(apart, apart_pos, SEEK_SET) == apart_pos);
	victim_ready();
	while (victim_wait()) {
		check_flags(rw, O_RDWR, 0);
		check_flags(dup_rw, O_RDWR, 0);
		check_flags(high, O_RDWR, FD_CLOEXEC);
		check_flags(apart, O_RDONLY, FD_CLOEXEC);
		check_flags(append, O_WRONLY | O_APPEND, FD_CLOEXEC);
		check_flags(rdonly, O_RDONLY | O_NOATIME, 0);
		check_flags(nonblock, O_RDWR | O_NONBLOCK | O_DSYNC, 0);
		check(fcntl(high + 1, F_GETFD) == -1, "descriptor %d has appeared", high + 1);
		/* What one of the three moves moves all three, and not the fourth. */
		check(lseek(rw, 0, SEEK_CUR) == pos, "offset %ld, was %ld",
		      (long)lseek(rw, 0, SEEK_CUR), (long)pos);
		check_sys(read(dup_rw, buf, 8) == 8);
		check(atol(buf) == pos / 8, "read %ld at %ld", atol(buf), (long)pos);
		pos += 8;
		check(lseek(high, 0, SEEK_CUR) == pos,
		      "dup'ed descriptors no longer share their offset");
		check(lseek(apart, 0, SEEK_CUR) == apart_pos, "a separately opened one shares it");
		check_sys(read(apart, buf, 1) == 1);
		apart_pos++;
		check(lseek(append, 0, SEEK_CUR) == log_size, "offset of the log: %ld, was %ld",
		      (long)lseek(append, 0, SEEK_CUR), (long)log_size);
		check_sys(lseek(append, 0, SEEK_SET) == 0);
		check_sys(write(append, "more\n", 5) == 5);
		log_size += 5;
		check(lseek(append, 0, SEEK_CUR) == log_size,
		      "the log has %ld bytes, should have %ld (cut back at a restart)",
		      (long)lseek(append, 0, SEEK_CUR), (long)log_size);
		check_sys(pwrite(nonblock, "q", 1, 79999) == 1);
		victim_ok();
	}
	return 0;
}
