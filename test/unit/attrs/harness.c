/* SPDX-License-Identifier: BSD-2-Clause */
/* Targets: see harness.h. */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARKER SIGWINCH

static struct {
	uint8_t *stub, *arena, *stack;
} room;

static void make_room(void)
{
	if (room.stub)
		return;
	room.stub = mmap(NULL, 65536, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	room.arena = mmap(NULL, build_arena_bytes(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	room.stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(room.stub != MAP_FAILED && room.arena != MAP_FAILED && room.stack != MAP_FAILED);
	build_stub_copy(room.stub);
}

static void wait_for_ever(void)
{
	for (;;)
		(void)syscall(SYS_ppoll, NULL, 0, NULL, NULL, 8);
}

void target_start(struct target *t, void (*setup)(void *arg), void *arg)
{
	struct err err = { 0 };
	int ready[2];
	char c;

	make_room();
	memset(t, 0, sizeof *t);
	CHECK(pipe2(ready, O_CLOEXEC) == 0);
	t->pid = fork();
	CHECK(t->pid >= 0);
	if (t->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setup)
			setup(arg);
		CHECK(write(ready[1], "r", 1) == 1);
		wait_for_ever();
	}
	(void)close(ready[1]);
	CHECK(read(ready[0], &c, 1) == 1); /* otherwise the setup has said why */
	(void)close(ready[0]);
	CHECK_OK(freeze_tree(t->pid, 5000, &t->frozen, &err));
	CHECK_INT(t->frozen->n_procs, 1);
}

struct start {
	void (*with)(void *arg);
	void *arg;
	sem_t done;
};

static void *thread_main(void *p)
{
	struct start *s = p;

	s->with(s->arg);
	(void)sem_post(&s->done);
	wait_for_ever();
	return NULL;
}

void target_thread(void (*with)(void *arg), void *arg)
{
	static struct start s;
	pthread_t id;

	s = (struct start){ .with = with, .arg = arg };
	CHECK(sem_init(&s.done, 0, 0) == 0);
	CHECK(pthread_create(&id, NULL, thread_main, &s) == 0);
	while (sem_wait(&s.done) < 0)
		;
}

static int capture_threads(struct target *t, struct live_thread *live, struct err *err)
{
	const struct frozen_process *fp = &t->frozen->procs[0];
	struct process *p = &t->process;
	int rc = 0;

	p->threads = arena_array(t->capture.arena, fp->n_threads, sizeof *p->threads);
	p->n_threads = fp->n_threads;
	for (unsigned i = 0; i < fp->n_threads && rc == 0; i++) {
		struct proc_status st;

		rc = proc_thread_status_read(t->subject.proc_dirfd, fp->threads[i].tid,
					     t->capture.arena, &st, err);
		if (rc == 0)
			rc = attrs_capture_thread(&t->capture, &t->subject, fp->threads[i].tid,
						  &fp->threads[i].regs, &st, &p->threads[i], err);
		live[i] = (struct live_thread){ .tid = fp->threads[i].tid,
						.ns_tid = fp->threads[i].tid,
						.regs = &fp->threads[i].regs };
	}
	return rc;
}

static void take_facts(struct process *p, const struct thread_facts *facts)
{
	for (unsigned i = 0; i < p->n_threads; i++)
		attrs_take_facts(&p->threads[i], &facts[i]);
}

int target_capture(struct target *t, struct err *err)
{
	struct live_thread live[16];
	struct thread_facts facts[16] = { 0 };
	struct proc_map *maps = NULL;
	unsigned n_maps = 0;
	int rc;

	t->process = (struct process){ .pid = t->pid };
	t->capture = (struct capture){ .arena = arena_new(), .tree = &t->tree };
	t->subject = (struct subject){ .process = &t->process, .pid = t->pid, .pidfd = -1 };
	CHECK(t->capture.arena && t->frozen->procs[0].n_threads <= 16);
	rc = proc_open_pid(t->pid, &t->subject.proc_dirfd, err);
	if (rc == 0)
		rc = proc_status_read(t->subject.proc_dirfd, t->capture.arena, &t->subject.status,
				      err);
	if (rc == 0)
		rc = proc_maps_read(t->subject.proc_dirfd, false, t->capture.arena, &maps, &n_maps,
				    err);
	if (rc == 0)
		rc = capture_threads(t, live, err);
	if (rc == 0)
		rc = live_begin(
			&(struct live_process){ .pid = t->pid,
						.ns_pid = t->pid,
						.threads = live,
						.n_threads = t->process.n_threads,
						.maps = maps,
						.n_maps = n_maps,
						.not_ignored = t->subject.status.sig_caught },
			&t->subject.remote, err);
	if (rc == 0) {
		rc = live_ask(t->subject.remote, err);
		if (rc == 0)
			rc = live_ready(t->subject.remote, facts, err);
		t->subject.batch = batch_new(t->subject.remote, NULL);
		CHECK(t->subject.batch);
		take_facts(&t->process, facts);
		if (rc == 0)
			rc = attrs_capture_process(&t->capture, &t->subject, err);
		batch_free(t->subject.batch);
		if (rc == 0)
			rc = live_end(t->subject.remote, err);
		else
			(void)live_end(t->subject.remote, NULL);
	}
	if (t->subject.proc_dirfd > 0)
		(void)close(t->subject.proc_dirfd);
	return rc;
}

/* --- putting -------------------------------------------------------------------------------- */

static int32_t new_id(const struct rebuild *rb, int32_t recorded)
{
	for (unsigned i = 0; i < rb->n_id_map; i++)
		if (rb->id_map[i][0] == recorded)
			return rb->id_map[i][1];
	return 0;
}

static int put_all(struct rebuild *rb, struct target *t, const struct process *from,
		   struct batch *b, struct err *err)
{
	const struct frozen_process *fp = &t->frozen->procs[0];
	int rc = attrs_put_process(rb, from, b, t->pid, err);

	for (unsigned i = from->n_threads; i-- > 0 && rc == 0;) /* the leader last */
		rc = attrs_put_thread(rb, from, &from->threads[i], i == 0, b, fp->threads[i].tid,
				      err);
	return rc;
}

/* The threads get back their registers, and the masks that are recorded. */
static int put_registers(struct target *t, const struct process *from, struct err *err)
{
	const struct frozen_process *fp = &t->frozen->procs[0];
	int rc = 0;

	for (unsigned i = 0; i < from->n_threads && rc == 0; i++) {
		rc = regs_set_gp(fp->threads[i].tid, &fp->threads[i].regs.gp, err);
		if (rc == 0)
			rc = regs_set_mask(fp->threads[i].tid, from->threads[i].sigmask, err);
		fp->threads[i].regs.sigmask = from->threads[i].sigmask;
	}
	return rc;
}

int target_put(struct target *t, const struct process *from, struct err *err)
{
	const struct frozen_process *fp = &t->frozen->procs[0];
	struct tree tree = { .processes = (struct process *)(uintptr_t)from, .n_processes = 1 };
	struct rebuild_opts opts = { 0 };
	int32_t map[17][2];
	struct rebuild rb = { .tree = &tree,
			      .opts = &opts,
			      .arena = arena_new(),
			      .new_id = new_id,
			      .id_map = map,
			      .n_id_map = from->n_threads };
	struct remote *r;
	struct batch *b;
	int rc;

	CHECK_INT(fp->n_threads, from->n_threads);
	for (unsigned i = 0; i < from->n_threads; i++) {
		map[i][0] = from->threads[i].tid;
		map[i][1] = fp->threads[i].tid;
	}
	rc = attrs_check(&rb, err);
	if (rc < 0)
		return rc;
	CHECK(build_remote_new(t->pid, t->pid, (uintptr_t)room.stub, (uintptr_t)room.arena,
			       (uintptr_t)room.stack + 32768, MARKER, &r, err) == 0);
	for (unsigned i = 1; i < fp->n_threads; i++)
		CHECK(build_remote_add_thread(r, fp->threads[i].tid, fp->threads[i].tid, err) == 0);
	b = batch_new(r, NULL);
	CHECK(b);
	rc = put_all(&rb, t, from, b, err);
	if (rc == 0)
		rc = put_registers(t, from, err);
	batch_free(b);
	build_remote_free(r);
	arena_free(rb.arena);
	return rc;
}

/* A traced thread that was killed stays until its tracer has seen its end, and the leader until
 * then. */
void target_end(struct target *t)
{
	const struct frozen_process *fp = &t->frozen->procs[0];
	unsigned n = fp->n_threads;
	pid_t tids[16];

	CHECK(n <= 16);
	for (unsigned i = 0; i < n; i++)
		tids[i] = fp->threads[i].tid;
	freeze_kill(t->frozen);
	for (unsigned i = n; i-- > 0;)
		while (waitpid(tids[i], NULL, __WALL) < 0 && errno == EINTR)
			;
	arena_free(t->capture.arena);
}
