/* SPDX-License-Identifier: BSD-2-Clause */
/* memfd_create(2): also what stands in for any other shared memory on restore. */
#include "object/kinds.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PREFIX       "/memfd:"
#define NAME_MAX_LEN 249 /* memfd_create(2) */

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif
#define CKPT_MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#define FS_TMPFS             0x01021994
#define FS_RAMFS             0x858458f6

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	/* huge pages cannot be filled by writing: they are left to be refused */
	return S_ISREG(of->st.st_mode) && of->deleted &&
	       !strncmp(of->link, PREFIX, sizeof PREFIX - 1) &&
	       (of->fs_magic == FS_TMPFS || of->fs_magic == FS_RAMFS);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_content *d = arena_alloc(c->arena, sizeof *d);
	char key[SPACE_KEY_LEN];
	int fd = -1, rc, seals = fcntl(of->dup, F_GET_SEALS);

	if (!d)
		return err_nomem(err);
	d->seals = seals < 0 ? 0 : (uint32_t)seals;
	d->memfd_flags = d->seals & F_SEAL_EXEC ? CKPT_MFD_NOEXEC_SEAL : 0;
	d->nlink_was_zero = 1;
	space_key(key, SPACE_SHM, major(of->st.st_dev), minor(of->st.st_dev), of->st.st_ino);
	rc = open_readable(of, &fd, err);
	if (rc < 0)
		return rc;
	d->space = capture_space(c, SPACE_SHM, key, of->link + 1, (uint64_t)of->st.st_size, fd);
	if (!d->space)
		return err_nomem(err);
	if (rc > 0)
		space_source_is_theirs(c, d->space);
	f->detail = d;
	return 0;
}

/* "memfd:NAME", "/memfd:NAME (deleted)", "/dev/zero" ...: what to call the new one. */
static void pick_name(const struct rebuild *rb, const struct space *sp, char *ret, size_t size)
{
	const struct file *f = space_file(rb->tree, sp->id, FILE_MEMFD);
	const char *name = f && f->path ? f->path : sp->name ? sp->name : "shared";

	if (name[0] == '/')
		name++;
	if (!strncmp(name, "memfd:", 6))
		name += 6;
	(void)snprintf(ret, MIN(size, (size_t)NAME_MAX_LEN + 1), "%s", name);
}

int memfd_make(struct rebuild *rb, unsigned i, int *ret_fd, struct err *err)
{
	const struct space *sp = &rb->tree->spaces[i];
	const struct file *f = space_file(rb->tree, sp->id, FILE_MEMFD);
	const struct file_content *d = f ? f->detail : NULL;
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	char name[NAME_MAX_LEN + 1];
	int fd;

	pick_name(rb, sp, name, sizeof name);
	/* One that was made not to allow seals has F_SEAL_SEAL, which it gets like any other when
	 * all is filled in. */
	fd = memfd_create(name, flags | (d && (d->seals & F_SEAL_EXEC) ? CKPT_MFD_NOEXEC_SEAL : 0));
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	if (fd < 0)
		return err_set(err, -errno, "cannot make shared memory '%s': %m", name);
	*ret_fd = fd;
	return 0;
}

const struct file_ops memfd_ops = {
	.kind = FILE_MEMFD,
	.match = match,
	.capture = capture,
	.check = content_check,
	.open = content_open,
};
