/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracing process. Tracees belong to the thread that seized them, and SIGKILL ends all threads
 * of a process at once; so what traces is a process, made by clone(CLONE_VM) without CLONE_THREAD,
 * which sees its parent die and puts everything back (trace/outlive.c).
 *
 * The C library keeps data for each thread (errno, malloc's cache) in memory that the thread's fs
 * base leads to, and knows nothing of such a process. So a thread is made for it, whose data it
 * uses, and which itself does nothing meanwhile but sleep in one system call.
 *
 * The thread is the same at all checkpoints of a job: its malloc arena, from which comes what the
 * tracer leaves for the next time, would be another thread's when it has ended, a scout's or one of
 * the writer's. If that were then stopped (SIGSTOP) with the arena's lock in its hands, the tracer
 * would wait for it in free or realloc while the job stands still.
 */
#include "dump/tracing.h"

#include "proc/probe.h"
#include "trace/outlive.h"
#include "util/fault.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_ROOM           "dump"
#define STACK_BYTES        (1024 * 1024)
#define THREAD_STACK_BYTES (STACK_BYTES + 256 * 1024)
#define SLICE_NS           100000 /* the shortest there is */

struct tracing {
	pthread_t thread;
	sem_t wanted, over;
	bool by_thread, ends;
	/* of this time */
	pid_t root, parent;
	int (*fn)(void *arg, struct err *err);
	void *arg;
	struct err *err;
	int rc;
	bool refused, returned;
};

/* The same question as for PTRACE_SEIZE, which would leave the thread seized. */
static bool may_trace(pid_t pid)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof path, "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)close(fd);
	return fd >= 0 || (errno != EACCES && errno != EPERM);
}

/* As in the kernel's uapi/linux/sched/types.h; not all C libraries have it. */
struct scheduling {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/*
 * A thread of the job that is let go may be woken on the tracer's CPU, and would have it for a
 * whole slice while others wait to be let go. Whose slices are shorter is not put off by that
 * (since Linux 6.12, sched(7): a fair task's runtime is its slice; before, it is ignored).
 */
static void take_short_slices(void)
{
	struct scheduling s = { 0 };

	if (syscall(SYS_sched_getattr, 0, &s, sizeof s, 0) < 0 || s.policy != SCHED_OTHER)
		return;
	s.runtime = SLICE_NS;
	(void)syscall(SYS_sched_setattr, 0, &s, 0);
}

/* A signal for ckpt-run's process group, or for all called ckpt-run, is not for this process. */
static int process_main(void *arg)
{
	struct tracing *t = arg;

	(void)setpgid(0, 0);
	(void)prctl(PR_SET_NAME, "ckpt-tracer");
	t->refused = outlive_begin(t->parent) < 0 || !may_trace(t->root);
	if (!t->refused) {
		t->rc = t->fn(t->arg, t->err);
		t->returned = true;
	}
	_exit(0);
}

/* The process's stack lies in the thread's: tools that watch over stacks know it then. */
static int run_process(struct tracing *t)
{
	_Alignas(64) char stack[STACK_BYTES];
	int status = 0;
	pid_t pid;

	pid = clone(process_main, stack + sizeof stack,
		    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_IO, t);
	if (pid < 0)
		return -errno;
	/* No other function of the C library until it has gone: the thread's data is its. */
	while (syscall(SYS_wait4, pid, &status, __WALL, NULL) < 0)
		;
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void wait_sem(sem_t *sem)
{
	while (sem_wait(sem) < 0)
		;
}

/* False: this thread is of no use any more. */
static bool run(struct tracing *t)
{
	int sig = 0;

	if (!t->by_thread)
		sig = run_process(t);
	if (t->by_thread || sig < 0 || t->refused) {
		t->by_thread = true;
		t->rc = t->fn(t->arg, t->err);
		t->returned = true;
	}
	if (t->returned)
		return true;
	/* It may have been in the middle of anything. What the C library keeps for this thread is
	 * not to be relied upon any more, not even to end it. */
	t->rc = err_set(t->err, -EIO, "the tracing process was ended by signal %d", sig);
	return false;
}

static void *thread_main(void *arg)
{
	struct tracing *t = arg;
	bool useful = true;

	take_short_slices(); /* and the process inherits it */
	while (useful) {
		wait_sem(&t->wanted);
		if (t->ends)
			return NULL;
		useful = run(t);
		(void)sem_post(&t->over);
	}
	for (;;)
		(void)pause();
}

static int add_thread_locals(struct dl_phdr_info *object, size_t size, void *arg)
{
	size_t *bytes = arg;

	(void)size;
	for (unsigned i = 0; i < object->dlpi_phnum; i++)
		if (object->dlpi_phdr[i].p_type == PT_TLS)
			*bytes += object->dlpi_phdr[i].p_memsz + object->dlpi_phdr[i].p_align;
	return 0;
}

/* The C library takes a thread's local variables from its stack; a sanitizer's are half a MiB. */
int thread_start_blocked(pthread_t *ret, size_t stack_bytes, void *(*main)(void *), void *arg)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int rc;

	(void)sigfillset(&all);
	rc = pthread_attr_init(&attr);
	if (rc != 0)
		return -rc;
	(void)dl_iterate_phdr(add_thread_locals, &stack_bytes);
	(void)pthread_attr_setstacksize(&attr, stack_bytes);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(ret, &attr, main, arg);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	return -rc;
}

static struct tracing *tracing_new(struct err *err)
{
	struct tracing *t = calloc(1, sizeof *t);
	int rc;

	if (!t) {
		(void)err_nomem(err);
		return NULL;
	}
	t->by_thread = probe_without("tracer");
	(void)sem_init(&t->wanted, 0, 0);
	(void)sem_init(&t->over, 0, 0);
	rc = thread_start_blocked(&t->thread, THREAD_STACK_BYTES, thread_main, t);
	if (rc == 0)
		return t;
	err_set(err, rc, "cannot start a thread: %m");
	free(t);
	return NULL;
}

int tracing_run(struct tracing **tracing, pid_t root, int (*fn)(void *arg, struct err *err),
		void *arg, struct err *err)
{
	struct tracing *t = *tracing ? *tracing : tracing_new(err);
	int rc;

	if (!t)
		return err ? err->code : -ENOMEM;
	*tracing = t;
	t->root = root;
	t->parent = getpid();
	t->fn = fn;
	t->arg = arg;
	t->err = err;
	t->refused = t->returned = false;
	fault_program(t->parent);
	(void)sem_post(&t->wanted);
	wait_sem(&t->over);
	log_debug("traced by a %s", t->by_thread ? "thread" : "process");
	rc = t->rc;
	if (!t->returned) {
		(void)pthread_detach(t->thread);
		free(t);
		*tracing = NULL;
	}
	return rc;
}

void tracing_free(struct tracing *t)
{
	if (!t)
		return;
	t->ends = true;
	(void)sem_post(&t->wanted);
	(void)pthread_join(t->thread, NULL);
	free(t);
}
