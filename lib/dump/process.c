/* SPDX-License-Identifier: BSD-2-Clause */
/* One stopped process: what can be seen from outside first, then what it must be asked, with a
 * remote. */
#include "dump/internal.h"
#include "util/cleanup.h"
#include "util/io.h"
#include "util/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_ROOM       "dump"
#define MAX_VDSO_BYTES (64 * 1024)

static bool leader_ended(const struct dumper *d, unsigned index)
{
	const struct frozen_process *fp = &d->frozen->procs[index];

	return fp->threads[0].tid != fp->pid;
}

static void take(struct dumper *d, unsigned index, const struct sight *l)
{
	d->cap.subjects[index] = (struct subject){ .process = &d->tree->processes[index],
						   .pid = d->frozen->procs[index].threads[0].tid,
						   .pidfd = l->pidfd,
						   .proc_dirfd = l->proc_dirfd,
						   .stat = l->stat };
	d->mem_fds[index] = l->mem_fd;
}

int process_open(struct dumper *d, unsigned index, struct err *err)
{
	struct sight l;
	int rc = look_open(&d->everybody.v[index], d->arena, &l, err);

	if (rc == 0)
		take(d, index, &l);
	return rc;
}

/* Opened, and looked at. */
static int process_look(struct dumper *d, unsigned index, struct sight *ret, struct err *err)
{
	int rc = look_take(d, index, ret, err);

	if (rc < 0)
		return rc;
	take(d, index, ret);
	d->cap.subjects[index].status = ret->threads[0];
	return 0;
}

void process_key(char key[PROCESS_KEY_LEN], pid_t pid, unsigned long long start_time)
{
	(void)snprintf(key, PROCESS_KEY_LEN, "mm:%d:%llu", pid, start_time);
}

/* What only the leader says, and how it ended. */
static int leader_look(struct dumper *d, unsigned index, struct err *err)
{
	struct process *p = &d->tree->processes[index];
	CLEANUP_FD int dirfd = -1;
	struct proc_stat stat;
	int rc = proc_open_pid(d->frozen->procs[index].pid, &dirfd, err);

	if (rc == 0)
		rc = proc_stat_read(dirfd, &stat, err);
	if (rc < 0)
		return rc;
	p->exit_signal = stat.exit_signal;
	p->leader_ended = 1;
	p->leader_status = stat.exit_code;
	return 0;
}

/* It stands first in the list, as a restart makes it first: with what another thread has, but for
 * what it had given up. */
static int leader_add(struct dumper *d, unsigned index, struct err *err)
{
	struct process *p = &d->tree->processes[index];
	struct thread *all = arena_array(d->arena, p->n_threads + 1, sizeof *all);
	CLEANUP_FD int dirfd = -1;
	struct proc_status status;
	int rc = all ? proc_open_pid(d->frozen->procs[index].pid, &dirfd, err) : err_nomem(err);

	if (rc == 0)
		rc = proc_status_read(dirfd, d->arena, &status, err);
	if (rc < 0)
		return rc;
	memcpy(all + 1, p->threads, p->n_threads * sizeof *all);
	all[0] = all[1];
	all[0].tid = p->pid;
	all[0].comm = status.name;
	all[0].syscall_nr = -1;
	all[0].altstack_sp = all[0].altstack_size = all[0].robust_list = all[0].clear_child_tid =
		all[0].rseq_ptr = 0;
	all[0].altstack_flags = all[0].rseq_len = 0;
	all[0].parent_death_signal = 0;
	all[0].pending = NULL;
	all[0].n_pending = 0;
	p->threads = all;
	p->n_threads++;
	return 0;
}

/* Who it is, and the id of its memory along the chain. */
static int identify(struct dumper *d, unsigned index, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	struct process *p = s->process;
	int parent = d->frozen->procs[index].parent;
	char key[PROCESS_KEY_LEN];
	int rc = 0;

	p->pid = s->status.ns_tgid;
	p->pgid = s->status.ns_pgid;
	p->sid = s->status.ns_sid;
	p->ppid = parent < 0 ? 0 : d->tree->processes[parent].pid;
	p->exit_signal = s->stat.exit_signal;
	if (leader_ended(d, index))
		rc = leader_look(d, index, err);
	if (rc < 0)
		return rc;
	if (process_is_guest(d, index)) {
		p->space = d->tree->processes[d->memory_of[index]].space;
		return 0;
	}
	process_key(key, s->pid, s->stat.start_time);
	p->space = capture_space(&d->cap, SPACE_MM, key, arena_printf(d->arena, "pid %d", p->pid),
				 0, -1);
	return p->space ? 0 : err_nomem(err);
}

bool process_is_guest(const struct dumper *d, unsigned index)
{
	return d->memory_of[index] != index;
}

/*
 * Where kcmp(2) says nothing, shared memory is known by the arena of another process's remote in
 * it. What else they share cannot be known then.
 */
static int refuse_guest(struct dumper *d, unsigned index, struct err *err)
{
	const struct map_list *l = &d->maps[index];

	for (unsigned i = 0; i < index; i++) {
		struct remote *other = d->cap.subjects[i].remote;
		uint64_t at = live_arena(other);

		for (unsigned k = 0; k < l->n && l->maps[k].start <= at; k++)
			if (at < l->maps[k].end && live_is_memory(other, d->mem_fds[index])) {
				err_set(err, -EOPNOTSUPP,
					"pid %d: it shares its memory with process %d, and what "
					"else they share cannot be known here: kcmp(2) is not "
					"allowed",
					d->cap.subjects[index].pid, d->cap.subjects[i].pid);
				return err_hint(err, "allow ckpt-run that system call, or give "
						     "the container CAP_SYS_PTRACE");
			}
	}
	return 0;
}

/* What guests have mapped is what their host had before anything of ours was there. */
static int read_maps(struct dumper *d, unsigned index, const struct sight *l, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	int rc = 0;

	if (process_is_guest(d, index)) {
		d->maps[index] = d->maps[d->memory_of[index]];
		d->maps[index].flags_from = NULL;
		return 0;
	}
	rc = memory_read_maps(d, s, l, &d->maps[index], err);
	return rc == 0 && d->memory_unknown ? refuse_guest(d, index, err) : rc;
}

/* The vdso as it is now, for a restart under another kernel. */
static int read_vdso(struct dumper *d, unsigned index, struct err *err)
{
	struct blob *vdso = &d->tree->host.vdso;

	for (unsigned i = 0; i < d->maps[index].n && !vdso->len; i++) {
		const struct proc_map *m = &d->maps[index].maps[i];
		size_t len = m->end - m->start;

		if (strcmp(m->path, "[vdso]") || len > MAX_VDSO_BYTES)
			continue;
		vdso->data = arena_alloc(d->arena, len);
		if (!vdso->data)
			return err_nomem(err);
		if (io_pread_full(d->mem_fds[index], vdso->data, len, m->start) == (ssize_t)len)
			vdso->len = (uint32_t)len;
	}
	return 0;
}

static int begin_remote(struct dumper *d, unsigned index, struct err *err)
{
	struct frozen_process *fp = &d->frozen->procs[index];
	struct subject *s = &d->cap.subjects[index];
	unsigned n = s->process->n_threads;
	CLEANUP_FREE struct live_thread *threads = calloc(n, sizeof *threads);
	struct remote *host = NULL;

	d->facts[index] = arena_array(d->arena, n, sizeof *d->facts[index]);
	if (!threads || !d->facts[index])
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++)
		threads[i] = (struct live_thread){ .tid = fp->threads[i].tid,
						   .ns_tid = s->process->threads[i].tid,
						   .regs = &fp->threads[i].regs };
	if (process_is_guest(d, index))
		host = d->cap.subjects[d->memory_of[index]].remote;
	return live_begin(&(struct live_process){ .pid = s->pid,
						  .ns_pid = s->process->pid,
						  .threads = threads,
						  .n_threads = n,
						  .maps = d->maps[index].maps,
						  .n_maps = d->maps[index].n,
						  .not_ignored = s->status.sig_caught |
								 s->status.shared_pending |
								 s->status.sig_pending,
						  .host = host },
			  &s->remote, err);
}

int process_begin(struct dumper *d, unsigned index, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	struct sight l;
	int rc = process_look(d, index, &l, err);

	if (rc == 0)
		rc = identify(d, index, err);
	if (rc == 0)
		rc = read_maps(d, index, &l, err);
	if (rc == 0)
		log_debug("pid %d: %u mappings", s->pid, d->maps[index].n);
	if (rc == 0)
		rc = read_vdso(d, index, err);
	if (rc == 0)
		rc = waits_expire(d, index, err);
	if (rc == 0)
		rc = threads_look(d, index, err);
	if (rc == 0)
		log_debug("pid %d: seen from outside", s->pid);
	if (rc == 0)
		rc = begin_remote(d, index, err);
	return rc;
}

int process_ask(struct dumper *d, unsigned index, struct err *err)
{
	return live_ask(d->cap.subjects[index].remote, err);
}

int process_ready(struct dumper *d, unsigned index, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	int rc = live_ready(s->remote, d->facts[index], err);

	if (rc < 0)
		return rc;
	log_debug("pid %d: asked", s->pid);
	s->batch = batch_new(s->remote, d->batches);
	return s->batch ? 0 : err_nomem(err);
}

static int process_capture(struct dumper *d, unsigned index, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	int rc = process_ready(d, index, err);

	if (rc == 0)
		rc = attrs_capture_process(&d->cap, s, err);
	if (rc == 0)
		rc = threads_finish(d, index, d->facts[index], err);
	if (rc == 0 && leader_ended(d, index))
		rc = leader_add(d, index, err);
	return rc;
}

/* What its memory is must be known from a remote, begun and ready, of who else has it. */
static bool waits_for_others(const struct dumper *d, unsigned index)
{
	return d->memory_unknown || process_is_guest(d, index);
}

/* The threads of one run what they were sent for while the next is looked at. */
int processes_capture(struct dumper *d, struct err *err)
{
	unsigned n = d->cap.n_subjects, begun = 0, asked = 0, done = 0;
	int rc = 0;

	while (rc == 0 && done < n) {
		bool more = begun < n && (begun == done || !waits_for_others(d, begun));

		if (more)
			rc = process_begin(d, begun++, err);
		if (rc == 0 && asked + more < begun)
			rc = process_ask(d, asked++, err);
		if (rc == 0 && done + more < asked)
			rc = process_capture(d, done++, err);
	}
	return rc;
}

static int end_remote(struct dumper *d, unsigned index, struct err *err)
{
	struct subject *s = &d->cap.subjects[index];
	int rc;

	batch_free(s->batch);
	s->batch = NULL;
	rc = live_end(s->remote, err);
	s->remote = NULL;
	return rc;
}

/* Guests before their hosts. */
int process_end_remotes(struct dumper *d, struct err *err)
{
	int rc = 0;

	for (unsigned i = d->cap.n_subjects; i-- > 0;)
		live_leave(d->cap.subjects[i].remote);
	for (unsigned i = d->cap.n_subjects; rc == 0 && i-- > 0;)
		rc = end_remote(d, i, err);
	return rc;
}

static void release(struct dumper *d, unsigned index)
{
	struct subject *s = &d->cap.subjects[index];

	(void)end_remote(d, index, NULL);
	if (s->pidfd > 0)
		(void)close(s->pidfd);
	if (s->proc_dirfd > 0)
		(void)close(s->proc_dirfd);
	if (d->mem_fds[index] >= 0)
		(void)close(d->mem_fds[index]);
	s->pidfd = s->proc_dirfd = d->mem_fds[index] = -1;
}

void process_release_all(struct dumper *d)
{
	for (unsigned i = d->mem_fds ? d->cap.n_subjects : 0; i-- > 0;)
		release(d, i);
}
