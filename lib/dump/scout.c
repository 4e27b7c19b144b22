/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Only the thread that seized a thread can trace it, but anybody may read /proc, on another CPU.
 * The scout goes through the tasks from the front; the tracer takes their results, does itself what
 * the scout has not begun, and takes over what the scout does not get done: it may be on no CPU, or
 * ckpt-run have been stopped (SIGSTOP) or killed. While it waits for one it does others, from the
 * back. So nothing is locked; the state of each task says whose it is.
 */
#include "dump/scout.h"

#include "dump/tracing.h"
#include "trace/outlive.h"
#include "trace/stop.h"
#include "util/word.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define PATIENCE_NS 5000000
#define STACK_BYTES (256 * 1024)

enum task_state { TASK_FREE, TASK_BEGUN, TASK_DONE, TASK_TAKEN };

struct task {
	atomic_int state;
	void *result;
};

struct scout {
	pthread_t thread;
	atomic_uint word; /* 0: wait; 1: there is work, 2: the end */
	atomic_bool enough;
	struct arena *arena;
	struct scout_work work;
	struct task *tasks;
	unsigned back;       /* the tracer has looked for a free one from here on */
	cpu_set_t own, cpus; /* the scout's; of the tracer, while it keeps off that */
	bool apart;
};

static void set_word(struct scout *s, unsigned value)
{
	atomic_store(&s->word, value);
	word_wake(&s->word);
}

static void drop(struct scout *s, unsigned i, void *result)
{
	if (result && s->work.drop)
		s->work.drop(s->work.arg, i, result);
}

/*
 * Yields often: a thread of the job that the tracer has sent to run a few calls may have been woken
 * on this CPU, and the tracer waits for it.
 */
static void do_task(struct scout *s, unsigned i)
{
	struct task *t = &s->tasks[i];
	struct err ignored = { 0 };
	void *result = NULL;
	int is = TASK_FREE;

	(void)sched_yield();
	if (!atomic_compare_exchange_strong(&t->state, &is, TASK_BEGUN))
		return;
	if (s->work.run(s->work.arg, i, s->arena, &result, &ignored) < 0)
		result = NULL;
	t->result = result;
	is = TASK_BEGUN;
	if (!atomic_compare_exchange_strong(&t->state, &is, TASK_DONE)) {
		t->result = NULL;
		drop(s, i, result);
	}
}

static bool goes_on(struct scout *s)
{
	return !atomic_load(&s->enough) && atomic_load(&s->word) == 1;
}

static void *scout_main(void *arg)
{
	struct scout *s = arg;

	while (!atomic_load(&s->word))
		word_wait(&s->word, 0, -1);
	if (atomic_load(&s->word) != 1)
		return NULL;
	for (unsigned i = 0; i < s->work.n && goes_on(s); i++) {
		while (s->work.there && atomic_load(s->work.there) <= i && goes_on(s))
			(void)sched_yield();
		if (goes_on(s))
			do_task(s, i);
	}
	return NULL;
}

struct scout *scout_new(size_t bytes)
{
	struct scout *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->arena = arena_new();
	if (s->arena)
		arena_warm(s->arena, bytes);
	if (s->arena && thread_start_blocked(&s->thread, STACK_BYTES, scout_main, s) == 0)
		return s;
	arena_free(s->arena);
	free(s);
	return NULL;
}

size_t scout_free(struct scout *s)
{
	size_t bytes;

	if (!s)
		return 0;
	set_word(s, 2);
	(void)pthread_join(s->thread, NULL);
	for (unsigned i = 0; s->tasks && i < s->work.n; i++)
		if (atomic_load(&s->tasks[i].state) == TASK_DONE)
			drop(s, i, s->tasks[i].result);
	free(s->tasks);
	bytes = arena_bytes(s->arena);
	arena_free(s->arena);
	free(s);
	return bytes;
}

/*
 * Each on a CPU of its own. Both never sleep for long, and whom the tracer wakes runs for a few
 * microseconds: the scheduler would leave the two on one CPU and the other idle.
 */
static void keep_apart(struct scout *s)
{
	cpu_set_t others;
	int own = sched_getcpu(), cpu = 0;

	if (own < 0 || sched_getaffinity(0, sizeof s->cpus, &s->cpus) < 0)
		return;
	while (cpu < CPU_SETSIZE && (cpu == own || !CPU_ISSET(cpu, &s->cpus)))
		cpu++;
	if (cpu == CPU_SETSIZE)
		return;
	CPU_ZERO(&s->own);
	CPU_SET(cpu, &s->own);
	CPU_XOR(&others, &s->cpus, &s->own);
	if (pthread_setaffinity_np(s->thread, sizeof s->own, &s->own) == 0)
		s->apart = sched_setaffinity(0, sizeof others, &others) == 0;
}

void scout_begin(struct scout *s, const struct scout_work *w)
{
	if (!s)
		return;
	s->tasks = calloc(w->n, sizeof *s->tasks);
	if (!s->tasks)
		return;
	s->work = *w;
	s->back = w->own ? w->n : 0;
	if (w->apart)
		keep_apart(s);
	if (w->beside && w->beside->apart)
		(void)pthread_setaffinity_np(s->thread, sizeof w->beside->own, &w->beside->own);
	set_word(s, 1);
}

/* The last task that nobody has begun; false: there is none. */
static bool do_another(struct scout *s)
{
	while (s->back > 0) {
		struct task *t = &s->tasks[--s->back];
		struct err ignored = { 0 };
		int is = TASK_FREE;

		if (!atomic_compare_exchange_strong(&t->state, &is, TASK_TAKEN))
			continue;
		if (s->work.run(s->work.arg, s->back, s->work.own, &t->result, &ignored) == 0)
			atomic_store(&t->state, TASK_DONE);
		return true;
	}
	return false;
}

/* True when it has done what it has begun. */
static bool wait_for(struct scout *s, struct task *t)
{
	int64_t deadline_ns = trace_now_ns() + PATIENCE_NS;
	int is = TASK_BEGUN;

	while (atomic_load(&t->state) == TASK_BEGUN && !outlive_orphaned() &&
	       trace_now_ns() < deadline_ns)
		if (do_another(s))
			deadline_ns = trace_now_ns() + PATIENCE_NS;
		else
			(void)sched_yield();
	if (!atomic_compare_exchange_strong(&t->state, &is, TASK_TAKEN))
		return true;
	atomic_store(&s->enough, true);
	return false;
}

void *scout_take(struct scout *s, unsigned i)
{
	struct task *t = s && s->tasks ? &s->tasks[i] : NULL;
	int is = TASK_FREE;

	if (!t || atomic_compare_exchange_strong(&t->state, &is, TASK_TAKEN))
		return NULL;
	if (is == TASK_BEGUN && !wait_for(s, t))
		return NULL;
	is = TASK_DONE;
	return atomic_compare_exchange_strong(&t->state, &is, TASK_TAKEN) ? t->result : NULL;
}

void scout_stop(struct scout *s)
{
	if (!s)
		return;
	atomic_store(&s->enough, true);
	if (s->apart)
		(void)sched_setaffinity(0, sizeof s->cpus, &s->cpus);
	s->apart = false;
}
