/* SPDX-License-Identifier: BSD-2-Clause */
/* What /proc says of a process: parsers are pure (text in, struct out), readers open the file and
 * call them. */
#pragma once

#include "state/tree.h"
#include "util/arena.h"
#include "util/err.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/*
 * Readers take a descriptor of the directory /proc/PID (or /proc/PID/task/TID where they say tid),
 * opened with O_PATH or O_RDONLY. -ESRCH when the process is gone. Parsed strings live in the
 * arena.
 */
int proc_open_pid(pid_t pid, int *ret_dirfd, struct err *err);
int proc_open_tid(pid_t pid, pid_t tid, int *ret_dirfd, struct err *err);

/* --- status and stat -----------------------------------------------------------------------------
 */

struct proc_status {
	char state; /* R S D T t Z X ... */
	int32_t tgid, pid, ppid, tracer;
	/* as the innermost pid namespace sees them */
	int32_t ns_tgid, ns_pid, ns_pgid, ns_sid;
	unsigned ns_depth; /* number of entries in NSpid: 1 = same pid namespace as the reader's */
	uint32_t uid[4], gid[4]; /* real, effective, saved, fs */
	struct cred_id *groups;
	unsigned n_groups;
	uint32_t umask;
	uint64_t sig_pending, shared_pending, sig_blocked, sig_ignored, sig_caught;
	uint64_t cap_inh, cap_prm, cap_eff, cap_bnd, cap_amb;
	uint32_t no_new_privs, seccomp, threads;
	uint32_t seccomp_filters; /* 0 before Linux 5.9 */
	uint32_t locked_kib;      /* mlock(2) */
	uint32_t thp_enabled;     /* THP_enabled: line; 1 when absent */
	bool has_vm;              /* has an address space (not a zombie or kernel thread) */
	bool shadow_stack;        /* of this thread (x86, Linux 6.6) */
	char *name;
};
int proc_status_parse(char *text, struct arena *a, struct proc_status *ret, struct err *err);
int proc_status_read(int dirfd, struct arena *a, struct proc_status *ret, struct err *err);
/* Of a thread of the process behind dirfd. */
int proc_thread_status_read(int dirfd, pid_t tid, struct arena *a, struct proc_status *ret,
			    struct err *err);

/* What a process has of credentials(7), but for securebits, which /proc does not show: do both have
 * the same? */
bool proc_same_creds(const struct proc_status *a, const struct proc_status *b);
/* The capabilities that this kernel knows. */
uint64_t proc_known_caps(void);

struct proc_stat {
	char state;
	int32_t ppid, pgrp, session, tty_nr, tpgid;
	int32_t nice, exit_signal;
	uint64_t start_time; /* clock ticks since boot */
	uint32_t rt_priority, policy;
	uint64_t start_code, end_code, start_stack, start_data, end_data, start_brk;
	uint64_t arg_start, arg_end, env_start, env_end;
	int32_t exit_code;
};
int proc_stat_parse(const char *text, struct proc_stat *ret, struct err *err);
int proc_stat_read(int dirfd, struct proc_stat *ret, struct err *err);
/* The device that tty_nr stands for. */
dev_t proc_tty_device(const struct proc_stat *st);
/* all: /proc itself. */
int proc_stat_of(int all, pid_t pid, struct proc_stat *ret, struct err *err);

/*
 * A thread of the process that has not ended: the leader, unless it has, before others. Of a leader
 * that has ended /proc/PID shows no memory and no descriptors; /proc/TID of another thread does,
 * although no listing has it.
 */
pid_t proc_live_thread(pid_t pid);
/* Thread ids / child pids, ascending. Children: of all threads (task/TID/children). */
int proc_threads(int dirfd, struct arena *a, pid_t **ret, unsigned *ret_n, struct err *err);
int proc_children(int dirfd, struct arena *a, pid_t **ret, unsigned *ret_n, struct err *err);

/* --- memory --------------------------------------------------------------------------------------
 */

/* One mapping as /proc/PID/smaps (or maps) shows it. */
struct proc_map {
	uint64_t start, end, offset;
	uint32_t prot; /* PROT_* */
	bool shared;
	uint64_t dev; /* major << 20 | minor */
	uint64_t ino;
	char *path; /* unescaped, "" where none; " (deleted)" cut off and flagged */
	bool deleted;
	uint32_t advice; /* enum vma_advice, from VmFlags; 0 when read from maps only */
	uint32_t pkey;
	uint64_t rss_bytes, swap_bytes; /* smaps only */
	bool has_flags;
	bool foreign; /* set by whoever knows: under a userfaultfd of the program's own */
};
/* with_flags: smaps (slow: walks page tables), else maps. */
int proc_maps_parse(char *text, struct arena *a, struct proc_map **ret, unsigned *ret_n,
		    struct err *err);
int proc_maps_read(int dirfd, bool with_flags, struct arena *a, struct proc_map **ret,
		   unsigned *ret_n, struct err *err);

/* Mappings read with flags, of a process that stands still: rss_bytes of those that hold huge pages
 * which smaps does not name (proc/hidden.c) is not 0 any more. */
int proc_maps_unhide(int dirfd, struct proc_map *maps, unsigned n, struct err *err);

/* Classes of pages in a mapping, as runs. */
enum page_class {
	PAGE_ANON = 1,    /* present, private to the process */
	PAGE_FILE = 2,    /* file page or shared-memory page, present */
	PAGE_SWAPPED = 4, /* or, on Linux 6.13 and 6.14, a guard page: reading it gives EFAULT */
	PAGE_PFNZERO = 8, /* the zero page: reads as zero (without PAGEMAP_SCAN it is PAGE_ANON) */
	PAGE_GUARD = 16,
};
/* With proc_pagemap_scan_marked only. */
enum page_mark {
	PAGE_WATCHED = 1 << 8,    /* under asynchronous write-protection (userfaultfd) */
	PAGE_WRITTEN = 1 << 9,    /* since it was protected */
	PAGE_SOFTDIRTY = 1 << 10, /* written since clear_refs, says pagemap */
	PAGE_EXCLUSIVE = 1 << 11, /* goes with PAGE_SOFTDIRTY: surely not the zero page */
};
struct page_class_run {
	uint64_t start, end; /* addresses */
	uint32_t classes;    /* exactly one of enum page_class, and enum page_mark */
};
/*
 * Calls each for every run of populated pages in [start, end), ascending. Uses PAGEMAP_SCAN (probed
 * once for the categories it knows), else reads pagemap; a caller that knows that nothing is
 * populated (rss + swap = 0) should not ask, since plain pagemap costs 8 bytes for every page of a
 * 16 TiB reservation. pagemap_fd: /proc/PID/pagemap. The callback returns 0 to go on, or a negative
 * errno that is passed on. Runs do not overlap; neighbours of one class come as one. A shared
 * mapping's page tables do not say what its object holds (pages that only others touched).
 */
typedef int (*page_run_fn)(void *arg, const struct page_class_run *run, struct err *err);
int proc_pagemap_open(int dirfd, int *ret_fd, struct err *err);
int proc_pagemap_scan(int pagemap_fd, uint64_t start, uint64_t end, page_run_fn each, void *arg,
		      struct err *err);
/*
 * The same with marks, by which runs are split as well: PAGE_WATCHED and PAGE_WRITTEN where
 * PAGEMAP_SCAN works; with LOOK_SOFT PAGE_SOFTDIRTY and PAGE_EXCLUSIVE, always read from pagemap.
 *
 * LOOK_MOSTLY_WATCHED and LOOK_MOSTLY_UNWATCHED: all in the range is mapped and nothing in it is a
 * file's page (what is not mapped, or is PFN memory, comes as if it were there); and what most of
 * the pages will turn out to be. That takes a quarter of the time.
 */
enum page_look { LOOK_SOFT = 1 << 0, LOOK_MOSTLY_WATCHED = 1 << 1, LOOK_MOSTLY_UNWATCHED = 1 << 2 };
int proc_pagemap_scan_marked(int pagemap_fd, uint64_t start, uint64_t end, unsigned how,
			     page_run_fn each, void *arg, struct err *err);
/* For tests: force the classic path. */
extern bool proc_pagemap_force_classic;

/* --- descriptors ---------------------------------------------------------------------------------
 */

struct proc_fdinfo_watch { /* epoll: tfd/events/data; inotify: wd/ino/dev/mask */
	int32_t fd;
	uint32_t events;
	uint64_t data;
	uint64_t ino, dev;
};

struct proc_fdinfo {
	uint64_t pos;
	uint32_t flags; /* as shown (octal in the text), O_CLOEXEC included when set */
	int64_t mnt_id;
	uint64_t ino;
	bool has_eventfd;
	uint64_t eventfd_count;
	uint32_t eventfd_semaphore; /* "eventfd-semaphore", newer kernels; 0 when absent */
	bool has_sigmask;
	uint64_t sigmask;
	bool has_timer;
	int32_t clockid;
	uint64_t ticks;
	uint32_t settime_flags;
	uint64_t value_ns, interval_ns;
	bool is_epoll, is_inotify;
	struct proc_fdinfo_watch *watches;
	unsigned n_watches;
	struct file_lock *locks; /* "lock:" lines: FLOCK, OFDLCK, POSIX */
	unsigned n_locks;
	bool lease_breaking; /* a "lock:" line with a LEASE that somebody waits for */
	int32_t pidfd_pid;   /* "Pid:" of a pidfd, 0 = not a pidfd */
	int32_t pidfd_nspid;
};
int proc_fdinfo_parse(char *text, struct arena *a, struct proc_fdinfo *ret, struct err *err);
int proc_fdinfo_read(int dirfd, int fd, struct arena *a, struct proc_fdinfo *ret, struct err *err);
/* The open descriptors, ascending. */
int proc_fds(int dirfd, struct arena *a, int **ret, unsigned *ret_n, struct err *err);
/* readlink of fd/N, cwd, exe, root, ...; deleted: " (deleted)" was cut off. ret_deleted may be
 * NULL. */
int proc_link(int dirfd, const char *name, struct arena *a, char **ret, bool *ret_deleted,
	      struct err *err);

/* What access(2) is to be asked for flags of open(2): R_OK, W_OK or both. */
int proc_access_mode(int flags);
/*
 * Can a regular file be opened again by the path that /proc shows, as it was opened (the flags of
 * open(2)), by us? Else errno says why not; ESTALE: another file lies there.
 */
bool proc_reaches(pid_t pid, const char *path, const struct stat *st, int flags);
/* Another name, in the directory of the one that was deleted; NULL: none. */
char *proc_other_name(struct arena *a, const char *path, const struct stat *st);
/* The number in "/proc/NUMBER/...", 0 when path is none such; and that of the thread in the rest,
 * "/task/TID/..." . ret_rest: what follows it. */
int32_t proc_path_pid(const char *path, const char **ret_rest);
int32_t proc_path_tid(const char *rest, const char **ret_rest);

/* Who has asked with mq_notify(3) to be told of the next message of the queue that is open as fd,
 * and how (SIGEV_SIGNAL, ...); false: nobody. Of an owner outside of our pid namespace the pid is
 * 0. */
struct mq_told {
	pid_t pid;
	int how, signo;
};
bool proc_mq_told(int fd, struct mq_told *ret);

/* --- timers, limits, the machine
 * ------------------------------------------------------------------ */

/* /proc/PID/timers: id, signal/sigval, notify kind and pid/tid, clock. Values are not in it. */
int proc_timers_parse(char *text, struct arena *a, struct posix_timer **ret, unsigned *ret_n,
		      struct err *err);
int proc_timers_read(int dirfd, struct arena *a, struct posix_timer **ret, unsigned *ret_n,
		     struct err *err);

/* Clock ids below 0 hold a pid or tid in the kernel's way: CPU time of another thread or process,
 * or a device. */
static inline int32_t proc_clock_owner(int32_t clockid)
{
	return ~(clockid >> 3);
}
/* The tid that the process itself sees for a thread of it that we see as tid; 0: it has none such.
 */
int32_t proc_inner_tid(pid_t pid, pid_t tid, struct arena *a);
/* Why a timer of the process, which it sees as inner itself, could not be made again ("on a clock
 * device"); NULL: it could. */
const char *proc_timer_refusal(pid_t pid, int32_t inner, const struct posix_timer *t,
			       struct arena *a);

/* Small integers: oom_score_adj, timerslack_ns, ... */
int proc_int_read(int dirfd, const char *name, int64_t *ret, struct err *err);
/* Pages in memory that are no file's and not shared, roughly (/proc/PID/statm). */
int proc_private_pages(int dirfd, uint64_t *ret, struct err *err);
/* The auxiliary vector (/proc/PID/auxv). */
int proc_auxv_read(int dirfd, struct arena *a, struct blob *ret, struct err *err);
/* Fills release, version, machine, nodename, boot_id, cpu_model, xfeatures/xsave_size (CPUID),
 * realtime. */
int proc_host_read(struct arena *a, struct host *ret, struct err *err);
#define PROC_NAMESPACES 7
/* The namespaces of the parent of a tree's root, by inode number; 0: what may not be looked at. */
void proc_namespaces_around(int root_dirfd, ino_t ret[static PROC_NAMESPACES]);
/* "a mount namespace": one that the process does not have from there; NULL: none. */
const char *proc_namespace_own(int dirfd, const ino_t around[static PROC_NAMESPACES]);
/* All ids of processes and threads are below it (proc_sys_kernel(5), pid_max); as a guess 32768. */
int32_t proc_pid_limit(void);
/* Lowest address that mmap may use (/proc/sys/vm/mmap_min_addr), 65536 if unknown. */
uint64_t proc_mmap_min(void);
