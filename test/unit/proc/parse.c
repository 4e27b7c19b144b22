/* SPDX-License-Identifier: BSD-2-Clause */
/* The parsers on captured text (test/data/proc, from Linux 6.18) and on what is not well-formed. */
#include "../check.h"

#include "proc/proc.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>

static struct err err;
static struct arena *arena;
static const char *data_dir;

/* A file of test/data/proc; lives in the arena. */
static char *load(const char *name)
{
	char path[512], *text, *copy;

	(void)snprintf(path, sizeof path, "%s/%s", data_dir, name);
	CHECK_INT(io_read_file(AT_FDCWD, path, &text, NULL), 0);
	copy = arena_strdup(arena, text);
	free(text);
	return copy;
}

static char *copy_of(const char *text)
{
	return arena_strdup(arena, text);
}

static void test_status(void)
{
	struct proc_status s;

	CHECK_OK(proc_status_parse(load("status"), arena, &s, &err));
	CHECK_STR(s.name, "a b) R\n\\c");
	CHECK_INT(s.state, 'S');
	CHECK_INT(s.tgid, 1323);
	CHECK_INT(s.pid, 1323);
	CHECK_INT(s.ppid, 1295);
	CHECK_INT(s.tracer, 0);
	CHECK_INT(s.ns_pgid, 1295);
	CHECK_INT(s.ns_depth, 1);
	CHECK_INT(s.umask, 022);
	CHECK_INT(s.threads, 1);
	CHECK_INT(s.n_groups, 0);
	CHECK_INT(s.cap_eff, 0x1fffeffffffll);
	CHECK_INT(s.thp_enabled, 1);
	CHECK(s.has_vm);
}

static void test_status_namespaces(void)
{
	struct proc_status s;

	CHECK_OK(proc_status_parse(load("status-namespace"), arena, &s, &err));
	CHECK_INT(s.pid, 4711);
	CHECK_INT(s.tgid, 4710);
	CHECK_INT(s.ns_depth, 3);
	CHECK_INT(s.ns_tgid, 7);
	CHECK_INT(s.ns_pid, 8);
	CHECK_INT(s.ns_pgid, 0);
	CHECK_INT(s.ns_sid, 0);
	CHECK_INT(s.uid[0], 1000);
	CHECK_INT(s.uid[1], 1001);
	CHECK_INT(s.uid[2], 1002);
	CHECK_INT(s.uid[3], 4294967294u);
	CHECK_INT(s.gid[3], 103);
	CHECK_INT(s.n_groups, 3);
	CHECK_INT(s.groups[2].id, 65534);
	CHECK_INT(s.sig_blocked, (long long)0xfffffffe7ffbfeffull);
	CHECK_INT(s.sig_caught, 0x180000000ll);
	CHECK_INT(s.seccomp, 2);
	CHECK_INT(s.no_new_privs, 1);
	CHECK_INT(s.thp_enabled, 1);
	CHECK(!s.has_vm);
	CHECK_INT(s.state, 'Z');
}

static void test_status_bad(void)
{
	static const char *const bad[] = {
		"",
		"Name:\tx\n",
		"Name:\tx\nState:\tS (sleeping)\nTgid:\t1\nPid:\tx\n",
		"Name:\tx\nState:\tS (sleeping)\nTgid:\t99999999999\nPid:\t1\n",
		"Name:\tx\nState:\tS (sleeping)\nTgid:\t1\nPid:\t1\nUid:\t1\t2\t3\n",
		"Name:\tx\nState:\tS (sleeping)\nTgid:\t1\nPid:\t1\nGroups:\t1 x\n",
		"Name:\tx\nState:\tS (sleeping)\nTgid:\t1\nPid:\t1\nSigBlk:\t10000000000000000\n",
	};
	struct proc_status s;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err_clear(&err);
		CHECK_INT(proc_status_parse(copy_of(bad[i]), arena, &s, &err), -EBADMSG);
		CHECK(err.msg[0]);
	}
}

static void test_stat(void)
{
	struct proc_stat s;

	CHECK_OK(proc_stat_parse(load("stat"), &s, &err));
	CHECK_INT(s.state, 'S'); /* not the R in the name */
	CHECK_INT(s.ppid, 1295);
	CHECK_INT(s.pgrp, 1295);
	CHECK_INT(s.session, 4321);
	CHECK_INT(s.tpgid, -1);
	CHECK_INT(s.nice, 0);
	CHECK_INT(s.exit_signal, 17);
	CHECK_INT(s.start_time, 249901);
	CHECK_INT(s.start_code, 94756578758656);
	CHECK_INT(s.start_stack, 140734414016032);
	CHECK_INT(s.start_brk, 94757142532096);
	CHECK_INT(s.env_end, 140734414020594);
	CHECK_INT(s.exit_code, 0);
	CHECK_INT(proc_stat_parse("1 (x) S 2 3", &s, &err), -EBADMSG);
	CHECK_INT(proc_stat_parse("1 (x", &s, &err), -EBADMSG);
	CHECK_INT(proc_stat_parse("", &s, &err), -EBADMSG);
	CHECK_INT(proc_stat_parse("1 (x)", &s, &err), -EBADMSG);
}

static const struct proc_map *map_at(const struct proc_map *maps, unsigned n, uint64_t start)
{
	for (unsigned i = 0; i < n; i++)
		if (maps[i].start == start)
			return &maps[i];
	fprintf(stderr, "no mapping at %#llx\n", (unsigned long long)start);
	exit(1);
}

static void check_paths(const struct proc_map *maps, unsigned n)
{
	static const struct {
		uint64_t start;
		const char *path;
		bool deleted, shared;
	} want[] = {
		{ 0x562e3c378000, "/usr/bin/cap", false, false },
		{ 0x7ff8bd372000, "/SYSV00000000", true, true },
		{ 0x7ff8bd374000, "/dev/zero", true, true },
		{ 0x7ff8bd376000, "/memfd:x y", true, true },
		{ 0x7ff8bd378000, "/home/user/d/gone", true, false },
		{ 0x7ff8bd37a000, "/home/user/d/sp ace\nnl \n", true, true },
		{ 0x7ff8bd37c000, "", false, false },
		{ 0x7ff8bd37e000, "[vvar]", false, false },
		{ 0x7ff8bd382000, "[vvar_vclock]", false, false },
		{ 0x7ff8bd384000, "[vdso]", false, false },
		{ 0x7fff48bf5000, "[stack]", false, false },
		{ 0xffffffffff600000, "[vsyscall]", false, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		const struct proc_map *m = map_at(maps, n, want[i].start);

		CHECK_STR(m->path, want[i].path);
		CHECK_INT(m->deleted, want[i].deleted);
		CHECK_INT(m->shared, want[i].shared);
	}
}

static void test_maps(void)
{
	struct proc_map *maps;
	const struct proc_map *m;
	unsigned n;

	CHECK_OK(proc_maps_parse(load("maps"), arena, &maps, &n, &err));
	CHECK_INT(n, 45);
	check_paths(maps, n);
	for (unsigned i = 0; i < n; i++)
		CHECK(maps[i].start < maps[i].end && (!i || maps[i].start >= maps[i - 1].end) &&
		      !maps[i].has_flags);
	m = map_at(maps, n, 0x562e3c379000);
	CHECK_INT(m->end, 0x562e3c37a000);
	CHECK_INT(m->prot, PROT_READ | PROT_EXEC);
	CHECK_INT(m->offset, 0x1000);
	CHECK_INT(m->dev, 0xfe00000);
	CHECK_INT(m->ino, 10953505);
	m = map_at(maps, n, 0x6ff8bd000000);
	CHECK_INT(m->end - m->start, 1ll << 44);
	CHECK_INT(m->prot, PROT_NONE);
	CHECK_INT(map_at(maps, n, 0xffffffffff600000)->prot, PROT_EXEC);
}

static void test_smaps(void)
{
	static const struct {
		uint64_t start;
		uint32_t advice;
	} want[] = {
		{ 0x6ff8bd000000, ADVICE_NORESERVE },
		{ 0x7ff8bd17c000, ADVICE_DONTFORK },
		{ 0x7ff8bd17d000, ADVICE_DONTDUMP },
		{ 0x7ff8bd17e000, ADVICE_WIPEONFORK },
		{ 0x7ff8bd17f000, ADVICE_MERGEABLE },
		{ 0x7ff8bd180000, ADVICE_HUGEPAGE },
		{ 0x7ff8bd181000, ADVICE_NOHUGEPAGE },
		{ 0x7ff8bd182000, ADVICE_LOCKED },
		{ 0x7ff8bd183000, ADVICE_RANDOM },
		{ 0x7ff8bd184000, ADVICE_SEQUENTIAL },
		{ 0x7ff8bd185000, ADVICE_LOCKED | ADVICE_LOCKONFAULT },
		{ 0x7ff8bd186000, 0 },
		{ 0x7ff8bd188000, ADVICE_SEALED },
		{ 0x7ff8bd16c000, ADVICE_GROWSDOWN },
		{ 0x7ff8bd371000,
		  ADVICE_NORESERVE | ADVICE_WIPEONFORK | ADVICE_DONTDUMP | ADVICE_DROPPABLE },
		{ 0x7ff8bd37e000, ADVICE_IO | ADVICE_DONTDUMP },
		{ 0x7fff48bf5000, ADVICE_GROWSDOWN },
	};
	struct proc_map *maps;
	unsigned n;

	CHECK_OK(proc_maps_parse(load("smaps"), arena, &maps, &n, &err));
	CHECK_INT(n, 45);
	check_paths(maps, n);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		CHECK_INT(map_at(maps, n, want[i].start)->advice &
				  ~(uint32_t)(ADVICE_ACCOUNT | ADVICE_MAYWRITE),
			  want[i].advice);
	for (unsigned i = 0; i < n; i++) {
		/* "ac": whatever is or was private and writable */
		if ((maps[i].prot & PROT_WRITE) && !maps[i].shared &&
		    !(maps[i].advice & (ADVICE_NORESERVE | ADVICE_DROPPABLE)))
			CHECK(maps[i].advice & ADVICE_ACCOUNT);
		CHECK(maps[i].has_flags);
	}
	CHECK(!(map_at(maps, n, 0x6ff8bd000000)->advice & ADVICE_ACCOUNT));
	CHECK_INT(map_at(maps, n, 0x7ff8bd182000)->rss_bytes, 4096);
	CHECK_INT(map_at(maps, n, 0x6ff8bd000000)->rss_bytes, 0);
}

static void test_maps_odd(void)
{
	static const char text[] =
		"1000-2000 rw-p 00000000 00:00 0                                  [anon:glibc: "
		"malloc arena]\n"
		"2000-3000 rw-s 00000000 00:01 7                                  [anon_shmem:a "
		"b]\n"
		"3000-4000 rw-s 00000000 00:0d 9                                  "
		"anon_inode:[perf_event]\n"
		"4000-5000 --xp 00000000 00:00 0                                  [uprobes]\n"
		"5000-6000 r--p 00000000 103:5 18446744073709551615               /a (deleted) "
		"(deleted)\n"
		"ProtectionKey:         3\n"
		"Swap:                 12 kB\n"
		"VmFlags: rd ?? zz um\n"
		"6000-7000 r--p 7ffffffff000 08:01 5 /tight\n"
		"7000-8000 r--p 00000000 08:01 5                                  /no newline";
	struct proc_map *maps;
	unsigned n;

	CHECK_OK(proc_maps_parse(copy_of(text), arena, &maps, &n, &err));
	CHECK_INT(n, 7);
	CHECK_STR(maps[0].path, "[anon:glibc: malloc arena]");
	CHECK_STR(maps[1].path, "[anon_shmem:a b]");
	CHECK_STR(maps[2].path, "anon_inode:[perf_event]");
	CHECK_STR(maps[3].path, "[uprobes]");
	CHECK_STR(maps[4].path, "/a (deleted)");
	CHECK(maps[4].deleted);
	CHECK_INT(maps[4].dev, 0x10300005);
	CHECK_INT(maps[4].pkey, 3);
	CHECK_INT(maps[4].swap_bytes, 12288);
	CHECK_INT(maps[4].advice, ADVICE_UFFD_MISSING);
	CHECK_INT(maps[5].offset, 0x7ffffffff000);
	CHECK_STR(maps[5].path, "/tight");
	CHECK_STR(maps[6].path, "/no newline");
}

static void test_maps_bad(void)
{
	static const char *const bad[] = {
		"1000\n",
		"1000-\n",
		"1000-2000\n",
		"1000-2000 rw\n",
		"1000-2000 rw-p\n",
		"1000-2000 rw-p 0\n",
		"1000-2000 rw-p 0 0\n",
		"1000-2000 rw-p 0 0:0\n",
		"1000-2000 rw-p 0 0: 0\n",
		"2000-1000 rw-p 0 0:0 0\n",
		"1000-1000 rw-p 0 0:0 0\n",
		"1000-20000000000000000 rw-p 0 0:0 0\n",
		"1000-2000 rw-p 0 0:0 18446744073709551616 /x\n",
	};
	struct proc_map *maps;
	unsigned n;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err_clear(&err);
		CHECK_INT(proc_maps_parse(copy_of(bad[i]), arena, &maps, &n, &err), -EBADMSG);
		CHECK(err.msg[0]);
	}
	CHECK_OK(proc_maps_parse(copy_of(""), arena, &maps, &n, &err));
	CHECK_INT(n, 0);
}

static struct proc_fdinfo fdinfo(const char *name)
{
	struct proc_fdinfo f;

	CHECK_OK(proc_fdinfo_parse(load(name), arena, &f, &err));
	return f;
}

static void test_fdinfo_anonymous(void)
{
	struct proc_fdinfo f = fdinfo("fdinfo-eventfd");

	CHECK(f.has_eventfd && !f.has_timer && !f.has_sigmask && !f.is_epoll && !f.is_inotify);
	CHECK_INT(f.eventfd_count, 5);
	CHECK_INT(f.eventfd_semaphore, 1);
	CHECK_INT(f.mnt_id, 17);
	CHECK_INT(f.ino, 1038);
	f = fdinfo("fdinfo-signalfd");
	CHECK(f.has_sigmask);
	CHECK_INT(f.sigmask, 1ll << (SIGUSR1 - 1) | 1ll << 39);
	f = fdinfo("fdinfo-timerfd");
	CHECK(f.has_timer);
	CHECK_INT(f.clockid, 1);
	CHECK_INT(f.ticks, 0);
	CHECK_INT(f.value_ns, 999999992707041ll);
	CHECK_INT(f.interval_ns, 1000000500);
	f = fdinfo("fdinfo-pidfd");
	CHECK_INT(f.flags, O_RDWR | O_CLOEXEC);
	CHECK_INT(f.pidfd_pid, 1295);
	CHECK_INT(f.pidfd_nspid, 1295);
}

static void test_fdinfo_watches(void)
{
	struct proc_fdinfo f = fdinfo("fdinfo-epoll");

	CHECK(f.is_epoll && !f.is_inotify);
	CHECK_INT(f.n_watches, 2);
	CHECK_INT(f.watches[0].fd, 8);
	CHECK_INT(f.watches[0].data, 7);
	CHECK_INT(f.watches[1].fd, 7);
	CHECK_INT(f.watches[1].data, 0xdeadbeefcafell);
	CHECK_INT(f.watches[1].events, EPOLLIN | EPOLLET | EPOLLERR | EPOLLHUP);
	CHECK_INT(f.watches[1].ino, 0x40e);
	CHECK_INT(f.watches[1].dev, 0x10);
	f = fdinfo("fdinfo-inotify");
	CHECK(f.is_inotify && !f.is_epoll);
	CHECK_INT(f.n_watches, 2);
	CHECK_INT(f.watches[0].fd, 2);
	CHECK_INT(f.watches[0].events, IN_DELETE);
	CHECK_INT(f.watches[1].ino, 0xa72281);
	CHECK_INT(f.watches[1].dev, 0xfe00000);
	CHECK_INT(f.watches[1].events, IN_MODIFY | IN_CREATE);
}

static void test_fdinfo_locks(void)
{
	struct proc_fdinfo f = fdinfo("fdinfo-locks");

	CHECK_INT(f.pos, 1234);
	CHECK_INT(f.flags, O_RDWR | 0100000);
	CHECK_INT(f.n_locks, 3);
	CHECK_INT(f.locks[0].type, LOCK_TYPE_FLOCK);
	CHECK_INT(f.locks[0].write, 1);
	CHECK_INT(f.locks[0].len, 0);
	CHECK_INT(f.locks[1].type, LOCK_TYPE_POSIX);
	CHECK_INT(f.locks[1].start, 10);
	CHECK_INT(f.locks[1].len, 20);
	CHECK_INT(f.locks[2].type, LOCK_TYPE_OFD);
	CHECK_INT(f.locks[2].write, 0);
	CHECK_INT(f.locks[2].start, 100);
	CHECK_INT(f.locks[2].len, 0);
}

static void test_fdinfo_bad(void)
{
	static const char *const bad[] = {
		"",
		"flags: 0\n",
		"pos:\tx\n",
		"pos:\t0\nflags:\t9\n",
		"pos:\t0\nflags:\t777777777777\n",
		"pos:\t0\ntfd: 1 events: x\n",
		"pos:\t0\ntfd: 99999999999 events: 1 data: 1\n",
		"pos:\t0\ninotify wd:1\n",
		"pos:\t0\nit_value: (1, 1000000000)\n",
		"pos:\t0\nit_value: (99999999999999, 0)\n",
		"pos:\t0\nlock:\t1: POSIX  ADVISORY  WRITE 1 0:0:1 9 3\n",
		"pos:\t0\nlock:\t1: FLOCK\n",
	};
	static const char lease[] =
		"pos:\t0\nlock:\t1: LEASE  ACTIVE    READ 1 00:01:2 0 EOF\nnew-label:\t7\n";
	static const char breaking[] =
		"pos:\t0\nlock:\t1: LEASE  BREAKING  UNLCK 2083 00:01:2 0 EOF\n";
	struct proc_fdinfo f;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err_clear(&err);
		CHECK_INT(proc_fdinfo_parse(copy_of(bad[i]), arena, &f, &err), -EBADMSG);
		CHECK(err.msg[0]);
	}
	CHECK_OK(proc_fdinfo_parse(copy_of(lease), arena, &f, &err));
	CHECK_INT(f.n_locks, 0);
	CHECK(!f.lease_breaking);
	CHECK_OK(proc_fdinfo_parse(copy_of(breaking), arena, &f, &err));
	CHECK_INT(f.n_locks, 0);
	CHECK(f.lease_breaking);
}

static void test_timers(void)
{
	struct posix_timer *t;
	unsigned n;

	CHECK_OK(proc_timers_parse(load("timers"), arena, &t, &n, &err));
	CHECK_INT(n, 3);
	CHECK_INT(t[0].id, 2);
	CHECK_INT(t[0].signo, 40);
	CHECK_INT(t[0].sigval, 0x1234);
	CHECK_INT(t[0].notify, SIGEV_THREAD_ID);
	CHECK_INT(t[0].notify_tid, 1323);
	CHECK_INT(t[0].clockid, -6);
	CHECK_INT(t[1].notify, SIGEV_NONE);
	CHECK_INT(t[1].clockid, 0);
	CHECK_INT(t[2].id, 0);
	CHECK_INT(t[2].notify, SIGEV_SIGNAL);
	CHECK_INT(t[2].signo, SIGUSR1);
	CHECK_INT(t[2].notify_tid, 0);
	CHECK_OK(proc_timers_parse(copy_of(""), arena, &t, &n, &err));
	CHECK_INT(n, 0);
	CHECK_INT(proc_timers_parse(copy_of("ID: x\n"), arena, &t, &n, &err), -EBADMSG);
	CHECK_INT(proc_timers_parse(copy_of("ID: 1\nnotify: what/pid.1\n"), arena, &t, &n, &err),
		  -EBADMSG);
	CHECK_INT(proc_timers_parse(copy_of("ID: 1\nsignal: 10\n"), arena, &t, &n, &err), -EBADMSG);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	data_dir = argv[1];
	arena = arena_new();
	CHECK(arena);
	test_status();
	test_status_namespaces();
	test_status_bad();
	test_stat();
	test_maps();
	test_smaps();
	test_maps_odd();
	test_maps_bad();
	test_fdinfo_anonymous();
	test_fdinfo_watches();
	test_fdinfo_locks();
	test_fdinfo_bad();
	test_timers();
	arena_free(arena);
	return 0;
}
