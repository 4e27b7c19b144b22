/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * File locks. flock(2) and open file description locks belong to a description, and are taken again
 * where it is opened; POSIX record locks belong to a process, and are taken by it when its
 * descriptors are in place and none will be closed any more (closing any descriptor of the file
 * would drop them).
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

int locks_capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	for (unsigned i = 0; i < of->info.n_locks; i++) {
		struct file_lock *lock;

		if (of->info.locks[i].type == LOCK_TYPE_POSIX)
			continue;
		lock = arena_push(c->arena, &f->locks, &f->n_locks, sizeof *lock);
		if (!lock)
			return err_nomem(err);
		*lock = of->info.locks[i];
	}
	return 0;
}

int locks_capture_posix(struct capture *c, struct process *p, uint32_t file,
			const struct proc_fdinfo *info, struct err *err)
{
	for (unsigned i = 0; i < info->n_locks; i++) {
		const struct file_lock *from = &info->locks[i];
		struct posix_lock *lock;

		if (from->type != LOCK_TYPE_POSIX)
			continue;
		lock = arena_push(c->arena, &p->posix_locks, &p->n_posix_locks, sizeof *lock);
		if (!lock)
			return err_nomem(err);
		*lock = (struct posix_lock){
			.file = file, .write = from->write, .start = from->start, .len = from->len
		};
	}
	return 0;
}

static struct flock to_flock(uint32_t write, uint64_t start, uint64_t len)
{
	return (struct flock){
		.l_type = write ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)len,
	};
}

int locks_open(const struct file *f, int fd, struct err *err)
{
	for (unsigned i = 0; i < f->n_locks; i++) {
		const struct file_lock *lock = &f->locks[i];
		struct flock ofd = to_flock(lock->write, lock->start, lock->len);
		int rc;

		if (lock->type == LOCK_TYPE_FLOCK)
			rc = flock(fd, (lock->write ? LOCK_EX : LOCK_SH) | LOCK_NB);
		else
			rc = fcntl(fd, F_OFD_SETLK, &ofd);
		if (rc == 0)
			continue;
		rc = -errno;
		err_set(err, rc, "cannot lock '%s' again: %m", f->path ? f->path : "a file");
		if (rc == -EAGAIN || rc == -EACCES)
			err_hint(err, "another program holds the lock: fuser shows which");
		return rc;
	}
	return 0;
}

static const struct fd *fd_of(const struct process *p, uint32_t file)
{
	for (unsigned i = 0; i < p->n_fds; i++)
		if (p->fds[i].file == file)
			return &p->fds[i];
	return NULL;
}

int locks_put_posix(struct rebuild *rb, const struct process *p, struct placer *pl, struct err *err)
{
	for (unsigned i = 0; i < p->n_posix_locks; i++) {
		const struct posix_lock *lock = &p->posix_locks[i];
		struct flock fl = to_flock(lock->write, lock->start, lock->len);
		const struct fd *fd = fd_of(p, lock->file);
		const char *what;
		int rc, at;

		at = file_index(rb->tree, lock->file);
		if (!fd || at < 0)
			return err_image(err, -EINVAL,
					 "pid %d: the image has no descriptor for a file lock",
					 p->pid);
		what = arena_printf(rb->arena, "lock '%s' again (pid %d fd %d)",
				    rb->tree->files[at].path ? rb->tree->files[at].path : "a file",
				    p->pid, fd->fd);
		if (!what)
			return err_nomem(err);
		rc = placer_room(pl, 1, sizeof fl + 16, err);
		if (rc < 0)
			return rc;
		batch_call(pl->b, what, SYS_fcntl, fd->fd, F_SETLK,
			   batch_in(pl->b, &fl, sizeof fl));
	}
	return 0;
}
