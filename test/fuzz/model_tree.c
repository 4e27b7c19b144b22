/* SPDX-License-Identifier: BSD-2-Clause */
/* The invented job's tree: every kind of file, list and detail occurs, with names that are hard to
 * print. */
#include "model.h"

#include "util/bytes.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

struct builder {
	struct arena *a;
	struct tree *t;
	unsigned g;
	bool failed; /* out of memory: what was built is not used */
};

static void *keep(struct builder *b, void *p)
{
	static uint8_t
		spare[4096]; /* stands in for what could not be had, until failed is looked at */

	if (p)
		return p;
	b->failed = true;
	return spare;
}

#define PUSH(b, owner, list)                                                                       \
	((__typeof__((owner)->list))keep(                                                          \
		b, arena_push((b)->a, &(owner)->list, &(owner)->n_##list, sizeof *(owner)->list)))

static char *str(struct builder *b, const char *s)
{
	return keep(b, arena_strdup(b->a, s));
}

static struct blob blob(struct builder *b, size_t len, unsigned seed)
{
	struct blob ret = { keep(b, arena_alloc(b->a, len)), (uint32_t)len };

	if (b->failed)
		ret.len = 0;
	for (size_t i = 0; i < ret.len; i++)
		ret.data[i] = (uint8_t)(i * 7 + seed);
	return ret;
}

static void add_spaces(struct builder *b, const struct model *m)
{
	static const char *const names[] = { "pid 100", "pid 101", "shared", "/tmp/gone (deleted)",
					     "pid 102" };
	static const uint32_t kinds[] = { SPACE_MM, SPACE_MM, SPACE_SHM, SPACE_FILE, SPACE_MM };

	for (uint32_t id = 1; id <= MODEL_SPACES; id++) {
		struct space *s;

		if (!model_has_space(m, id, b->g))
			continue;
		s = PUSH(b, b->t, spaces);
		*s = (struct space){ .id = id,
				     .kind = kinds[id - 1],
				     .name = str(b, names[id - 1]) };
		s->size = s->kind == SPACE_MM ? 0 : (uint64_t)m->pages * CKPT_PAGE_SIZE;
	}
}

/* --- files ---------------------------------------------------------------------------------------
 */

#define DETAIL(b, T, ...)                                                                          \
	({                                                                                         \
		T value_ = { __VA_ARGS__ };                                                        \
		keep(b, arena_memdup((b)->a, &value_, sizeof value_));                             \
	})

static void *file_detail(struct builder *b, uint32_t kind)
{
	switch (kind) {
	case FILE_DELETED:
		return DETAIL(b, struct file_content, .space = 4, .nlink_was_zero = 1);
	case FILE_MEMFD:
		return DETAIL(b, struct file_content, .space = 3, .seals = 6, .memfd_flags = 1);
	case FILE_PIPE:
	case FILE_FIFO: {
		struct file_pipe *pipe =
			DETAIL(b, struct file_pipe, .pipe = 4711, .capacity = 65536);

		pipe->has_content = 1;
		PUSH(b, pipe, packets)->data = blob(b, 11, b->g);
		return pipe;
	}
	case FILE_EVENTFD:
		return DETAIL(b, struct file_eventfd, .count = UINT64_MAX - 1, .semaphore = 1);
	case FILE_TIMERFD:
		return DETAIL(b, struct file_timerfd, .clockid = 1, .value_ns = 5,
			      .interval_ns = 1000000);
	case FILE_SIGNALFD:
		return DETAIL(b, struct file_signalfd, .mask = 0x8000000000000001u);
	case FILE_EPOLL: {
		struct file_epoll *epoll = DETAIL(b, struct file_epoll, .n_watches = 0);

		*PUSH(b, epoll, watches) =
			(struct epoll_watch){ .fd = 3, .events = 1, .data = UINT64_MAX, .file = 1 };
		return epoll;
	}
	case FILE_INOTIFY: {
		struct file_inotify *in = DETAIL(b, struct file_inotify, .n_watches = 0);

		*PUSH(b, in, watches) =
			(struct inotify_watch){ .wd = 1, .mask = 2, .path = str(b, "/etc") };
		in->queued = blob(b, 32, 1);
		return in;
	}
	case FILE_OUTSIDE:
		return DETAIL(b, struct file_outside, .stream = 1,
			      .what = str(b, "terminal /dev/pts/3"));
	case FILE_MQUEUE: {
		struct file_mqueue *q = DETAIL(b, struct file_mqueue, .max_messages = 10,
					       .message_size = 8192, .notify_pid = 100);

		*PUSH(b, q, messages) =
			(struct mqueue_message){ .priority = 7, .data = blob(b, 20, b->g) };
		return q;
	}
	case FILE_PIDFD:
		return DETAIL(b, struct file_pidfd, .pid = 100);
	case FILE_PTY:
		return DETAIL(b, struct file_pty, .index = 3, .master = 1, .rows = 24,
			      .columns = 80, .session = 100, .group = 101,
			      .termios = blob(b, 44, 2), .input = blob(b, 5, b->g),
			      .output = blob(b, 300, b->g));
	case FILE_SOCKET: {
		struct file_socket *sock =
			DETAIL(b, struct file_socket, .family = 1, .type = 1, .state = 3);
		struct socket_message *m;

		sock->local = blob(b, 12, 7);
		sock->peer_file = FILE_SOCKET;
		*PUSH(b, sock, options) =
			(struct socket_option){ .level = 1, .name = 7, .value = blob(b, 4, 1) };
		m = PUSH(b, sock, messages);
		m->data = blob(b, 13, b->g);
		PUSH(b, m, rights)->file = FILE_REGULAR;
		PUSH(b, sock, waiting)->file = FILE_SOCKET;
		return sock;
	}
	default:
		return NULL;
	}
}

static void add_files(struct builder *b, bool has_deleted)
{
	for (uint32_t kind = FILE_REGULAR; kind < FILE_KIND_COUNT; kind++) {
		struct file *f;

		if (kind == FILE_DELETED && !has_deleted)
			continue;
		f = PUSH(b, b->t, files);
		/* tabs, escapes, quotes, bytes that are no UTF-8, and some that are */
		*f = (struct file){
			.id = kind,
			.kind = kind,
			.flags = O_RDWR | O_APPEND,
			.mode = 0100644,
			.pos = kind * 1000u + b->g,
			.path = str(b, kind % 2 ? "/tmp/a \"b\"\t\033[31m\\c"
						: "/tmp/\xff\xc3\xa9\xe2\x82\xac\xc2\x9b"),
			.dev = 0x800001,
			.ino = 7,
			.size = 12345,
			.mtime_ns = -1,
			.owner_pid = -100,
			.detail = file_detail(b, kind),
		};
		if (kind == FILE_REGULAR)
			*PUSH(b, f, locks) =
				(struct file_lock){ .type = LOCK_TYPE_OFD, .write = 1, .len = 10 };
	}
}

/* --- processes -----------------------------------------------------------------------------------
 */

static void add_thread(struct builder *b, struct process *p, int32_t tid)
{
	struct thread *t = PUSH(b, p, threads);

	*t = (struct thread){
		.tid = tid,
		.gregs = blob(b, 27 * 8, (unsigned)tid),
		.xstate = blob(b, 832, (unsigned)tid),
		.syscall_nr = tid % 2 ? 230 : -1,
		.sigmask = 0xf0,
		.comm = str(b, "worker"),
		.nice = -5,
		.affinity = blob(b, 8, 3),
		.timer_slack_ns = 50000,
		.rseq_ptr = 0x7f0000001000u,
		.rseq_len = 32,
	};
	PUSH(b, t, pending)->siginfo = blob(b, 128, 9);
}

static struct vma *add_vma(struct builder *b, struct process *p, uint64_t first, uint64_t npages,
			   uint32_t kind)
{
	struct vma *v = PUSH(b, p, vmas);

	*v = (struct vma){ .start = first * CKPT_PAGE_SIZE,
			   .end = (first + npages) * CKPT_PAGE_SIZE,
			   .kind = kind,
			   .prot = PROT_READ | PROT_WRITE,
			   .flags = MAP_PRIVATE };
	return v;
}

static void add_vmas(struct builder *b, const struct model *m, struct process *p, bool shares)
{
	unsigned half = m->pages / 2;
	struct vma *v;

	v = add_vma(b, p, 0x400, half, VMA_ANON);
	v->path = str(b, "[heap]");
	v->advice = ADVICE_HUGEPAGE;
	*PUSH(b, v, guards) = (struct range){ v->start, v->start + CKPT_PAGE_SIZE };
	if (shares) {
		v = add_vma(b, p, 0x7f0000000u, m->pages, VMA_SHM);
		v->flags = MAP_SHARED | MAP_ANONYMOUS;
		v->shm_space = 3;
		v->anon_name = str(b, "ring");
	}
	v = add_vma(b, p, 0x7f8000000u, 16, VMA_FILE);
	v->path = str(b, "/lib/libc.so.6");
	v->offset = 0x2000;
	v->build_id = blob(b, 20, 1);
	v->file_size = 100000;
	v = add_vma(b, p, model_page_number(m, 1, half), m->pages - half, VMA_ANON);
	v->path = str(b, "[stack]");
	v->advice = ADVICE_GROWSDOWN;
	(void)add_vma(b, p, 0x7ffff8000u + m->pages, 2, VMA_VDSO);
}

static void add_process(struct builder *b, const struct model *m, int32_t pid, uint32_t space)
{
	struct process *p = PUSH(b, b->t, processes);

	*p = (struct process){ .pid = pid,
			       .ppid = pid == 100 ? 0 : 100,
			       .pgid = 100,
			       .sid = 100,
			       .space = space,
			       .exe = str(b, "/usr/bin/job"),
			       .cwd = str(b, "/tmp"),
			       .root = str(b, "/"),
			       .umask = 022,
			       .oom_score_adj = -7,
			       .next_timer_id = -1,
			       .coredump_filter = COREDUMP_FILTER_KNOWN | 0x3f,
			       .stopped = pid == 101 ? 20 : 0,
			       .exit_signal = 17,
			       .files_of = pid == 102 ? 101 : 0,
			       .stop_seen = pid == 101,
			       .leader_ended = pid == 101 && !m->small,
			       .leader_status = pid == 101 ? 7 << 8 : 0,
			       .mlock_future = pid == 101 ? 6 : 2,
			       .continued = pid == 102,
			       .xfeatures_asked = pid == 101 ? 1 << 18 : 0 };
	p->mm = (struct mm_layout){ .start_brk = 0x400000,
				    .brk = 0x500000,
				    .auxv = blob(b, 64, 2) };
	PUSH(b, &p->creds, groups)->id = 27;
	add_vmas(b, m, p, pid != 102);
	for (int32_t i = 0; i < (m->small ? 1 : 3); i++)
		add_thread(b, p, pid + i * 1000);
	for (unsigned i = 0; i < b->t->n_files; i++)
		*PUSH(b, p, fds) = (struct fd){ .fd = (int32_t)i,
						.cloexec = i % 2,
						.file = b->t->files[i].id };
	*PUSH(b, p, sigactions) =
		(struct sigaction_state){ .signo = 10, .handler = 0x401000, .flags = 4 };
	PUSH(b, p, pending)->siginfo = blob(b, 128, 4);
	*PUSH(b, p, itimers) = (struct itimer_state){ .which = 0, .value_us = 1 };
	*PUSH(b, p, timers) = (struct posix_timer){ .id = 5, .signo = 14, .sigval = UINT64_MAX };
	*PUSH(b, p, rlimits) =
		(struct rlimit_state){ .resource = 3, .soft = 8 << 20, .hard = UINT64_MAX };
	*PUSH(b, p, posix_locks) = (struct posix_lock){ .file = 1, .write = 1 };
	*PUSH(b, p, sem_undos) = (struct sem_undo){ .id = 1, .num = 2, .adjust = -3 };
	*PUSH(b, p, huge) = (struct range){ 0x10000000, 0x10200000 };
}

struct tree *model_tree(const struct model *m, unsigned g, struct arena *arena)
{
	struct builder b = { .a = arena, .t = arena_alloc(arena, sizeof(struct tree)), .g = g };
	struct tree *t = b.t;

	if (!t)
		return NULL;
	t->seq = g;
	t->host = (struct host){ .release = str(&b, "6.1.0"),
				 .version = str(&b, "#1"),
				 .machine = str(&b, "x86_64"),
				 .nodename = str(&b, "host\n"),
				 .xfeatures = 7,
				 .xsave_size = 832,
				 .realtime_ns = 1700000000000000000u + g,
				 .monotonic_ns = 123456789,
				 .vdso = blob(&b, 256, 5) };
	t->settings = (struct settings){ .name = str(&b, "job"),
					 .interval_ns = 1500000000,
					 .full_every = 50,
					 .incremental = 1,
					 .keep = 2,
					 .tracker = str(&b, "auto"),
					 .mtbf_ns = 86400000000000,
					 .max_overhead = 10000 };
	*PUSH(&b, &t->settings, fd_rules) = (struct fd_rule){ .fd = 9, .action = FD_NULL };
	PUSH(&b, &t->settings, argv)->s = str(&b, "job");
	PUSH(&b, &t->settings, argv)->s = str(&b, "two words");
	t->terminal = (struct terminal_state){ .path = str(&b, "/dev/pts/3"),
					       .termios = blob(&b, 44, 1),
					       .rows = 24,
					       .columns = 80,
					       .group = 100 };
	*PUSH(&b, t, shms) =
		(struct sysv_shm){ .id = 3, .key = 77, .mode = 0600, .size = 4096, .space = 3 };
	*PUSH(&b, t, sems) = (struct sysv_sem){ .id = 4, .values = blob(&b, 6, 1) };
	*PUSH(&b, t, queues) = (struct sysv_msg){ .id = 5, .max_bytes = 16384 };
	PUSH(&b, &t->queues[0], messages)->data = blob(&b, 9, 3);
	add_spaces(&b, m);
	add_files(&b, model_has_space(m, 4, g));
	add_process(&b, m, 100, 1);
	add_process(&b, m, 101, 2);
	if (model_has_space(m, 5, g))
		add_process(&b, m, 102, 5);
	*PUSH(&b, t, zombies) = (struct zombie){ .pid = 103,
						 .ppid = 101,
						 .pgid = 103,
						 .sid = 100,
						 .status = 9,
						 .exit_signal = 17,
						 .comm = str(&b, "gone\n") };
	return b.failed ? NULL : t;
}
