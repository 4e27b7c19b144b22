/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each process in the making, as ordinary C: it makes its children, in its old session and in its
 * own, joins its process group, sees those end that are only to be zombies or were ghosts, maps the
 * workspace from which it is driven from then on, and waits at the last gate, which is never
 * opened: its tracer takes over there. Should ckpt-restart die, whoever waits at a gate ends.
 */
#include "restore/internal.h"

#include "util/cleanup.h"
#include "util/fault.h"
#include "util/io.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int gates_make(struct restoring *r, struct err *err)
{
	for (unsigned i = 0; i < GATES; i++)
		r->gates[i][0] = r->gates[i][1] = -1;
	for (unsigned i = 0; i < GATES; i++)
		if (pipe2(r->gates[i], O_CLOEXEC) < 0)
			return err_set(err, -errno, "cannot create a pipe: %m");
	return 0;
}

void gates_close(struct restoring *r)
{
	for (unsigned i = 0; i < GATES; i++)
		for (unsigned k = 0; k < 2; k++) {
			if (r->gates[i][k] >= 0)
				(void)close(r->gates[i][k]);
			r->gates[i][k] = -1;
		}
}

static const struct birth *birth_at(const struct restoring *r, unsigned i)
{
	return &r->births.v[i];
}

_Noreturn static void fail(const struct restoring *r, unsigned i, int code, const char *what)
{
	struct err err = { 0 };

	if (birth_at(r, i)->pid)
		err_set(&err, code, "pid %d: cannot %s: %m", birth_at(r, i)->pid, what);
	else
		err_set(&err, code, "cannot %s: %m", what);
	if (code == -EAGAIN)
		err_hint(&err, "the limit of processes (ulimit -u, pids cgroup) is too low");
	maker_say(r->control, MAKER_ERROR, (int32_t)i, &err);
	_exit(1);
}

/* Returns when everybody has come as far and the gate is open. */
static void wait_at(const struct restoring *r, enum gate gate)
{
	char c;

	while (read(r->gates[gate][0], &c, 1) < 0 && errno == EINTR)
		;
	if (__atomic_load_n(&r->nursery->opened, __ATOMIC_ACQUIRE) <= (int32_t)gate)
		_exit(1);
}

/* --- children ----------------------------------------------------------------------------------
 */

static void twin_main(void *arg)
{
	const struct newborn *n = arg;

	birth_main(n->r, n->birth);
}

/*
 * What a twin is told must stay: its maker goes on at once. Nothing is allocated here: those that
 * share memory run the C library's allocator at the same time, and it takes them for one thread.
 */
static pid_t clone_birth(struct restoring *r, unsigned i, pid_t id)
{
	const struct birth *b = birth_at(r, i);
	uint64_t flags = b->share | (b->sibling ? CLONE_PARENT : 0);
	struct newborn *n;
	pid_t pid;

	if (b->share & CLONE_VM) {
		n = &r->newborns[i];
		*n = (struct newborn){ r, i };
		return spawn_twin(flags, id, b->exit_signal, twin_main, n);
	}
	pid = spawn_clone(flags, id, b->exit_signal);
	if (pid == 0)
		birth_main(r, i);
	return pid;
}

static bool is_recorded(const struct tree *t, int32_t id)
{
	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *p = &t->processes[i];

		if (p->pgid == id || p->sid == id)
			return true;
		for (unsigned j = 0; j < p->n_threads; j++)
			if (p->threads[j].tid == id)
				return true;
	}
	for (unsigned i = 0; i < t->n_zombies; i++)
		if (t->zombies[i].pid == id || t->zombies[i].pgid == id)
			return true;
	return false;
}

/* A step takes an id that nobody will need: above all that were recorded, then from the lowest on.
 */
static pid_t clone_step(struct restoring *r, unsigned i)
{
	for (int try = 0; try < 10000; try++) {
		int32_t id = __atomic_fetch_add(&r->nursery->next_id, 1, __ATOMIC_RELAXED);
		pid_t pid;

		if (id >= r->pid_limit)
			id = LOWEST_ID + (id - LOWEST_ID) % (r->pid_limit - LOWEST_ID);
		if (is_recorded(r->tree, id))
			continue;
		pid = clone_birth(r, i, id);
		if (pid >= 0 || errno != EEXIST)
			return pid;
	}
	return -1;
}

static void make(struct restoring *r, unsigned maker, unsigned i)
{
	const struct birth *b = birth_at(r, i);
	int status;
	pid_t pid;

	if (b->pid || r->rb.new_pids)
		pid = clone_birth(r, i, r->rb.new_pids ? 0 : b->pid);
	else
		pid = clone_step(r, i);
	if (pid < 0 && errno == EEXIST) {
		struct err err = { 0 };

		err_set(&err, -EEXIST, "process id %d is in use", b->pid);
		maker_say(r->control, MAKER_ERROR, (int32_t)maker, &err);
		_exit(1);
	}
	if (pid < 0)
		fail(r, maker, -errno, "create a process");
	if (b->kind != BIRTH_STEP)
		return;
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
}

static void make_children(struct restoring *r, unsigned i, bool late)
{
	for (int c = birth_at(r, i)->first_child; c >= 0;
	     c = birth_at(r, (unsigned)c)->next_sibling)
		if (birth_at(r, (unsigned)c)->late == late)
			make(r, i, (unsigned)c);
}

/* --- groups ------------------------------------------------------------------------------------
 */

static void join_group(struct restoring *r, unsigned i)
{
	const struct birth *b = birth_at(r, i);
	pid_t group = b->group < 0 ? 0 : r->nursery->pids[b->group];

	if (group && getpgrp() != group && setpgid(0, group) < 0)
		fail(r, i, -errno, "join its process group");
}

/* --- terminals of the tree's own
 * --------------------------------------------------------------------- */

/* Before its members are born, who inherit it. */
static void take_terminal(struct restoring *r, unsigned i)
{
	const struct birth *b = birth_at(r, i);
	int rc = b->kind == BIRTH_PROCESS && getsid(0) == getpid() ? ptys_control(&r->rb, b->pid, 0)
								   : 0;

	if (rc < 0)
		fail(r, i, rc, "take its controlling terminal");
}

static void set_foreground(struct restoring *r, unsigned i)
{
	const struct birth *b = birth_at(r, i);
	int32_t group = b->kind == BIRTH_PROCESS ? ptys_foreground_group(r->tree, b->pid) : 0;

	for (unsigned k = 0; group && k < r->births.n; k++)
		if (r->births.v[k].pid == group)
			(void)ptys_control(&r->rb, b->pid, r->nursery->pids[k]);
}

/* --- the ended ---------------------------------------------------------------------------------
 */

/*
 * The mark that there was a core dump comes with a core dump: one of a single page, in a directory
 * that the parent removes. Where cores do not go to the working directory, there is none.
 */
static void prepare_core(struct core_dir *dir)
{
	CLEANUP_FREE char *pattern = NULL;
	struct rlimit lim = { .rlim_cur = CKPT_PAGE_SIZE, .rlim_max = CKPT_PAGE_SIZE };

	if (io_read_file(-1, "/proc/sys/kernel/core_pattern", &pattern, NULL) < 0 ||
	    strpbrk(pattern, "|/%@"))
		return;
	(void)snprintf(dir->path, sizeof dir->path, "/tmp/.ckpt-core-XXXXXX");
	if (!mkdtemp(dir->path)) {
		dir->path[0] = '\0';
		return;
	}
	if (chdir(dir->path) == 0)
		(void)setrlimit(RLIMIT_CORE, &lim);
}

static void remove_core(const struct core_dir *dir, pid_t pid)
{
	char path[64];

	if (!dir->path[0])
		return;
	(void)snprintf(path, sizeof path, "%s/core", dir->path);
	(void)unlink(path);
	(void)snprintf(path, sizeof path, "%s/core.%d", dir->path, pid);
	(void)unlink(path);
	(void)rmdir(dir->path);
}

_Noreturn static void end_as(struct restoring *r, unsigned index)
{
	const struct zombie *z = &r->tree->zombies[index];
	struct rlimit none = { .rlim_max = RLIM_INFINITY };
	sigset_t all;

	(void)prctl(PR_SET_NAME, z->comm ? z->comm : "", 0, 0, 0);
	if (WIFEXITED(z->status))
		_exit(WEXITSTATUS(z->status));
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		(void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
	if (WCOREDUMP(z->status))
		prepare_core(&r->core_dirs[index]);
	(void)signal(WTERMSIG(z->status), SIG_DFL);
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_UNBLOCK, &all, NULL);
	(void)kill(getpid(), WTERMSIG(z->status));
	_exit(1);
}

/* Ghosts that it made are reaped; children that have ended stay zombies. */
static void see_them_end(struct restoring *r, unsigned i)
{
	const struct births *all = &r->births;
	const struct birth *b = birth_at(r, i);
	struct sigaction chld;
	siginfo_t si;

	for (int c = b->first_child; c >= 0; c = all->v[c].next_sibling)
		while (all->v[c].kind == BIRTH_GHOST &&
		       waitpid(r->nursery->pids[c], NULL, __WALL) < 0 && errno == EINTR)
			;
	for (unsigned c = 0; b->kind == BIRTH_PROCESS && r->tree->n_zombies && c < all->n; c++) {
		const struct birth *z = &all->v[c];

		if (z->kind != BIRTH_ZOMBIE || r->tree->zombies[z->index].ppid != b->pid)
			continue;
		while (waitid(P_PID, (id_t)r->nursery->pids[c], &si, WEXITED | WNOWAIT | __WALL) <
			       0 &&
		       errno == EINTR)
			;
		remove_core(&r->core_dirs[z->index], r->nursery->pids[c]);
	}
	/* what their ends have sent is not to be pending: this drops it */
	(void)sigaction(SIGCHLD, NULL, &chld);
	(void)sigaction(SIGCHLD, &chld, NULL);
}

/* --- descriptors ------------------------------------------------------------------------------
 */

static void need(uint8_t *needed, int fd)
{
	if (fd >= 0)
		needed[fd / 8] |= (uint8_t)(1u << fd % 8);
}

static void need_process(const struct restoring *r, uint8_t *needed, unsigned index)
{
	const struct build_process *bp = &r->procs[index];

	for (unsigned k = 0; k < bp->state->n_fds; k++) {
		int at = file_index(r->tree, bp->state->fds[k].file);

		need(needed, at < 0 ? -1 : r->rb.file_fds[at]);
	}
	for (unsigned k = 0; k <= bp->state->n_vmas; k++)
		need(needed, bp->map_fds[k]);
}

static void need_births(const struct restoring *r, uint8_t *needed, unsigned i)
{
	const struct birth *b = birth_at(r, i);

	if (b->kind == BIRTH_PROCESS)
		need_process(r, needed, b->index);
	for (int c = b->first_child; c >= 0; c = birth_at(r, (unsigned)c)->next_sibling)
		need_births(r, needed, (unsigned)c);
}

/*
 * What neither it nor whoever comes from it needs is closed, before it makes others: else each
 * process of a tree would be given, and had to close, all that the whole tree has open. Not by
 * those that share memory with another, who may be anywhere in the C library.
 */
static void drop_others(const struct restoring *r, unsigned i)
{
	size_t len = (size_t)r->top_fd / 8 + 1;
	uint8_t *needed;
	int from = r->rb.fd_base;

	if (i == 0 || birth_at(r, i)->share & (CLONE_FILES | CLONE_VM))
		return;
	needed = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (needed == MAP_FAILED)
		return;
	for (unsigned g = 0; g < GATES; g++)
		need(needed, r->gates[g][0]);
	need(needed, r->control);
	for (unsigned k = 0; k < r->tree->n_files; k++) /* for who leads a session */
		if (r->tree->files[k].kind == FILE_PTY)
			need(needed, r->rb.file_fds[k]);
	need_births(r, needed, i);
	for (int fd = from; fd <= r->top_fd; fd++) {
		if (fd < r->top_fd && !(needed[fd / 8] & 1u << fd % 8))
			continue;
		if (fd > from)
			(void)syscall(SYS_close_range, from, fd - 1, 0);
		from = fd + 1;
	}
	(void)munmap(needed, len);
}

/* --- all of it ---------------------------------------------------------------------------------
 */

static void be_born(struct restoring *r, unsigned i)
{
	const struct birth *b = birth_at(r, i);

	r->nursery->pids[i] = getpid();
	if (r->births.adopting && b->kind == BIRTH_PROCESS &&
	    r->tree->processes[b->index].child_subreaper)
		(void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	make_children(r, i, false);
	if (b->new_session && getsid(0) != getpid() && setsid() < 0)
		fail(r, i, -errno, "start a session");
	take_terminal(r, i);
	make_children(r, i, true);
	if (b->kind == BIRTH_STEP)
		_exit(0);
}

_Noreturn void birth_main(struct restoring *r, unsigned i)
{
	const struct birth *b = birth_at(r, i);
	struct err err = { 0 };

	drop_others(r, i);
	be_born(r, i);
	maker_say(r->control, MAKER_HERE, (int32_t)i, NULL);
	wait_at(r, GATE_BORN);
	if (b->new_group && getpgrp() != getpid() && setpgid(0, 0) < 0)
		fail(r, i, -errno, "start a process group");
	maker_say(r->control, MAKER_HERE, (int32_t)i, NULL);
	wait_at(r, GATE_LED);
	if (!b->new_group)
		join_group(r, i);
	maker_say(r->control, MAKER_HERE, (int32_t)i, NULL);
	wait_at(r, GATE_JOINED);
	join_group(r, i);
	set_foreground(r, i);
	see_them_end(r, i);
	if (b->kind == BIRTH_GHOST)
		_exit(0);
	if (b->kind == BIRTH_ZOMBIE)
		end_as(r, b->index);
	err.code = maker_map_workspace(&r->procs[b->index].ws, &err);
	if (err.code == 0)
		err.code = fault_point("restore-born", &err);
	if (err.code < 0) {
		maker_say(r->control, MAKER_ERROR, (int32_t)i, &err);
		_exit(1);
	}
	maker_say(r->control, MAKER_READY, (int32_t)i, NULL);
	wait_at(r, GATE_MADE);
	_exit(1);
}
