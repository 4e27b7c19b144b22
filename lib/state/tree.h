/* SPDX-License-Identifier: BSD-2-Clause */
/* What a process tree is: plain structs, captured by dump/, stored by image/, rebuilt by restore/.
 */
#pragma once

#include "state/files.h"
#include "state/schema.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Everything hangs off a struct tree and lives in one arena. Addresses in the job are uint64_t. Ids
 * (files, spaces) are unique within a tree and never 0. Signal masks and sets are the kernel's
 * 64-bit sigset: bit N-1 is signal N. Times are nanoseconds. Process and thread ids are as the job
 * itself sees them (innermost pid namespace).
 */

#define CKPT_PAGE_SIZE 4096u

/* --- memory --------------------------------------------------------------------------------------
 */

/* A set of pages that an image holds: a process's private memory, or the content of a shared
 * object. */
enum space_kind {
	SPACE_MM = 1,  /* page number = virtual address / 4096 */
	SPACE_SHM = 2, /* shared memory (anonymous MAP_SHARED, memfd, SysV): page number = offset /
			  4096 */
	SPACE_FILE =
		3, /* content of a deleted or unnamed regular file: page number = offset / 4096 */
};

struct space {
	uint32_t id;   /* stays the same along a chain for as long as the thing itself lives */
	uint32_t kind; /* enum space_kind */
	uint64_t size; /* bytes; SPACE_MM: 0 */
	char *name;    /* for messages and inspect: "pid 12", "memfd:x", "/tmp/f (deleted)" */
	/* SPACE_FILE of a file in memory (tmpfs) that has a name: */
	char *path;
	uint64_t file_size;
	uint32_t mode, uid, gid;
	uint32_t mapped; /* shared by mapping it, not only open */
};

enum vma_kind {
	VMA_ANON = 1, /* private anonymous; [heap], [stack] too (name says which) */
	VMA_FILE = 2, /* private or shared mapping of a named file */
	VMA_SHM = 3,  /* mapping of the space shm_space (shared anonymous, memfd, deleted file) */
	VMA_VDSO = 4, /* [vdso], [vvar], [vvar_vclock]: moved, not copied */
	VMA_VSYSCALL = 5, /* [vsyscall]: nothing to do */
};

/* What /proc/PID/smaps calls VmFlags, as bits (only those that a restart must bring back). */
enum vma_advice {
	ADVICE_DONTFORK = 1 << 0,      /* dc */
	ADVICE_DONTDUMP = 1 << 1,      /* dd */
	ADVICE_HUGEPAGE = 1 << 2,      /* hg */
	ADVICE_NOHUGEPAGE = 1 << 3,    /* nh */
	ADVICE_MERGEABLE = 1 << 4,     /* mg */
	ADVICE_WIPEONFORK = 1 << 5,    /* wf */
	ADVICE_LOCKED = 1 << 6,        /* lo: mlock */
	ADVICE_LOCKONFAULT = 1 << 7,   /* lf */
	ADVICE_SEQUENTIAL = 1 << 8,    /* sr */
	ADVICE_RANDOM = 1 << 9,        /* rr */
	ADVICE_NORESERVE = 1 << 10,    /* nr */
	ADVICE_GROWSDOWN = 1 << 11,    /* gd */
	ADVICE_SEALED = 1 << 12,       /* sl: mseal */
	ADVICE_DROPPABLE = 1 << 13,    /* dp: MAP_DROPPABLE, content not captured */
	ADVICE_HUGETLB = 1 << 14,      /* ht */
	ADVICE_SYNC = 1 << 15,         /* sf: MAP_SYNC */
	ADVICE_UFFD_MISSING = 1 << 16, /* um: the program's own userfaultfd */
	ADVICE_UFFD_WP = 1 << 17,      /* uw */
	ADVICE_IO = 1 << 18,           /* io or pf: device memory */
	ADVICE_MAYWRITE = 1 << 20,     /* mw: mprotect may make it writable */
	ADVICE_ACCOUNT =
		1 << 19, /* ac: counts as committed memory, since it is or once was writable */
};

/* A range of guard pages (MADV_GUARD_INSTALL) inside a mapping. */
struct range {
	uint64_t start, end;
};

struct vma {
	uint64_t start, end;
	uint32_t kind;      /* enum vma_kind */
	uint32_t prot;      /* PROT_* */
	uint32_t flags;     /* MAP_SHARED or MAP_PRIVATE, | MAP_ANONYMOUS */
	uint32_t advice;    /* enum vma_advice */
	uint64_t offset;    /* in the file or shared object, bytes */
	char *path;         /* VMA_FILE: path; else the bracketed name or NULL */
	uint64_t dev, ino;  /* of the mapped file, as /proc/PID/maps shows them (dev = major << 20 |
			       minor) */
	uint64_t file_size; /* VMA_FILE: at the checkpoint; a private mapping's file must not have
			       changed */
	int64_t file_mtime_ns;
	struct blob build_id; /* of a mapped ELF file, when it has one */
	uint32_t shm_space;   /* VMA_SHM: the space that holds the content */
	uint32_t file; /* VMA_SHM of a memfd or deleted file that is open too: struct file id; else
			  0 */
	uint32_t pkey; /* memory protection key, 0 = none */
	struct range *guards;
	unsigned n_guards;
	char *anon_name; /* PR_SET_VMA_ANON_NAME */
};

/* prctl(PR_SET_MM_MAP) fields, in the order of struct prctl_mm_map. */
struct mm_layout {
	uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end;
	struct blob auxv;
};

/* --- threads and signals -------------------------------------------------------------------------
 */

struct pending_signal {
	struct blob siginfo; /* the kernel's 128-byte siginfo_t */
};

struct thread {
	int32_t tid;
	struct blob gregs;  /* struct user_regs_struct (27 u64) in the kernel's order, fs_base and
			       gs_base in it */
	struct blob xstate; /* NT_X86_XSTATE: standard-format XSAVE area */
	/*
	 * The system call that the thread was inside of, to be issued again with its arguments; -1
	 * when it was in user code. gregs are already rewound to the syscall instruction (rip - 2,
	 * rax = number).
	 */
	int64_t syscall_nr;
	uint64_t sigmask;
	uint64_t altstack_sp, altstack_size;
	uint32_t altstack_flags;
	uint64_t robust_list, robust_list_len;
	uint64_t clear_child_tid;
	uint64_t rseq_ptr;
	uint32_t rseq_len, rseq_sig, rseq_flags;
	char *comm;
	uint32_t sched_policy, sched_priority, sched_flags;
	int32_t nice;
	uint64_t sched_runtime, sched_deadline, sched_period;
	struct blob affinity; /* cpu_set_t bits, little-endian */
	uint64_t timer_slack_ns;
	int32_t parent_death_signal;
	uint32_t ioprio;
	struct pending_signal *pending;
	unsigned n_pending;
	uint64_t personality;
};

struct sigaction_state {
	uint32_t signo;
	uint64_t handler, flags, restorer, mask;
};

struct itimer_state {
	uint32_t which; /* ITIMER_* */
	uint64_t value_us, interval_us;
};

struct posix_timer {
	int32_t id;
	int32_t clockid;
	int32_t notify; /* SIGEV_* */
	int32_t signo;
	uint64_t sigval;
	int32_t notify_tid;             /* SIGEV_THREAD_ID */
	uint64_t value_ns, interval_ns; /* relative; value 0 = disarmed */
	uint32_t overrun;
};

struct rlimit_state {
	uint32_t resource;
	uint64_t soft, hard;
};

/* --- processes -----------------------------------------------------------------------------------
 */

struct cred_id {
	uint32_t id;
};

struct credentials {
	uint32_t ruid, euid, suid, fsuid, rgid, egid, sgid, fsgid;
	struct cred_id *groups;
	unsigned n_groups;
	uint64_t cap_inh, cap_prm, cap_eff, cap_bnd, cap_amb;
	uint32_t securebits, no_new_privs;
};

/*
 * ppid 0: the child of whoever looks after the job (ckpt-run, or the init of its namespace): the
 * root, and processes whose parent has ended. pgid, sid 0: of somebody outside the job.
 */
struct process {
	int32_t pid, ppid, pgid, sid;
	uint32_t space; /* SPACE_MM of its memory; processes with the same one share memory
			   (CLONE_VM) */
	char *exe, *cwd, *root;
	uint64_t exe_size;
	int64_t exe_mtime_ns;
	uint32_t umask;
	uint32_t dumpable, child_subreaper, thp_disable;
	int32_t oom_score_adj;
	struct credentials creds;
	struct mm_layout mm;
	struct vma *vmas;
	unsigned n_vmas;
	struct thread *threads; /* the thread-group leader first */
	unsigned n_threads;
	struct fd *fds;
	unsigned n_fds;
	struct sigaction_state *sigactions;
	unsigned n_sigactions;
	struct pending_signal *pending; /* process-wide queue */
	unsigned n_pending;
	struct itimer_state *itimers;
	unsigned n_itimers;
	struct posix_timer *timers;
	unsigned n_timers;
	struct rlimit_state *rlimits;
	unsigned n_rlimits;
	struct posix_lock *posix_locks;
	unsigned n_posix_locks;
	/* in a group stop (SIGSTOP) at the checkpoint: stays stopped. By which signal, where its
	 * parent has not waited for that yet and another did it; else 1 */
	uint32_t stopped;
	int32_t next_timer_id; /* what the kernel would give the next timer, -1 unknown */
	/* core(5), with COREDUMP_FILTER_KNOWN; 0: not recorded (images before it was) */
	uint32_t coredump_filter;
	int32_t exit_signal; /* what its parent gets when it ends; 0 none (clone(2)) */
	/* Processes earlier in the list with which it shares its descriptors, directories, signal
	 * handlers (clone(2): CLONE_FILES, CLONE_FS, CLONE_SIGHAND); 0: nobody. */
	int32_t files_of, fs_of, sighand_of;
	uint32_t stop_seen; /* stopped, and its parent has waited for that already */
	/* State components that it has got leave to use (ARCH_REQ_XCOMP_PERM), in use or not: AMX
	 */
	uint64_t xfeatures_asked;
	char *cgroup; /* in the cgroup v2 hierarchy: for the record, not restored */
	struct sem_undo *sem_undos;
	unsigned n_sem_undos;
	/* The leader has ended before other threads: its registers mean nothing. */
	uint32_t leader_ended;
	int32_t leader_status; /* as wait(2) gives it */
	/* Of its memory: what lay in transparent huge pages, as far as is known. */
	struct range *huge;
	unsigned n_huge;
	uint32_t mlock_future; /* MCL_FUTURE, with or without MCL_ONFAULT (mlockall(2)); or 0 */
	uint32_t continued; /* by SIGCONT, and its parent could wait for that yet (WCONTINUED) */
};

/* A process that has ended and that its parent, in the tree, has not waited for. */
struct zombie {
	int32_t pid, ppid, pgid, sid;
	int32_t status; /* as wait(2) gives it */
	int32_t exit_signal;
	char *comm;
};

enum { COREDUMP_FILTER_KNOWN = 1 << 30 };

/* A POSIX record lock (per process and file). */
struct posix_lock {
	uint32_t file; /* struct file id through which it can be taken again */
	uint32_t write;
	uint64_t start, len;
};

/* What is added to a System V semaphore when the process ends (semop(2), SEM_UNDO). */
struct sem_undo {
	int32_t id;
	uint32_t num;
	int32_t adjust;
};

/* --- the machine, the job, the tree -------------------------------------------------------------
 */

struct host {
	char *release, *version, *machine, *nodename;
	char *boot_id;
	char *cpu_model;
	uint64_t xfeatures; /* XCR0: state components in use by the xstate blobs */
	uint32_t xsave_size;
	uint64_t realtime_ns;               /* at the checkpoint */
	uint64_t monotonic_ns, boottime_ns; /* as the job sees them (time namespace) */
	struct blob vdso;                   /* the [vdso] image, to bridge to another kernel's */
};

struct string {
	char *s;
};

/* --fd N=...: what becomes of a descriptor, in all processes. */
enum fd_action { FD_KEEP = 0, FD_CLOSE = 1, FD_NULL = 2, FD_INHERIT = 3 };

struct fd_rule {
	int32_t fd;
	uint32_t action; /* enum fd_action */
};

/* The settings of the job, so that ckpt-restart goes on with them. */
struct settings {
	char *name;          /* program's base name */
	struct string *argv; /* as given to ckpt-run */
	unsigned n_argv;
	uint64_t interval_ns; /* 0 = only on demand */
	uint32_t full_every;
	uint32_t incremental; /* 0 = --no-incremental */
	uint32_t keep;
	uint32_t compress;        /* enum compress_mode */
	uint32_t snapshot;        /* enum copy_mode */
	uint32_t on_term;         /* 1 = checkpoint */
	char *tracker;            /* "auto", ... */
	char *stats;              /* path of --stats, or NULL */
	uint64_t mtbf_ns;         /* --interval auto: time between failures; 0: interval_ns holds */
	uint32_t max_overhead;    /* for that: millionths of the job's time, 0 = no bound */
	struct fd_rule *fd_rules; /* --fd */
	unsigned n_fd_rules;
	uint32_t close_unsupported; /* --unsupported close */
	uint32_t deny_io_uring;
	uint32_t tcp_repair; /* --tcp repair */
};

/* System V IPC objects, which belong to an IPC namespace. */
struct sysv_shm {
	int32_t id, key;
	uint32_t mode, uid, gid;
	uint64_t size;
	uint32_t space;
	uint32_t removed; /* IPC_RMID'd: goes with the last who has it attached */
};

struct sysv_sem {
	int32_t id, key;
	uint32_t mode, uid, gid;
	struct blob values; /* 16 bits each */
};

struct sysv_message {
	int64_t type;
	struct blob data;
};

struct sysv_msg {
	int32_t id, key;
	uint32_t mode, uid, gid;
	uint64_t max_bytes;
	struct sysv_message *messages;
	unsigned n_messages;
};

/* The terminal that the job runs on, when it is not one of its own making. */
struct terminal_state {
	char *path;          /* NULL: there was none */
	struct blob termios; /* struct termios2 */
	uint32_t rows, columns;
	int32_t group; /* the foreground group, 0: none of the job's */
};

#define SETTINGS_MTBF_NS (UINT64_C(24) * 3600 * 1000000000) /* where none is given */

/* How pages get out of the job: see --mode. The first two are old images' --no-snapshot and
 * default.
 */
enum copy_mode { MODE_STOP = 0, MODE_AUTO = 1, MODE_SNAPSHOT = 2, MODE_PRECOPY = 3 };

enum compress_mode { COMPRESS_AUTO = 0, COMPRESS_LZ4 = 1, COMPRESS_NONE = 2 };

struct tree {
	uint64_t seq; /* number of the checkpoint in its chain */
	struct host host;
	struct settings settings;
	struct space *spaces;
	unsigned n_spaces;
	struct file *files;
	unsigned n_files;
	struct process *processes; /* a parent before its children; the root first */
	unsigned n_processes;
	struct terminal_state terminal;
	struct zombie *zombies;
	unsigned n_zombies;
	struct sysv_shm *shms;
	unsigned n_shms;
	struct sysv_sem *sems;
	unsigned n_sems;
	struct sysv_msg *queues;
	unsigned n_queues;
};

extern const struct schema tree_schema;
const char *vma_kind_name(uint32_t kind);

const struct file *tree_file(const struct tree *t, uint32_t id);
const struct space *tree_space(const struct tree *t, uint32_t id);
