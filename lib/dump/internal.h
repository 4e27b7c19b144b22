/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of the dump room: what a checkpoint in the making and a job between checkpoints consist
 * of. */
#pragma once

#include "dump/dump.h"
#include "dump/hashes.h"
#include "dump/policy.h"
#include "dump/scout.h"
#include "dump/tracker.h"
#include "inject/live.h"
#include "object/object.h"
#include "proc/watches.h"
#include "trace/freeze.h"
#include "util/arena.h"

/* Where the pages of a space are read from. */
enum page_source { SOURCE_MEMORY, SOURCE_FD };

/* What is known about pages before they are read. */
enum extent_kind {
	EXTENT_COMPARE,        /* may have changed since the parent: their hashes tell */
	EXTENT_CHANGED,        /* to be written */
	EXTENT_PARENT,         /* as in the parent: not read at all */
	EXTENT_PARENT_OR_ZERO, /* as in the parent, unless it reads as zero */
};

/* A stretch of pages that are there, of one space. */
struct extent {
	uint64_t page; /* first page number in the space */
	uint64_t npages;
	uint64_t address; /* SOURCE_MEMORY: where to read it in the process; SOURCE_FD: file offset
			   */
	enum extent_kind kind;
	/* Read after the thaw, from the list's later_fd: the copy there does not change any more.
	 */
	bool later;
	int fd; /* /proc/PID/mem, or the content's descriptor; borrowed */
};

struct page_list {
	uint32_t space;
	enum page_source source;
	int fd;       /* which the extents that are added next are read from */
	pid_t pid;    /* whose memory it is, when all are read from that; else 0 */
	int later_fd; /* the same of a snapshot, at the same addresses; -1: none; borrowed, good
			 until the image is complete */
	struct reading *reading; /* of that snapshot: what of it is left to be read */
	uint64_t others; /* pages that are there and in no extent: nobody reads them at the stop */
	struct extent *extents; /* ascending after pages_sort */
	unsigned n_extents;
};

/* A system call that was interrupted in a restart block, remembered by thread (dump/syscalls.c). A
 * list of them is sorted by thread. */
struct remembered_call {
	pid_t tid;
	uint64_t rip, rsp;
	int64_t nr;
};

/* A wait with a timeout that checkpoints keep starting anew (dump/waits.c). A list of them is
 * sorted by thread. */
struct remembered_wait {
	pid_t tid;
	unsigned process; /* its index in this checkpoint */
	uint64_t rip, rsp;
	int64_t first_seen_ns, last_seen_ns;
	unsigned long long
		runs; /* how often it had been put on a CPU (/proc/PID/task/TID/schedstat) */
};

/* A process's accounts of what it wrote (dump/sync.c). */
struct written {
	uint64_t pid, wchar, write_bytes, children_faults;
};

struct space_key {
	char *key;
	uint64_t hash;
	bool used; /* at this checkpoint, or one before it that failed */
	uint32_t id;
};

struct dump_job {
	pid_t root;
	bool adopted; /* orphans of the job are children of the root's parent */
	struct chain *chain;
	const struct settings *settings;
	bool want_full;
	unsigned since_full; /* increments since the last full image */
	struct id128 parent; /* state of the last durable image */
	uint64_t parent_seq;
	struct space_key *keys;
	unsigned n_keys;
	uint32_t next_space;
	struct remembered_call *calls;
	unsigned n_calls;
	struct remembered_wait *waits;
	unsigned n_waits;
	struct hashes *hashes;
	struct tracing *tracing; /* dump/tracing.h */
	unsigned last_processes; /* at the last checkpoint */
	const struct tracker *tracker;
	bool by_hash;       /* ... is not the best one, since most of the memory is in huge pages */
	bool never_by_hash; /* ... which took too long, without a snapshot */
	bool has_foreign;   /* some memory is under the program's own userfaultfd */
	bool shares_memory; /* by CLONE_VM, or first threads have ended; or it was so once */
	struct watched **watched;
	unsigned n_watched;
	unsigned careful;          /* so many checkpoints still read VmFlags at the stop */
	struct arena *flags_arena; /* of this attempt: the watched processes' flags */
	struct written written;
	struct policy policy;
	unsigned put_off; /* attempts in a row that waited for inotify events to be read */
	struct watch_memory watches;
	uint64_t at_stop; /* pages that the last one copied while the job stood still */
	/* Memory that the state took in the last one, and what its scout saw: the next finds it
	 * there. */
	size_t state_bytes, seen_bytes;
	bool no_snapshots;  /* their remains would not be reaped */
	bool skip_snapshot; /* the last was killed (for lack of memory?): once without */
};

/* A process's mappings as /proc shows them. */
struct map_list {
	struct proc_map *maps;
	unsigned n;
	const struct watched *flags_from; /* where its flags were taken from; NULL: smaps */
};

/* A stopped process, by its ids: a thread that is alive first. */
struct whom {
	pid_t pid, *tids;
	unsigned n;
	unsigned task;               /* the scout's first that is about it */
	struct proc_status **status; /* of its threads, as far as read, in chunks */
};

struct everybody {
	struct whom *v;
	unsigned n;
	unsigned *whose; /* tasks: a process, and more of its threads; then descriptors of all */
	unsigned n_looks;
};

/* What /proc says of it before anything of ours is there. */
struct sight {
	int proc_dirfd, pidfd, mem_fd;
	struct proc_stat stat;
	struct proc_map *maps; /* without flags */
	unsigned n_maps;
	struct proc_status *threads; /* the first of them */
};

/* Large stretches of memory whose page tables two threads walk (dump/walk.c). */
struct walk {
	struct walk_stretch *v;
	unsigned n, n_tasks;
	int *fds; /* /proc/PID/pagemap of their processes */
	unsigned n_fds;
};

/* One checkpoint in the making. */
struct dumper {
	struct dump_job *job;
	struct freeze_opts freeze;
	struct frozen *frozen;
	struct capture cap;
	struct arena *arena;
	struct tree *tree;
	struct batch_store *batches; /* of the subjects' batches */
	int *mem_fds;                /* for each process: /proc/PID/mem, -1 when not open */
	/* For each process the first in the list whose memory it has: itself, unless by CLONE_VM.
	 */
	unsigned *memory_of;
	bool memory_unknown;  /* kcmp(2) is not allowed */
	struct scout *scout;  /* NULL: nobody reads ahead */
	struct scout *asker;  /* the same, of what files_capture leaves */
	struct scout *walker; /* and of page tables */
	struct brood *brood;  /* dump/brood.c; NULL: there is none */
	struct walk walk;
	struct everybody everybody;
	struct map_list *maps;        /* for each process */
	struct thread_facts **facts;  /* for each process, an array parallel to its threads */
	const struct file **contents; /* files whose content is a space */
	unsigned n_contents, files_looked_at;
	struct remembered_wait *waits; /* of this checkpoint */
	unsigned n_waits;
	struct page_list *lists; /* ascending by space */
	unsigned n_lists;
	bool incremental;
	const struct tracker *tracker; /* NULL: nobody will ask what changed since this image */
	bool flags_looked;             /* dump/flags.c: just now */
	bool attaching;   /* a stop in which nothing is recorded, only a tracker attached */
	bool has_foreign; /* some memory is under a userfaultfd of the program's own */
	bool hashing;     /* an increment may stand on it: hashes of what is not watched are kept */
	struct dump_result *result;
	struct image_writer *writer;
	struct snapshots *snapshots; /* NULL: none taken */
	struct menders *menders;     /* NULL: none made */
	struct warden *warden;       /* who sees to them should the job end; NULL: nobody */
	uint64_t huge, present;      /* bytes: in huge pages, of all, in processes that are large */
	uint8_t *buf;                /* IMAGE_BLOCK_PAGES pages: what is read to be looked at */
	unsigned flags;
	/* for the policy (dump/measure.c): */
	struct policy_forecast forecast;
	bool foresaw_precopy;         /* ... of copying ahead too */
	bool fresh;                   /* the tracker is attached at the stop */
	uint64_t stop_us, copy_us;    /* the stop, and the copying in it */
	uint64_t copied, copy_before; /* pages: so far; that are copied in any case */
	uint64_t forked;              /* pages of forked processes */
	unsigned n_forked;
	int64_t start_ns; /* when the first thread was stopped */
	int64_t begin_ns; /* when the attempt began */
	int64_t end_ns;   /* when the image was durable, if more came after it; else 0 */
};

/*
 * dump/memory.c: the mappings of a process, and the lists of pages to be written for it. The
 * mappings are read before anything of ours is mapped there; the rest needs the open files (whose
 * content a mapping may share) and a remote.
 */
int memory_read_maps(struct dumper *d, const struct subject *s, const struct sight *look,
		     struct map_list *ret, struct err *err);
int memory_capture(struct dumper *d, struct subject *s, const struct map_list *maps, int mem_fd,
		   struct err *err);
/*
 * dump/foreign.c: mappings under a userfaultfd of the program's own: which these are (their flags
 * must be known), whether the process has such a descriptor, whether they can be restored, and
 * their pages.
 */
void foreign_mark(struct dumper *d, struct watched *w, struct map_list *maps);
bool foreign_descriptor(int proc_dirfd, struct arena *a);
/* Has the process one that is left out? What it goes on registering must not be taken: it is not
 * watched. */
bool foreign_left_out(struct dumper *d, const struct subject *s);
bool foreign_allowed(struct dumper *d, const struct proc_map *m);
int foreign_scan(struct dumper *d, struct subject *s, const struct map_list *maps,
		 struct page_list *list, int pagemap_fd, struct err *err);
/* Build ids of mapped files: after the thaw, since reading them takes time. */
void memory_describe_files(struct dumper *d);

/*
 * dump/look.c: what /proc says of a process before anything of ours is there. look_open only opens
 * its files. In the tracer: the list of all (d->everybody), the scout sent out, and what it has
 * found or is read now: of a process, of a thread of one that has been taken; of the descriptors of
 * one, NULL if nobody has looked.
 */
int look_open(const struct whom *w, struct arena *a, struct sight *l, struct err *err);
void look_close(struct sight *l);
int look_list(struct dumper *d, struct err *err);
void look_ahead(struct dumper *d);
int look_take(struct dumper *d, unsigned index, struct sight *ret, struct err *err);
int look_thread(struct dumper *d, unsigned index, unsigned i, const struct proc_status **ret,
		struct err *err);
const struct fd_looks *look_take_fds(void *arg, unsigned index);

/*
 * dump/walk.c: page tables of large stretches, walked by another thread too. walk_begin: once the
 * mappings of all processes are known. walk_take: what there is in the stretch that begins with a
 * mapping (its index); 1, or 0 if it is none of those. walk_free: when the walker has ended.
 * walk_how: what the pages of a process are expected to be (enum page_look).
 */
unsigned walk_how(const struct watched *w);
void walk_begin(struct dumper *d);
int walk_take(struct dumper *d, unsigned process, unsigned first_map, struct page_runs *into,
	      struct err *err);
void walk_free(struct dumper *d);

/*
 * dump/brood.c: somebody who sees which children the processes have that are being stopped, if
 * there are many. In ckpt-run, before; in the tracer, while it stops them; in ckpt-run, afterwards.
 */
void brood_new(struct dumper *d);
void brood_begin(struct dumper *d);
void brood_end(struct dumper *d);
void brood_free(struct dumper *d);

/* dump/watched.c: what is known of each process's memory from one checkpoint to the next. */
struct watched *watched_find(struct dump_job *job, pid_t pid, unsigned long long start_time);
int watched_get(struct dump_job *job, pid_t pid, const struct proc_stat *st, struct watched **ret,
		struct err *err);
/* At the stop: nobody watches memory that its process has left to others who share it. */
int watched_settle(struct dumper *d, struct err *err);
/* An attempt has begun / has ended: when its image is durable, what was pending is in it. */
void watched_begin(struct dump_job *job);
void watched_end(struct dump_job *job, bool durable);
/* No increment will follow: the running job is not slowed down any more. */
void watched_rest(struct dump_job *job);
void watched_free(struct dump_job *job);

/* dump/job.c: the id of a space by its key, the same in each checkpoint; those not asked for since
 * the last time are forgotten, once an image is durable. */
uint32_t dump_space_id(void *job, const char *key);
void dump_forget_spaces(struct dump_job *job);

/* dump/dump.c: parts of a checkpoint's story that pre-copy has as well. */
int dump_init(struct dumper *d, struct err *err);
/* In the tracer: stops the job and makes room for what will be known of its processes. */
int dump_stop(struct dumper *d, struct err *err);
/* Of an error, before dump_release: -EAGAIN where it comes of a process of the job's having been
 * killed, since that gets through our stop; or having ended before it. */
int dump_ended(struct dumper *d, int rc, struct err *err);
void dump_release(struct dumper *d);

/* dump/precopy.c: copies pages into the image while the job runs. */
int precopy_run(struct dumper *d, struct err *err);
bool precopy_attached(const struct dump_job *job);

/* dump/ahead.c: pages of a running process, as far as they are there and watched, into the image;
 * adds how many to *copied. */
int ahead_copy(struct dumper *d, struct watched *w, int pagemap_fd, int mem_fd,
	       const struct ranges *what, uint64_t *copied, struct err *err);

/* dump/stops.c: short stops before that. */
int stops_attach(struct dumper *d, struct err *err);
int stops_barrier(struct dumper *d, struct err *err);

/*
 * dump/measure.c: may pages be copied ahead; does that pay when `copy` pages are to be copied
 * (attached: by a job that is watched already); at the stop, with the lists sorted; and afterwards.
 */
bool measure_can_copy_ahead(const struct dumper *d);
bool measure_copy_ahead(struct dumper *d, uint64_t copy, bool attached);
void measure_at_stop(struct dumper *d);
/* May an increment follow the next image; and what the last, which is durable, says about that. */
bool measure_watch(const struct dump_job *job);
void measure_note_increment(struct dumper *d);
void measure_note(struct dumper *d);
/* As policy_note; but with CKPT_WITHOUT=experience nothing is learnt, and the choices of the policy
 * do not depend on how fast the machine is (for tests). */
void measure_learn(double *price, double measured);
void measure_say_why(struct dumper *d);

/*
 * dump/flags.c: before the stop, at it (false: smaps must be read), and after it, when the flags
 * that were taken from before turn out to be right or not (-EAGAIN).
 */
void flags_look(struct dumper *d);
/* Who is there before the first stop is known from here on (watched_find). */
void flags_meet(struct dump_job *job);
bool flags_apply(const struct watched *w, struct proc_map *maps, unsigned n);
int flags_verify(struct dumper *d, struct err *err);
/* They are not needed after the stop. */
void flags_forget(struct dump_job *job);

/* dump/scan.c: which pages of a process's private memory there are, and what is known of them. */
/* Mapping by mapping, and only those that hold something as smaps says? */
bool scan_by_map(const struct dumper *d);
/* Must all pages that it has be in the image? */
bool scan_takes_all(const struct dumper *d, const struct watched *w);
/* And where not: those that are read at its stop. */
const struct ranges *scan_due(const struct watched *w);
int scan_process(struct dumper *d, struct subject *s, const struct map_list *maps,
		 struct page_list *list, struct watched *w, int pagemap_fd, struct err *err);
/*
 * dump/settle.c: what was copied ahead, and is not what is there, does not count: of pages that
 * have come anew, at the stop, before these are read; and, with the job running again, of pages
 * that have gone. Then the others under watch, which nobody has read, are said to be as in the
 * parent.
 */
int settle_anew(struct dumper *d, struct err *err);
int settle_rest(struct dumper *d, struct err *err);

/* dump/shared.c: content of shared spaces (memfds, deleted files, shared anonymous memory). */
int shared_capture(struct dumper *d, struct err *err);

/* dump/threads.c: registers and attributes of each thread: what can be seen from outside, before
 * any call is run in the process; then the rest. */
int threads_look(struct dumper *d, unsigned index, struct err *err);
int threads_finish(struct dumper *d, unsigned index, const struct thread_facts *facts,
		   struct err *err);

/* The key of a process's private memory, for dump_space_id. */
#define PROCESS_KEY_LEN 80
void process_key(char key[PROCESS_KEY_LEN], pid_t pid, unsigned long long start_time);

/* dump/process.c: one stopped process, from its mappings to its threads. process_open: just enough
 * to read its memory and /proc. */
int process_open(struct dumper *d, unsigned index, struct err *err);
int processes_capture(struct dumper *d, struct err *err);
/* Of one, only so far that its first thread can be asked to run calls; the others are sent out; and
 * are back. */
int process_begin(struct dumper *d, unsigned index, struct err *err);
int process_ask(struct dumper *d, unsigned index, struct err *err);
int process_ready(struct dumper *d, unsigned index, struct err *err);
/* All of them: each is given back to itself, and stays stopped. */
int process_end_remotes(struct dumper *d, struct err *err);
/* Is it captured with another, whose memory it shares? */
bool process_is_guest(const struct dumper *d, unsigned index);
void process_release_all(struct dumper *d);

/*
 * dump/gather.c: scattered pages of a running or stopped process in few calls. Of the extents from
 * first on, as many as are small and lie in the process's memory (those that come from the parent
 * are passed by): their pages one after the other in buf (IMAGE_BLOCK_PAGES). Returns how many
 * extents that was; 0: they cannot be read so.
 */
unsigned gather(const struct page_list *l, unsigned first, uint8_t *buf);
/* The same of at most GATHER_PIECES runs of small size; how many, from the first on, are in buf. */
#define GATHER_PIECES 256u
#define GATHER_SMALL  16u /* pages */
unsigned gather_runs(pid_t pid, const struct page_class_run *runs, unsigned n, uint8_t *buf);

/* dump/sync.c: what the job wrote to its files must be on disk before the image that relies on it
 * is. */
int sync_files(struct dumper *d, struct err *err);

/*
 * dump/syscalls.c. What a thread's registers are to be read as: one that was interrupted before and
 * let go, and has not come to its restart_syscall(2) yet, is as good as in it.
 */
void syscalls_see(const struct user_regs_struct *gp, int mem_fd, struct user_regs_struct *ret);
/* dump/syscalls.c: the number of the call behind a restart_syscall. */
int64_t syscalls_original(struct dump_job *job, pid_t tid, const struct user_regs_struct *gp,
			  int mem_fd);
/* Forgets threads that are no longer in the call that was remembered. */
void syscalls_remember(struct dump_job *job, const struct frozen *f);

/* dump/family.c: who shares its memory with whom, before any is captured. */
int family_find_memory(struct dumper *d, struct err *err);
/* Zombies, sessions, what processes share; refuses a tree that could not be made
 * again. When all processes are captured. */
int family_capture(struct dumper *d, struct err *err);

/* dump/waits.c: interrupted waits whose time is over return. */
int waits_expire(struct dumper *d, unsigned index, struct err *err);
/* When no more calls will be run in any process. all: every thread has been looked at, and what is
 * not waiting any more is forgotten. */
void waits_remember(struct dumper *d, bool all);

/*
 * dump/snapshot.c: forks the stopped processes where that pays (or is wanted), and marks what will
 * be read from the copies later. The lists are sorted, the remotes still there. A refused fork is
 * not an error: the mode in the result says what was done. The tracer must not end before the
 * copies have been read: they end with it.
 */
int snapshots_take(struct dumper *d, struct err *err);
/*
 * What nobody will read any more of a list's snapshot that gives up, and the job need not copy it:
 * at first all that will not be read at all, then what has been, addresses ascending.
 */
void snapshots_begin(const struct page_list *l);
void snapshots_read(const struct page_list *l, uint64_t start, uint64_t end);
/* In the tracer: nothing more will be read, they begin to go. In ckpt-run, once the tracer has
 * ended: they have gone. */
void snapshots_kill(struct dumper *d);
void snapshots_free(struct dumper *d);
/* In the tracer, once they have been killed: until their memory has gone. */
void snapshots_wait(struct dumper *d, int64_t deadline_ns);
/* Would a process of the job's be told of the end of one of ours? */
bool snapshots_adopted(const struct dumper *d);

/*
 * dump/mend.c: transparent huge pages that a checkpoint has split. Which there are, before it does
 * anything to them; in the tracer, a companion for each process that has some, with the remotes
 * still there; and with the image durable, what has been lost is given back. Nothing of it is worth
 * failing for. The companions must have gone (mend_kill in the tracer, mend_free in ckpt-run)
 * before anybody looks for the job's processes again.
 */
void mend_look(struct dumper *d);
/* In the tree that will be written: which there were. */
void mend_record(struct dumper *d);
/* Which tracker suits a job with so many of them; afterwards: did it? */
void mend_choose_tracker(struct dumper *d);
void mend_note(struct dumper *d);
/* In ckpt-run, before the tracer. */
void mend_prepare(struct dumper *d);
int mend_take(struct dumper *d, struct err *err);
bool mend_wanted(const struct dumper *d);
void mend_all(struct dumper *d);
void mend_kill(struct dumper *d);
void mend_free(struct dumper *d);

/*
 * dump/pages.c: reads the listed pages and hands them to the writer, in two passes: while the job
 * stands still all but those whose extent says later; after the thaw those. Between gathering
 * (pages_sort) and the first pass a snapshot may mark extents so.
 */
int pages_write_now(struct dumper *d, struct image_writer *w, struct err *err);
int pages_write_later(struct dumper *d, struct image_writer *w, struct err *err);
struct page_list *pages_list_for(struct dumper *d, uint32_t space, enum page_source source, int fd);
int pages_add(struct dumper *d, struct page_list *l, enum extent_kind kind, uint64_t page,
	      uint64_t npages, uint64_t address);
void pages_sort(struct dumper *d);
