/* SPDX-License-Identifier: BSD-2-Clause */
/* A dump that does as it is told, in place of the real one. */
#include "fake.h"

#include "image/writer.h"
#include "util/arena.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

struct fake fake = { .report_fd = -1, .hold_fd = -1 };

struct dump_job {
	pid_t root;
	struct chain *chain;
	const struct settings *settings;
};

static void free_arena(struct arena **a)
{
	arena_free(*a);
}

static struct tree *small_tree(struct arena *a, uint64_t seq, const struct settings *settings)
{
	struct tree *t = arena_alloc(a, sizeof *t);

	t->seq = seq;
	if (settings)
		t->settings = *settings;
	t->n_spaces = t->n_processes = 1;
	t->spaces = arena_array(a, 1, sizeof *t->spaces);
	t->spaces[0] = (struct space){ .id = 1, .kind = SPACE_MM };
	t->processes = arena_array(a, 1, sizeof *t->processes);
	t->processes[0] = (struct process){
		.pid = 9,
		.space = 1,
		.exe = arena_strdup(a, "/job"),
		.cwd = arena_strdup(a, "/"),
		.root = arena_strdup(a, "/"),
		.n_vmas = 1,
		.n_threads = 1,
	};
	t->processes[0].vmas = arena_array(a, 1, sizeof *t->processes[0].vmas);
	t->processes[0].vmas[0] = (struct vma){ 0x10000, 0x20000, VMA_ANON, 3, 0x22, 0 };
	t->processes[0].threads = arena_array(a, 1, sizeof *t->processes[0].threads);
	t->processes[0].threads[0] = (struct thread){
		.tid = 9,
		.comm = arena_strdup(a, "job"),
		.syscall_nr = -1,
		.gregs = { arena_alloc(a, 27 * 8), 27 * 8 },
		.xstate = { arena_alloc(a, 576), 576 },
	};
	return t;
}

int fake_image(int dirfd, const char *name, uint64_t seq, struct id128 state, struct id128 parent,
	       const struct settings *settings, struct err *err)
{
	CLEANUP(free_arena) struct arena *a = arena_new();
	struct image_params params = { .state = state, .parent = parent, .seq = seq, .threads = 1 };
	static const struct id128 none;
	struct image_writer *w;
	void *buf;
	int rc = image_writer_open(dirfd, name, &params, &w, err);

	if (rc < 0)
		return rc;
	if (memcmp(&parent, &none, sizeof none) == 0) {
		buf = image_writer_buffer(w, err);
		memset(buf, 'x', CKPT_PAGE_SIZE);
		rc = image_writer_submit(w, 1, 0x10, 1, err);
	} else {
		rc = image_writer_run(w, 1, RUN_PARENT, 0x10, 1, err);
	}
	if (rc < 0) {
		image_writer_abort(w);
		return rc;
	}
	return image_writer_commit(w, small_tree(a, seq, settings), NULL, err);
}

int dump_job_new(pid_t root, struct chain *chain, const struct settings *settings,
		 struct dump_job **ret, struct err *err)
{
	(void)err;
	*ret = malloc(sizeof **ret);
	**ret = (struct dump_job){ root, chain, settings };
	return 0;
}

void dump_job_free(struct dump_job *job)
{
	free(job);
}

void dump_job_adopted(struct dump_job *job)
{
	(void)job;
}

void dump_job_want_full(struct dump_job *job)
{
	(void)job;
	fake.want_full = true;
}

static int write_image(struct dump_job *job, struct dump_result *ret, struct err *err)
{
	static const struct id128 none;
	char name[32];
	int rc;

	ret->seq = chain_next_seq(job->chain);
	ret->state = (struct id128){ { (uint8_t)ret->seq, (uint8_t)getpid(),
				       (uint8_t)(getpid() >> 8), 1 } };
	ret->incremental = fake.since_full && fake.since_full < job->settings->full_every;
	(void)snprintf(name, sizeof name, "%06llu.img", (unsigned long long)ret->seq);
	rc = fake_image(chain_dirfd(job->chain), name, ret->seq, ret->state,
			ret->incremental ? fake.last : none, job->settings, err);
	fake.last = ret->state;
	fake.since_full = ret->incremental ? fake.since_full + 1 : 1;
	return rc;
}

int dump_checkpoint(struct dump_job *job, unsigned flags, struct dump_result *ret, struct err *err)
{
	unsigned step =
		fake.attempts < (unsigned)fake.n_steps ? fake.attempts : (unsigned)fake.n_steps - 1;
	int rc = fake.n_steps ? fake.rc[step] : 0;
	char c = flags & DUMP_KILL ? 'k' : 'a';

	fake.attempts++;
	if (fake.report_fd >= 0)
		(void)io_write_full(fake.report_fd, &c, 1);
	if (fake.hold_fd >= 0)
		(void)io_read_full(fake.hold_fd, &c, 1);
	if (rc < 0)
		return err_set(err, rc, "%s", fake.msg ? fake.msg : "made to fail");
	rc = write_image(job, ret, err);
	if (rc == 0 && (flags & DUMP_KILL))
		(void)kill(job->root, SIGKILL);
	return rc;
}
