/* SPDX-License-Identifier: BSD-2-Clause */
/* What a process tree is: plain structs, captured by dump/, stored by image/, rebuilt by restore/.
 */
#pragma once

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

/* --- open files ----------------------------------------------------------------------------------
 */

enum file_kind {
	FILE_REGULAR = 1, /* named regular file: reopened by path */
	FILE_DELETED =
		2, /* regular file without a name (unlinked, O_TMPFILE): content in a space */
	FILE_DIRECTORY = 3,
	FILE_PATH = 4,   /* O_PATH of anything */
	FILE_DEVICE = 5, /* /dev/null, zero, full, random, urandom: reopened by path */
	FILE_PIPE = 6,   /* one end of a pipe inside the tree */
	FILE_FIFO = 7,   /* one end of a named FIFO inside the tree */
	FILE_EVENTFD = 8,
	FILE_TIMERFD = 9,
	FILE_SIGNALFD = 10,
	FILE_EPOLL = 11,
	FILE_INOTIFY = 12,
	FILE_MEMFD = 13,
	FILE_OUTSIDE =
		14, /* standard stream that leads out of the tree: taken from ckpt-restart's own */
	FILE_TTY = 15,  /* the controlling terminal opened by name: ckpt-restart's own terminal */
	FILE_PROC = 16, /* a file below /proc or /sys: reopened by path */
	FILE_PIDFD = 17,
	FILE_SOCKET = 18,
	FILE_PTY = 19,
	FILE_MQUEUE = 20, /* POSIX message queue */
	FILE_KIND_COUNT
};

struct file_lock {
	uint32_t type;       /* enum lock_type */
	uint32_t write;      /* 1 = exclusive */
	uint64_t start, len; /* len 0 = to the end; flock: 0, 0 */
};

enum lock_type { LOCK_TYPE_FLOCK = 1, LOCK_TYPE_OFD = 2, LOCK_TYPE_POSIX = 3 };

/* An open file description: what dup'ed and inherited descriptors share. */
struct file {
	uint32_t id;
	uint32_t kind;  /* enum file_kind */
	uint32_t flags; /* F_GETFL: access mode and status flags, plus O_DIRECTORY, O_NOFOLLOW,
			   O_PATH as opened */
	uint32_t mode;  /* st_mode */
	uint64_t pos;   /* file offset */
	char *path;     /* as /proc/PID/fd says, without " (deleted)"; NULL where it has none */
	uint64_t dev, ino, rdev, size; /* from fstat */
	int64_t mtime_ns;
	int32_t owner_type, owner_pid, owner_sig; /* F_GETOWN_EX, F_GETSIG; pid 0 = none */
	struct file_lock *locks; /* flock and OFD locks held through this description */
	unsigned n_locks;
	void *detail;     /* struct for the kind (below), or NULL */
	uint32_t lease;   /* F_GETLEASE + 1: 1 a read lease, 2 a write lease; 0 none */
	uint32_t content; /* FILE_REGULAR on tmpfs: the space that holds its content, or 0 */
};

struct fd {
	int32_t fd;
	uint32_t cloexec;
	uint32_t file; /* struct file id */
};

/* FILE_DELETED, FILE_MEMFD: the content is a space. */
struct file_content {
	uint32_t space;
	uint32_t seals;       /* F_GET_SEALS; memfd only */
	uint32_t memfd_flags; /* MFD_*: as far as they can be known */
	uint32_t nlink_was_zero;
};

/* FILE_PIPE, FILE_FIFO: one end; the first description captured of a pipe carries its content. */
struct file_pipe {
	uint64_t pipe;     /* the same for all ends of one pipe (its inode number) */
	uint32_t capacity; /* F_GETPIPE_SZ */
	uint32_t has_content;
	uint32_t no_readers, no_writers; /* the other side was closed at the checkpoint */
	struct pipe_packet
		*packets; /* unread bytes, front first; one element unless in packet mode */
	unsigned n_packets;
};

struct pipe_packet {
	struct blob data;
};

struct file_eventfd {
	uint64_t count;
	uint32_t semaphore;
};

struct file_timerfd {
	int32_t clockid;
	uint32_t settime_flags; /* TFD_TIMER_* */
	uint64_t ticks;
	uint64_t value_ns, interval_ns; /* value is relative */
};

struct file_signalfd {
	uint64_t mask;
};

struct epoll_watch {
	int32_t fd; /* the number under which it was added */
	uint32_t events;
	uint64_t data;
	uint32_t file; /* struct file id of the watched description */
};

struct file_epoll {
	struct epoll_watch *watches;
	unsigned n_watches;
};

struct inotify_watch {
	int32_t wd;
	uint32_t mask;
	char *path;
	uint64_t ino, dev;
};

struct file_inotify {
	struct inotify_watch *watches;
	unsigned n_watches;
	struct blob queued; /* unread events */
};

/* FILE_OUTSIDE: which of the caller's descriptors stands in for it. */
struct file_outside {
	uint32_t stream; /* 0, 1 or 2; or the number named with --inherit */
	char *what;      /* "terminal /dev/pts/3", "pipe", "socket" */
};

/* FILE_MQUEUE: empty at the checkpoint. */
struct file_mqueue {
	uint64_t max_messages, message_size;
};

/* FILE_PIDFD: of a process of the tree. */
struct file_pidfd {
	int32_t pid; /* 0: it has been waited for */
};

/* FILE_PTY: one side of a pseudo-terminal. What both sides share is recorded with the master. */
struct file_pty {
	uint32_t index;      /* N of /dev/pts/N */
	uint32_t master;     /* 1: this is the master, 0: a slave */
	uint32_t hung_up;    /* master: all slaves have been closed; slave: the master has */
	uint32_t locked;     /* TIOCSPTLCK */
	uint32_t packet;     /* TIOCPKT */
	uint32_t exclusive;  /* TIOCEXCL of the slave side */
	uint32_t stopped;    /* output is held back (Ctrl-S) */
	struct blob termios; /* struct termios2 */
	uint32_t rows, columns, xpixel, ypixel;
	int32_t session, group; /* whose controlling terminal it is, and its foreground group */
	uint32_t slave_mode;    /* permissions of /dev/pts/N */
	struct blob input;      /* unread by the slave */
	struct blob output;     /* unread by the master */
	uint32_t input_marks;   /* 1: zero bytes of the input are ends of file (Ctrl-D) */
};

/* FILE_SOCKET. Addresses are as getsockname and getpeername show them: a sockaddr of the length
 * that counts, empty where there is none. */
enum socket_state {
	SOCKET_PLAIN = 1,     /* not connected (perhaps bound) */
	SOCKET_LISTENING = 2, /* waiting: whose connections accept has not taken yet */
	SOCKET_CONNECTED = 3, /* to peer_file */
	SOCKET_WAITING = 4,   /* connected, in the accept queue of the listening socket peer_file */
	SOCKET_CLOSED = 5,    /* the other end was closed: what is unread still comes */
	SOCKET_OUTSIDE = 6,   /* the other end is not in the tree: comes back as reset by it */
	SOCKET_CONNECTING = 7, /* a TCP connection that is not there yet */
	SOCKET_RESET = 8,      /* a TCP connection that is no more */
};

enum socket_trait {
	SOCKET_ACCEPTED = 1 << 0, /* made by accept: its name is that of a listening socket */
	SOCKET_ERROR = 1 << 1,    /* an error (ECONNRESET) was waiting to be read */
	SOCKET_RELATIVE = 1 << 2, /* unix: the name is relative, the file's path says to what */
	SOCKET_UNLINKED = 1 << 3, /* unix: nothing lay at that path any more */
	SOCKET_SHUT_READ = 1 << 4,
	SOCKET_SHUT_WRITE = 1 << 5,
};

struct socket_option {
	uint32_t level, name; /* setsockopt(2) */
	struct blob value;
};

struct socket_right {
	uint32_t file; /* struct file id of a descriptor on its way (SCM_RIGHTS) */
};

/* Unread data; one message for all where there are no boundaries. */
struct socket_message {
	struct blob data;
	struct blob from; /* address of the sender */
	struct socket_right *rights;
	unsigned n_rights;
	uint32_t has_creds; /* SCM_CREDENTIALS */
	int32_t pid;
	uint32_t uid, gid;
};

/* What takes a TCP connection's place (--tcp repair): tcp(7), TCP_REPAIR. */
struct tcp_state {
	uint32_t known;              /* 0: was not asked for */
	uint32_t send_seq, recv_seq; /* of the next byte behind what is queued */
	uint32_t unsent;             /* how many of the queued bytes were never sent */
	uint32_t options, mss, snd_wscale, rcv_wscale, timestamp; /* options: TCPI_OPT_* */
	uint32_t snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup;
	struct blob queued; /* not acknowledged */
};

struct file_socket {
	uint32_t family, type, protocol;
	uint32_t state;  /* enum socket_state */
	uint32_t traits; /* enum socket_trait */
	struct blob local, peer;
	uint32_t peer_file;            /* struct file id, 0 = none */
	uint32_t backlog;              /* listen(2) */
	uint32_t mode;                 /* unix: st_mode of the socket's file */
	struct socket_option *options; /* those that differ from a new socket's */
	unsigned n_options;
	struct socket_message *messages; /* unread, front first */
	unsigned n_messages;
	struct socket_right *waiting; /* accept's queue, front first: the connecting ends */
	unsigned n_waiting;
	struct blob groups; /* netlink: the multicast groups, a bit each */
	struct tcp_state tcp;
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
	uint32_t stopped;      /* in a group stop (SIGSTOP) at the checkpoint: stays stopped */
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
/* The schema of struct file's detail for a kind; NULL when the kind has none (or is unknown). */
const struct schema *file_kind_schema(uint32_t kind);
/* "regular file", "pipe", ...; "unknown" for a kind that is not known. */
const char *file_kind_name(uint32_t kind);
const char *vma_kind_name(uint32_t kind);

const struct file *tree_file(const struct tree *t, uint32_t id);
const struct space *tree_space(const struct tree *t, uint32_t id);
