/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * File leases (fcntl(2), F_SETLEASE): whoever opens the file waits until the holder, who is told by
 * a signal, has given the lease up.
 *
 * One that is being broken has somebody waiting, and F_GETLEASE tells only what it is to become: it
 * cannot be taken again as it is. That is over in /proc/sys/fs/lease-break-time seconds at the
 * latest, so the checkpoint is tried again. And nobody else may have a file open on which there is
 * a write lease: a restart opens once more what is mapped.
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

bool lease_is_write(const struct open_file *of)
{
	return fcntl(of->dup, F_GETLEASE) == F_WRLCK;
}

static int is_mapped(const struct capture *c, const struct open_file *of, struct err *err)
{
	for (unsigned i = 0; i < c->n_subjects; i++) {
		struct proc_map *maps;
		unsigned n;
		int rc = proc_maps_read(c->subjects[i].proc_dirfd, false, c->arena, &maps, &n, err);

		if (rc < 0)
			return rc;
		for (unsigned k = 0; k < n; k++)
			if (maps[k].ino == of->st.st_ino &&
			    makedev((unsigned)(maps[k].dev >> 20),
				    (unsigned)(maps[k].dev & 0xfffff)) == of->st.st_dev)
				return 1;
	}
	return 0;
}

int lease_capture(const struct capture *c, const struct open_file *of, struct file *f,
		  struct err *err)
{
	int lease, rc;

	if (!S_ISREG(of->st.st_mode) || (of->flags & O_PATH))
		return 0;
	if (of->info.lease_breaking)
		return fd_error(of, err, -EAGAIN,
				"a lease on '%s' is being broken: somebody waits to open the file",
				of->link);
	lease = fcntl(of->dup, F_GETLEASE);
	f->lease = lease == F_RDLCK || lease == F_WRLCK ? (uint32_t)lease + 1 : 0;
	rc = lease == F_WRLCK ? is_mapped(c, of, err) : 0;
	return rc <= 0 ? rc
		       : refuse(of, err,
				"a write lease on '%s', which is mapped as well, is not supported",
				of->link);
}

int lease_put(struct rebuild *rb, const struct process *p, const struct file *f, int fd,
	      struct placer *pl, struct err *err)
{
	const char *what;

	if (!f->lease)
		return 0;
	what = arena_printf(rb->arena,
			    "take the lease of pid %d fd %d on '%s' again (no other program may "
			    "have it open%s; fuser shows which)",
			    p->pid, fd, f->path ? f->path : "a file",
			    f->lease - 1 == F_WRLCK ? "" : " for writing");
	if (!what)
		return err_nomem(err);
	batch_call(pl->b, what, SYS_fcntl, fd, F_SETLEASE, f->lease - 1);
	return 0;
}
