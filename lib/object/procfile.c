/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files and directories below /proc, /sys and the like: reopened by path. What they say is made up
 * as it is read, so that there is no size or content to compare. /proc/PID/... belongs to a
 * process, which must be there when the file is opened: so whoever has such a file opens it itself
 * just before descriptors are put in place; and one about a thread (/proc/PID/task/TID/...) when
 * the threads of all processes are there, too.
 */
#include "object/kinds.h"
#include "proc/refusals.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FS_PROC 0x9fa0

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	if ((!S_ISREG(of->st.st_mode) && !S_ISDIR(of->st.st_mode)) || of->link[0] != '/')
		return false;
	return of->fs_magic == FS_PROC || refusal_is_kernels_own(of->fs_magic);
}

static bool has_thread(const struct process *p, int32_t tid)
{
	for (unsigned i = 0; i < p->n_threads; i++)
		if (p->threads[i].tid == tid)
			return true;
	return false;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	const char *rest;
	int32_t pid = proc_path_pid(of->link, &rest), tid;

	(void)f;
	if (of->deleted)
		return refuse(of, err,
			      "'%s' belongs to a process that has ended; that is not supported",
			      of->link);
	if (!pid)
		return 0;
	tid = proc_path_tid(rest, &rest);
	for (unsigned i = 0; i < c->n_subjects; i++)
		if (c->subjects[i].process->pid == pid &&
		    (!tid || has_thread(c->subjects[i].process, tid)))
			return 0;
	return refuse(of, err,
		      "'%s', which is about a process outside of the job, is not supported",
		      of->link);
}

/* The path with the ids that process and thread have now; NULL: they have none yet. */
static const char *path_now(const struct rebuild *rb, const struct file *f)
{
	const char *rest;
	int32_t pid = proc_path_pid(f->path, &rest), tid = pid ? proc_path_tid(rest, &rest) : 0;

	if (!pid)
		return rebuild_path(rb, f->path);
	pid = rb->new_id(rb, pid);
	tid = tid ? rb->new_id(rb, tid) : -1;
	if (!pid || !tid)
		return NULL;
	return tid > 0 ? arena_printf(rb->arena, "/proc/%d/task/%d%s", pid, tid, rest)
		       : arena_printf(rb->arena, "/proc/%d%s", pid, rest);
}

static int check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const char *rest;

	/* before anything is created there are no processes to look at */
	if (proc_path_pid(f->path, &rest))
		return 0;
	if (access(rebuild_path(rb, f->path), F_OK) < 0)
		return err_set(err, -errno, "cannot find '%s': %m", f->path);
	return 0;
}

/* Of a process's first thread it is there from the beginning. Of one that several processes have
 * the relay must still stand at its number. */
static bool waits_for_thread(const struct rebuild *rb, const struct file *f)
{
	const char *rest;
	int32_t pid = proc_path_pid(f->path, &rest), tid = pid ? proc_path_tid(rest, &rest) : 0;

	return tid && tid != pid && !relay_needed(rb->tree, f);
}

/* What is about a process waits until that is there. */
static int open_procfile(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const char *rest, *path = rebuild_path(rb, f->path);
	bool later = proc_path_pid(f->path, &rest);
	int fd;

	if (later && relay_needed(rb->tree, f))
		return relay_make(ret_fd, err);
	fd = later ? open("/dev/null", O_RDWR | O_CLOEXEC) : open(path, reopen_flags(f));
	if (fd < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	*ret_fd = fd;
	return 0;
}

static int find_path(const struct rebuild *rb, const struct process *p, const struct fd *fd,
		     const struct file *f, const char **ret_path, const char **ret_what,
		     struct err *err)
{
	const char *path = path_now(rb, f);

	if (!path)
		return err_set(err, -ESRCH,
			       "pid %d fd %d: cannot open '%s' again with new process ids", p->pid,
			       fd->fd, f->path);
	*ret_path = path;
	*ret_what = arena_printf(rb->arena, "open '%s'", path);
	return *ret_what ? 0 : err_nomem(err);
}

int procfiles_place(struct rebuild *rb, const struct process *p, struct placer *pl, struct err *err)
{
	for (unsigned i = 0; i < p->n_fds; i++) {
		int at = file_index(rb->tree, p->fds[i].file), rc;
		const struct file *f = at < 0 ? NULL : &rb->tree->files[at];
		const char *rest, *path, *what;

		if (!f || f->kind != FILE_PROC || !proc_path_pid(f->path, &rest) ||
		    relay_opened(p, i) || waits_for_thread(rb, f))
			continue;
		rc = find_path(rb, p, &p->fds[i], f, &path, &what, err);
		if (rc < 0)
			return rc;
		rc = relay_open(rb, p, at, pl,
				&(struct relay_call){ .what = what,
						      .path = path,
						      .nr = SYS_open,
						      .flags = (uint64_t)reopen_flags(f) },
				err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* In the place of what stands at all of its numbers, from the n-th descriptor on. */
static int replace(struct rebuild *rb, const struct process *p, unsigned n, const struct file *f,
		   struct placer *pl, struct err *err)
{
	const char *path, *what;
	int rc = find_path(rb, p, &p->fds[n], f, &path, &what, err), opened;
	unsigned call;

	if (rc < 0)
		return rc;
	batch_start(pl->b);
	call = batch_call(pl->b, what, SYS_open, batch_in(pl->b, path, strlen(path) + 1),
			  (uint64_t)reopen_flags(f) | O_CLOEXEC, 0);
	rc = batch_run(pl->b, pl->tid, err);
	if (rc < 0)
		return rc;
	opened = (int)batch_ret(pl->b, call);
	batch_start(pl->b);
	for (unsigned i = n; rc == 0 && i < p->n_fds; i++) {
		if (p->fds[i].file != f->id)
			continue;
		rc = placer_room(pl, 3, 0, err);
		if (rc == 0)
			batch_call(pl->b, what, SYS_dup3, opened, p->fds[i].fd,
				   p->fds[i].cloexec ? O_CLOEXEC : 0);
	}
	if (rc == 0 && f->pos)
		batch_call(pl->b, "go on reading a file of /proc", SYS_lseek, opened, f->pos,
			   SEEK_SET);
	if (rc == 0)
		batch_call(pl->b, NULL, SYS_close, opened);
	return rc < 0 ? rc : batch_run(pl->b, pl->tid, err);
}

int procfiles_place_late(struct rebuild *rb, const struct process *p, struct placer *pl,
			 struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < p->n_fds; i++) {
		int at = file_index(rb->tree, p->fds[i].file);
		const struct file *f = at < 0 ? NULL : &rb->tree->files[at];

		if (f && f->kind == FILE_PROC && !relay_opened(p, i) && waits_for_thread(rb, f))
			rc = replace(rb, p, i, f, pl, err);
	}
	return rc;
}

/*
 * The offset last of all, by the process itself: text files here make up what lies before it when
 * they are asked to go on, and that must be about the job. Some have no offset at all, and then it
 * is 0.
 */
static int finish(struct rebuild *rb, const struct process *p, const struct fd *fd,
		  const struct file *f, struct placer *pl, struct err *err)
{
	int rc;

	(void)p;
	if (!f->pos || waits_for_thread(rb, f))
		return 0;
	rc = placer_room(pl, 1, 0, err);
	if (rc == 0)
		(void)batch_call(pl->b, "go on reading a file of /proc", SYS_lseek, fd->fd, f->pos,
				 SEEK_SET);
	return rc;
}

const struct file_ops procfile_ops = {
	.kind = FILE_PROC,
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_procfile,
	.finish = finish,
};
