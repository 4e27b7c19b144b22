/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the job wrote to its files lies in the page cache. An image records their sizes and relies
 * on their content, so it is worth nothing after a power cut unless they reached the disk before it
 * did.
 */
#include "dump/internal.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* By path, with a description of our own: a duplicate of the job's would keep its locks alive. */
static int sync_path(const char *path, uint64_t ino, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_ino != ino || !S_ISREG(st.st_mode))
		return 0; /* write-only to us, or replaced already: not ours to judge */
	if (fdatasync(fd) < 0 && errno != EINVAL && errno != EROFS)
		return err_set(err, -errno, "cannot write '%s' to disk: %m", path);
	return 0;
}

int sync_files(const struct tree *t, struct err *err)
{
	for (unsigned i = 0; i < t->n_files; i++) {
		const struct file *f = &t->files[i];
		int rc;

		if (f->kind != FILE_REGULAR || (f->flags & O_ACCMODE) == O_RDONLY || !f->path)
			continue;
		rc = sync_path(f->path, f->ino, err);
		if (rc < 0)
			return rc;
	}
	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *p = &t->processes[i];

		for (unsigned j = 0; j < p->n_vmas; j++) {
			const struct vma *v = &p->vmas[j];
			int rc = 0;

			if (v->kind == VMA_FILE && (v->flags & MAP_SHARED) &&
			    (v->prot & PROT_WRITE))
				rc = sync_path(v->path, v->ino, err);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}
