/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What system calls may touch of their caller's memory: the ones that programs make all the time,
 * with arguments that are easily followed. A call that is not listed is one of which nothing is
 * known, and that is always a correct answer; to say too much of memory is as harmless.
 */
#include "restore/calls.h"

#include "util/cleanup.h"

#include <asm/ioctls.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define PATH_BYTES  4096
#define FRAME_BYTES (64u << 10) /* more than any signal frame, AMX state included */
#define MAX_BYTES   ((uint64_t)1 << 47)
/* Of a process: fs.nr_open is no larger than this (sysctl_nr_open_max). */
#define MAX_DESCRIPTORS ((uint64_t)1 << 31)

/* Bytes at the pointer arg: size, times argument `count` if that is not NONE. */
struct touch {
	int8_t arg, count;
	uint16_t size;
};
#define NONE (-1)
/* clang-format off */
#define BYTES(a, n)    { a, NONE, n }
#define ARRAY(a, c, n) { a, c, n }
#define PATH(a)        { a, NONE, PATH_BYTES }
#define NOTHING        { NONE, NONE, 0 }

static const struct row {
	uint16_t nr;
	struct touch touches[3];
} table[] = {
	{ SYS_read, { ARRAY(1, 2, 1), NOTHING } },
	{ SYS_write, { ARRAY(1, 2, 1), NOTHING } },
	{ SYS_pread64, { ARRAY(1, 2, 1), NOTHING } },
	{ SYS_pwrite64, { ARRAY(1, 2, 1), NOTHING } },
	{ SYS_open, { PATH(0), NOTHING } },
	{ SYS_openat, { PATH(1), NOTHING } },
	{ SYS_close, { NOTHING } },
	{ SYS_stat, { PATH(0), BYTES(1, 256), NOTHING } },
	{ SYS_lstat, { PATH(0), BYTES(1, 256), NOTHING } },
	{ SYS_fstat, { BYTES(1, 256), NOTHING } },
	{ SYS_newfstatat, { PATH(1), BYTES(2, 256), NOTHING } },
	{ SYS_statx, { PATH(1), BYTES(4, 256), NOTHING } },
	{ SYS_access, { PATH(0), NOTHING } },
	{ SYS_faccessat, { PATH(1), NOTHING } },
	{ SYS_readlink, { PATH(0), ARRAY(1, 2, 1), NOTHING } },
	{ SYS_readlinkat, { PATH(1), ARRAY(2, 3, 1), NOTHING } },
	{ SYS_getdents64, { ARRAY(1, 2, 1), NOTHING } },
	{ SYS_getcwd, { ARRAY(0, 1, 1), NOTHING } },
	{ SYS_lseek, { NOTHING } },
	{ SYS_ftruncate, { NOTHING } },
	{ SYS_fsync, { NOTHING } },
	{ SYS_fdatasync, { NOTHING } },
	{ SYS_dup, { NOTHING } },
	{ SYS_dup2, { NOTHING } },
	{ SYS_dup3, { NOTHING } },
	{ SYS_fcntl, { BYTES(2, 64), NOTHING } },
	{ SYS_flock, { NOTHING } },
	{ SYS_pipe, { BYTES(0, 8), NOTHING } },
	{ SYS_pipe2, { BYTES(0, 8), NOTHING } },
	{ SYS_eventfd2, { NOTHING } },
	{ SYS_unlink, { PATH(0), NOTHING } },
	{ SYS_rename, { PATH(0), PATH(1), NOTHING } },
	{ SYS_poll, { ARRAY(0, 1, 8), NOTHING } },
	{ SYS_ppoll, { ARRAY(0, 1, 8), BYTES(2, 16), BYTES(3, 8) } },
	{ SYS_epoll_wait, { ARRAY(1, 2, 16), NOTHING } },
	{ SYS_epoll_pwait, { ARRAY(1, 2, 16), BYTES(4, 8), NOTHING } },
	{ SYS_epoll_pwait2, { ARRAY(1, 2, 16), BYTES(3, 16), BYTES(4, 8) } },
	{ SYS_epoll_ctl, { BYTES(3, 16), NOTHING } },
	{ SYS_socket, { NOTHING } },
	{ SYS_bind, { ARRAY(1, 2, 1), NOTHING } },
	{ SYS_connect, { ARRAY(1, 2, 1), NOTHING } },
	{ SYS_listen, { NOTHING } },
	{ SYS_accept, { BYTES(1, 128), BYTES(2, 4), NOTHING } },
	{ SYS_accept4, { BYTES(1, 128), BYTES(2, 4), NOTHING } },
	{ SYS_getsockname, { BYTES(1, 128), BYTES(2, 4), NOTHING } },
	{ SYS_getpeername, { BYTES(1, 128), BYTES(2, 4), NOTHING } },
	{ SYS_shutdown, { NOTHING } },
	{ SYS_sendto, { ARRAY(1, 2, 1), BYTES(4, 128), NOTHING } },
	{ SYS_recvfrom, { ARRAY(1, 2, 1), BYTES(4, 128), BYTES(5, 4) } },
	{ SYS_nanosleep, { BYTES(0, 16), BYTES(1, 16), NOTHING } },
	{ SYS_clock_nanosleep, { BYTES(2, 16), BYTES(3, 16), NOTHING } },
	{ SYS_clock_gettime, { BYTES(1, 16), NOTHING } },
	{ SYS_clock_getres, { BYTES(1, 16), NOTHING } },
	{ SYS_gettimeofday, { BYTES(0, 16), BYTES(1, 8), NOTHING } },
	{ SYS_time, { BYTES(0, 8), NOTHING } },
	{ SYS_times, { BYTES(0, 32), NOTHING } },
	{ SYS_restart_syscall, { NOTHING } },
	{ SYS_pause, { NOTHING } },
	{ SYS_sched_yield, { NOTHING } },
	{ SYS_getpid, { NOTHING } },
	{ SYS_gettid, { NOTHING } },
	{ SYS_getppid, { NOTHING } },
	{ SYS_getuid, { NOTHING } },
	{ SYS_geteuid, { NOTHING } },
	{ SYS_getgid, { NOTHING } },
	{ SYS_getegid, { NOTHING } },
	{ SYS_getpgrp, { NOTHING } },
	{ SYS_getpgid, { NOTHING } },
	{ SYS_getsid, { NOTHING } },
	{ SYS_kill, { NOTHING } },
	{ SYS_tgkill, { NOTHING } },
	{ SYS_rt_sigprocmask, { BYTES(1, 8), BYTES(2, 8), NOTHING } },
	{ SYS_rt_sigaction, { BYTES(1, 64), BYTES(2, 64), NOTHING } },
	{ SYS_rt_sigpending, { BYTES(0, 8), NOTHING } },
	{ SYS_rt_sigsuspend, { BYTES(0, 8), NOTHING } },
	{ SYS_rt_sigtimedwait, { BYTES(0, 8), BYTES(1, 128), BYTES(2, 16) } },
	{ SYS_getitimer, { BYTES(1, 32), NOTHING } },
	{ SYS_setitimer, { BYTES(1, 32), BYTES(2, 32), NOTHING } },
	{ SYS_alarm, { NOTHING } },
	{ SYS_timerfd_settime, { BYTES(2, 32), BYTES(3, 32), NOTHING } },
	{ SYS_timerfd_gettime, { BYTES(1, 32), NOTHING } },
	{ SYS_getrusage, { BYTES(1, 256), NOTHING } },
	{ SYS_uname, { BYTES(0, 512), NOTHING } },
	{ SYS_sysinfo, { BYTES(0, 256), NOTHING } },
	{ SYS_getrandom, { ARRAY(0, 1, 1), NOTHING } },
	{ SYS_sched_getaffinity, { ARRAY(2, 1, 1), NOTHING } },
	{ SYS_wait4, { BYTES(1, 4), BYTES(3, 256), NOTHING } },
	{ SYS_waitid, { BYTES(2, 128), BYTES(4, 256), NOTHING } },
	/* a mapping's protection has no say in how it is filled */
	{ SYS_mprotect, { NOTHING } },
	/* the third and fourth are only sometimes pointers, and no addresses of memory otherwise */
	{ SYS_futex, { BYTES(0, 4), BYTES(3, 16), BYTES(4, 4) } },
};
/* clang-format on */

static void add(struct call_memory *m, uint64_t start, uint64_t bytes)
{
	bytes = MIN(bytes, MAX_BYTES);
	if (start && bytes && start < MAX_BYTES)
		m->touches[m->n++] = (struct range){ start, start + bytes };
}

static bool from_table(const struct call *c, struct call_memory *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (table[i].nr != c->nr)
			continue;
		for (size_t j = 0; j < ARRAY_SIZE(table[i].touches); j++) {
			const struct touch *t = &table[i].touches[j];
			uint64_t count;

			if (!t->size)
				break;
			count = t->count == NONE ? 1 : MIN(c->arg[t->count], MAX_BYTES);
			add(m, c->arg[t->arg], count * t->size);
		}
		return true;
	}
	return false;
}

/* select: three sets of bits for arg[0] descriptors, and how long. */
static void add_sets(const struct call *c, struct call_memory *m)
{
	uint64_t n = MIN(c->arg[0], MAX_DESCRIPTORS);

	for (unsigned i = 1; i <= 3; i++)
		add(m, c->arg[i], (n + 63) / 64 * 8);
	add(m, c->arg[4], 16);
}

static struct range span(uint64_t start, uint64_t bytes)
{
	uint64_t end = start + MIN(bytes, MAX_BYTES);

	return (struct range){ start & ~(uint64_t)(CKPT_PAGE_SIZE - 1),
			       (end + CKPT_PAGE_SIZE - 1) & ~(uint64_t)(CKPT_PAGE_SIZE - 1) };
}

static bool is_simple_ioctl(uint64_t cmd)
{
	return cmd == TCGETS || cmd == TIOCGWINSZ || cmd == TIOCGPGRP || cmd == FIONREAD ||
	       cmd == FIONBIO || cmd == FIOCLEX || cmd == FIONCLEX;
}

/* Options whose value is no pointer to more, and no longer than is said. */
static bool is_simple_option(const struct call *c)
{
	switch (c->arg[1]) {
	case SOL_SOCKET: /* filters are counted in instructions, and lead to them */
		return c->arg[2] != SO_ATTACH_FILTER && c->arg[2] != SO_ATTACH_REUSEPORT_CBPF;
	case IPPROTO_TCP:
		return c->arg[2] != TCP_ZEROCOPY_RECEIVE;
	default:
		return false;
	}
}

static bool at_option(const struct call *c, struct call_memory *m)
{
	if (!is_simple_option(c))
		return false;
	if (c->nr == SYS_setsockopt) {
		add(m, c->arg[3], c->arg[4]);
		return true;
	}
	add(m, c->arg[4], 4);
	m->value = c->arg[3];
	m->value_len = c->arg[4];
	return true;
}

bool call_memory(const struct call *c, struct call_memory *ret)
{
	memset(ret, 0, sizeof *ret);
	switch ((long)c->nr) {
	case SYS_readv:
	case SYS_writev:
	case SYS_preadv:
	case SYS_pwritev:
	case SYS_preadv2:
	case SYS_pwritev2:
		ret->iovecs = (struct range){ c->arg[1], c->arg[1] + MIN(c->arg[2], 1024u) * 16 };
		return true;
	case SYS_pselect6: /* its last argument leads to a set of signals and that one's size */
		ret->iovecs = (struct range){ c->arg[5], c->arg[5] ? c->arg[5] + 16 : 0 };
		add_sets(c, ret);
		return true;
	case SYS_select:
		add_sets(c, ret);
		return true;
	case SYS_sendmsg:
	case SYS_recvmsg:
		ret->msghdr = c->arg[1];
		return true;
	case SYS_getsockopt:
	case SYS_setsockopt:
		return at_option(c, ret);
	/* what the kernel writes to then is there (ends.c); of a leader that has ended nobody could
	 * read the memory any more */
	case SYS_exit_group:
		return true;
	case SYS_exit:
		return !c->leader;
	case SYS_ioctl:
		if (!is_simple_ioctl(c->arg[1]))
			return false;
		add(ret, c->arg[2], 64);
		return true;
	case SYS_rt_sigreturn:
		add(ret, c->sp - 64, FRAME_BYTES);
		return true;
	case SYS_brk:
		return c->arg[0] == 0 || c->arg[0] >= c->brk;
	case SYS_mmap:
		if (c->arg[3] & MAP_FIXED)
			ret->changes = span(c->arg[0], c->arg[1]);
		return !(c->arg[3] & MAP_GROWSDOWN);
	case SYS_munmap:
	case SYS_madvise:
		ret->changes = span(c->arg[0], c->arg[1]);
		return true;
	case SYS_mremap:
		ret->changes = span(c->arg[0], c->arg[1]);
		if (c->arg[3] & MREMAP_FIXED)
			ret->changes_too = span(c->arg[4], c->arg[2]);
		return true;
	default:
		return from_table(c, ret);
	}
}
