/* SPDX-License-Identifier: BSD-2-Clause */
/* The readers against living and dying processes: what was set up is what they say. */
#include "../check.h"

#include "proc/proc.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>

static struct err err;
static struct arena *arena;
static int self; /* /proc/PID of this process */
static char folder[] = "/tmp/proc-live-XXXXXX";

static void test_status(void)
{
	struct proc_status s;
	struct proc_stat t;

	CHECK(prctl(PR_SET_NAME, "a) b\\\nc") == 0);
	CHECK_OK(proc_status_read(self, arena, &s, &err));
	CHECK_OK(proc_stat_read(self, &t, &err));
	CHECK_STR(s.name, "a) b\\\nc");
	CHECK_INT(s.pid, getpid());
	CHECK_INT(s.ppid, getppid());
	CHECK_INT(t.ppid, getppid());
	CHECK_INT(t.pgrp, getpgrp());
	CHECK_INT(t.session, getsid(0));
	CHECK_INT(s.ns_pgid, getpgrp());
	CHECK_INT(s.uid[1], geteuid());
	CHECK_INT(s.gid[0], getgid());
	CHECK_INT(s.n_groups, getgroups(0, NULL));
	CHECK_INT(s.threads, 1);
	CHECK(s.has_vm && s.state == 'R');
	CHECK(t.start_stack > t.start_code && t.arg_end > t.arg_start);
}

static void *wait_for_byte(void *arg)
{
	char x;

	(void)!read(*(int *)arg, &x, 1);
	return NULL;
}

static void test_threads(void)
{
	pthread_t threads[20];
	struct proc_status s;
	unsigned n, found = 0;
	int fds[2], dirfd;
	pid_t *tids;

	CHECK(pipe(fds) == 0);
	for (unsigned i = 0; i < 20; i++)
		CHECK(pthread_create(&threads[i], NULL, wait_for_byte, &fds[0]) == 0);
	CHECK_OK(proc_threads(self, arena, &tids, &n, &err));
	CHECK_INT(n, 21);
	for (unsigned i = 0; i < n; i++) {
		found += tids[i] == getpid();
		CHECK(i == 0 || tids[i] > tids[i - 1]);
	}
	CHECK_INT(found, 1); /* the first one, unless the kernel's counter has just wrapped */
	CHECK_OK(proc_open_tid(getpid(), tids[7], &dirfd, &err));
	CHECK_OK(proc_status_read(dirfd, arena, &s, &err));
	CHECK_INT(s.pid, tids[7]);
	CHECK_INT(s.tgid, getpid());
	CHECK_INT(s.threads, 21);
	for (unsigned i = 0; i < 20; i++)
		CHECK(write(fds[1], "x", 1) == 1);
	for (unsigned i = 0; i < 20; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	(void)close(fds[0]);
	(void)close(fds[1]);
	(void)close(dirfd);
}

static void test_gone(int dirfd)
{
	struct proc_status s;
	struct proc_stat t;
	struct proc_fdinfo f;
	struct proc_map *maps;
	struct posix_timer *timers;
	unsigned n;
	int64_t v;
	pid_t *pids;
	char *target;

	CHECK_INT(proc_status_read(dirfd, arena, &s, &err), -ESRCH);
	CHECK_INT(proc_stat_read(dirfd, &t, &err), -ESRCH);
	CHECK_INT(proc_maps_read(dirfd, false, arena, &maps, &n, &err), -ESRCH);
	CHECK_INT(proc_maps_read(dirfd, true, arena, &maps, &n, &err), -ESRCH);
	CHECK_INT(proc_threads(dirfd, arena, &pids, &n, &err), -ESRCH);
	CHECK_INT(proc_children(dirfd, arena, &pids, &n, &err), -ESRCH);
	CHECK_INT(proc_fds(dirfd, arena, &pids, &n, &err), -ESRCH);
	CHECK_INT(proc_fdinfo_read(dirfd, 0, arena, &f, &err), -ESRCH);
	CHECK_INT(proc_timers_read(dirfd, arena, &timers, &n, &err), -ESRCH);
	CHECK_INT(proc_int_read(dirfd, "oom_score_adj", &v, &err), -ESRCH);
	CHECK_INT(proc_link(dirfd, "exe", arena, &target, NULL, &err), -ESRCH);
}

static int by_number(const void *a, const void *b)
{
	return *(const pid_t *)a - *(const pid_t *)b;
}

static void test_children(void)
{
	pid_t child[5], *pids;
	struct proc_status s;
	unsigned n;
	int dirfd;

	for (unsigned i = 0; i < 5; i++) {
		child[i] = fork();
		if (child[i] == 0)
			for (;;)
				pause();
	}
	CHECK_OK(proc_children(self, arena, &pids, &n, &err));
	CHECK_INT(n, 5);
	qsort(child, n, sizeof *child, by_number); /* the kernel's counter may have wrapped */
	for (unsigned i = 0; i < 5; i++)
		CHECK_INT(pids[i], child[i]);
	CHECK_OK(proc_open_pid(child[2], &dirfd, &err));
	for (unsigned i = 0; i < 5; i++)
		CHECK(kill(child[i], SIGKILL) == 0);
	CHECK(waitid(P_PID, (id_t)child[2], NULL, WEXITED | WNOWAIT) == 0);
	CHECK_OK(proc_status_read(dirfd, arena, &s, &err));
	CHECK(s.state == 'Z' && !s.has_vm);
	for (unsigned i = 0; i < 5; i++)
		CHECK(waitpid(child[i], NULL, 0) == child[i]);
	test_gone(dirfd);
	(void)close(dirfd);
	CHECK_INT(proc_open_pid(child[2], &dirfd, &err), -ESRCH);
}

/* The mapping at p as the readers see it. */
static struct proc_map map_at(const void *p, bool with_flags)
{
	struct proc_map *maps;
	unsigned n;

	CHECK_OK(proc_maps_read(self, with_flags, arena, &maps, &n, &err));
	for (unsigned i = 0; i < n; i++)
		if (maps[i].start == (uintptr_t)p)
			return maps[i];
	fprintf(stderr, "no mapping at %p\n", p);
	exit(1);
}

static void check_odd_name(const char *name)
{
	char *path = arena_printf(arena, "%s/%s", folder, name), *target;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char *link = arena_printf(arena, "fd/%d", fd);
	struct proc_map m;
	bool deleted;
	void *p;

	CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096);
	CHECK(p != MAP_FAILED);
	m = map_at(p, false);
	CHECK_STR(m.path, path);
	CHECK(!m.deleted && m.shared && m.offset == 4096 && m.prot == PROT_READ);
	CHECK_OK(proc_link(self, link, arena, &target, &deleted, &err));
	CHECK_STR(target, path);
	CHECK(!deleted);
	CHECK(unlink(path) == 0);
	m = map_at(p, true);
	CHECK_STR(m.path, path);
	CHECK(m.deleted && m.has_flags);
	CHECK_OK(proc_link(self, link, arena, &target, &deleted, &err));
	CHECK_STR(target, path);
	CHECK(deleted);
	CHECK(munmap(p, 4096) == 0 && close(fd) == 0);
}

static void test_names(void)
{
	check_odd_name("plain");
	check_odd_name("with blanks  in it");
	check_odd_name("new\nline");
	check_odd_name("back\\012slash");
	check_odd_name("both\n\\012");
	check_odd_name("file (deleted)");
	check_odd_name("new\nline (deleted)");
	check_odd_name("twice (deleted) (deleted)");
}

static void test_many_maps(void)
{
	const unsigned want = 20000;
	struct proc_map *maps;
	unsigned n, found = 0;
	char *base = mmap(NULL, want * 8192ul, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(base != MAP_FAILED);
	for (unsigned i = 0; i < want; i++)
		CHECK(mprotect(base + i * 8192ul, 4096, PROT_READ) == 0);
	CHECK_OK(proc_maps_read(self, true, arena, &maps, &n, &err));
	for (unsigned i = 0; i < n; i++)
		if (maps[i].start >= (uintptr_t)base &&
		    maps[i].end <= (uintptr_t)base + want * 8192ul)
			found += maps[i].prot == PROT_READ && maps[i].has_flags;
	CHECK_INT(found, want);
	CHECK(munmap(base, want * 8192ul) == 0);
}

static struct proc_fdinfo fdinfo(int fd)
{
	struct proc_fdinfo f;

	CHECK_OK(proc_fdinfo_read(self, fd, arena, &f, &err));
	return f;
}

static void test_special_fds(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = UINT64_MAX };
	struct itimerspec its = { .it_value = { 1000, 0 }, .it_interval = { 5, 6 } };
	int ep = epoll_create1(0), efd = eventfd(3, 0),
	    tfd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
	int in = inotify_init();
	struct proc_fdinfo f;

	CHECK(fdinfo(ep).is_epoll && fdinfo(ep).n_watches == 0);
	CHECK(fdinfo(in).is_inotify && fdinfo(in).n_watches == 0);
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, efd, &ev) == 0);
	CHECK(inotify_add_watch(in, folder, IN_CREATE) == 1);
	CHECK(timerfd_settime(tfd, 0, &its, NULL) == 0);
	f = fdinfo(ep);
	CHECK(f.is_epoll && f.n_watches == 1 && f.watches[0].fd == efd &&
	      f.watches[0].data == UINT64_MAX);
	f = fdinfo(in);
	CHECK(f.n_watches == 1 && f.watches[0].fd == 1 && f.watches[0].events == IN_CREATE);
	f = fdinfo(efd);
	CHECK(f.has_eventfd && f.eventfd_count == 3);
	f = fdinfo(tfd);
	CHECK(f.has_timer && f.clockid == CLOCK_BOOTTIME && (f.flags & O_CLOEXEC));
	CHECK(f.interval_ns == 5000000006ull && f.value_ns > 900000000000ull &&
	      f.value_ns <= 1000000000000ull);
	for (int fd = in; fd >= ep; fd--)
		(void)close(fd);
}

static void test_files(void)
{
	char *path = arena_printf(arena, "%s/locked", folder);
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0600), *fds, last;
	struct proc_fdinfo f;
	unsigned n;

	CHECK(fd >= 0 && lseek(fd, 77, SEEK_SET) == 77 && flock(fd, LOCK_SH) == 0);
	f = fdinfo(fd);
	CHECK_INT(f.pos, 77);
	CHECK(f.flags & O_APPEND && !(f.flags & O_CLOEXEC));
	CHECK(f.n_locks == 1 && f.locks[0].type == LOCK_TYPE_FLOCK && !f.locks[0].write);
	for (unsigned i = 0; i < 200; i++)
		CHECK(dup(fd) >= 0);
	CHECK(dup2(fd, 900) == 900);
	CHECK_OK(proc_fds(self, arena, &fds, &n, &err));
	CHECK(n >= 205 && fds[0] == 0);
	for (unsigned i = 1; i < n; i++)
		CHECK(fds[i] > fds[i - 1]);
	CHECK_INT(fds[n - 1], 900);
	last = fd + 200;
	for (int i = fd; i <= last; i++)
		(void)close(i);
	(void)close(900);
	CHECK(unlink(path) == 0);
	CHECK_INT(proc_fdinfo_read(self, 900, arena, &f, &err),
		  -ENOENT); /* alive, but no such descriptor */
}

static void test_timers(void)
{
	struct sigevent se = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };
	struct posix_timer *list;
	unsigned n;
	int id;

	se.sigev_value.sival_ptr = (void *)0x1122334455667788;
	se._sigev_un._tid = getpid();
	CHECK(syscall(SYS_timer_create, CLOCK_BOOTTIME, &se, &id) == 0);
	CHECK_OK(proc_timers_read(self, arena, &list, &n, &err));
	CHECK_INT(n, 1);
	CHECK_INT(list[0].id, id);
	CHECK_INT(list[0].clockid, CLOCK_BOOTTIME);
	CHECK_INT(list[0].notify, SIGEV_THREAD_ID);
	CHECK_INT(list[0].notify_tid, getpid());
	CHECK_INT(list[0].signo, SIGRTMIN);
	CHECK_INT(list[0].sigval, 0x1122334455667788);
	CHECK(syscall(SYS_timer_delete, id) == 0);
	CHECK_OK(proc_timers_read(self, arena, &list, &n, &err));
	CHECK_INT(n, 0);
}

static void check_auxv(const struct blob *auxv, uint64_t type)
{
	uint64_t pair[2] = { AT_NULL };

	for (uint32_t i = 0; pair[0] != type; i += 16) {
		CHECK(i + 16 <= auxv->len);
		memcpy(pair, auxv->data + i, 16);
	}
	CHECK_INT(pair[1], getauxval(type));
}

static void test_machine(void)
{
	struct host h = { 0 };
	struct blob auxv;
	uint64_t pages, more;
	void *mem;
	int64_t v;

	CHECK_OK(proc_host_read(arena, &h, &err));
	CHECK(strlen(h.boot_id) == 36 && h.cpu_model[0] && h.release[0] && h.nodename[0]);
	CHECK((h.xfeatures & 3) == 3 && h.xsave_size >= 576); /* x87 and SSE are part of x86-64 */
	CHECK(h.realtime_ns / 1000000000u - (uint64_t)time(NULL) + 2 <= 4);
	CHECK_OK(proc_auxv_read(self, arena, &auxv, &err));
	check_auxv(&auxv, AT_PHDR);
	check_auxv(&auxv, AT_ENTRY);
	check_auxv(&auxv, AT_RANDOM);
	check_auxv(&auxv, AT_SYSINFO_EHDR);
	CHECK_OK(proc_int_read(self, "oom_score_adj", &v, &err));
	CHECK(v >= -1000 && v <= 1000);
	CHECK(prctl(PR_SET_TIMERSLACK, 12345) == 0);
	CHECK_OK(proc_int_read(self, "timerslack_ns", &v, &err));
	CHECK_INT(v, 12345);
	CHECK_INT(proc_int_read(self, "comm", &v, &err), -EBADMSG);
	CHECK_INT(proc_int_read(self, "no-such-file", &v, &err), -ENOENT);
	CHECK(proc_mmap_min() >= 4096);
	CHECK_OK(proc_private_pages(self, &pages, &err));
	mem = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	CHECK(mem != MAP_FAILED);
	CHECK_OK(proc_private_pages(self, &more, &err));
	CHECK(more > pages + 15000 && more < pages + 18000);
	CHECK(munmap(mem, 64 << 20) == 0);
}

int main(void)
{
	arena = arena_new();
	CHECK(arena && mkdtemp(folder));
	CHECK_OK(proc_open_pid(getpid(), &self, &err));
	test_status();
	test_threads();
	test_children();
	test_names();
	test_many_maps();
	test_special_fds();
	test_files();
	test_timers();
	test_machine();
	CHECK(rmdir(folder) == 0);
	arena_free(arena);
	return 0;
}
