/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files on their way: descriptors in a unix socket's queue (SCM_RIGHTS), which no process has as a
 * number. Peeking at the queue gave us duplicates, through which they are captured like others;
 * what /proc shows of a descriptor is read of ourselves.
 */
#include "object/kinds.h"

#include "util/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* For kinds that ask the process that has a descriptor: ourselves, with an empty table. */
static struct subject *flight_subject(struct capture *c, unsigned carrier, struct err *err)
{
	struct subject *s = c->flight;

	if (s)
		return s;
	s = arena_alloc(c->arena, sizeof *s);
	if (s)
		s->process = arena_alloc(c->arena, sizeof *s->process);
	if (!s || !s->process) {
		err_nomem(err);
		return NULL;
	}
	s->pid = c->open_files[carrier].subject->pid;
	s->pidfd = s->proc_dirfd = -1;
	if (proc_open_pid(getpid(), &s->proc_dirfd, err) < 0)
		return NULL;
	return c->flight = s;
}

static int find(const struct capture *c, int fd, const struct stat *st)
{
	for (unsigned i = 0; i < c->n_open_files; i++) {
		const struct open_file *of = &c->open_files[i];
		int rc;

		if (!same_inode(&of->st, st))
			continue;
		rc = same_description(of->dup, fd);
		if (rc < 0)
			rc = fcntl(fd, 1024 + 3 /* F_DUPFD_QUERY, Linux 6.10 */, of->dup) != 1;
		if (rc == 0)
			return (int)i + 1;
	}
	return 0;
}

static int add(struct capture *c, unsigned carrier, int *fd, const struct stat *st, struct err *err)
{
	struct subject *s = flight_subject(c, carrier, err);
	struct open_file *of;
	struct file *f;
	char name[32];
	int rc;

	if (!s)
		return err ? err->code : -ENOMEM;
	f = arena_push(c->arena, &c->tree->files, &c->tree->n_files, sizeof *f);
	of = f ? arena_push(c->arena, &c->open_files, &c->n_open_files, sizeof *of) : NULL;
	if (!of)
		return err_nomem(err);
	f->id = c->n_open_files;
	*of = (struct open_file){ .subject = s,
				  .fd = *fd,
				  .dup = fd_take(fd),
				  .st = *st,
				  .stream = -1,
				  .carrier = (int)carrier,
				  .carrier_fd = c->open_files[carrier].fd };
	(void)snprintf(name, sizeof name, "fd/%d", of->fd);
	rc = proc_fdinfo_read(s->proc_dirfd, of->fd, c->arena, &of->info, err);
	if (rc == 0)
		rc = proc_link(s->proc_dirfd, name, c->arena, &of->link, &of->deleted, err);
	if (rc < 0)
		return rc;
	of->flags = (int)(of->info.flags & ~(uint32_t)O_CLOEXEC);
	rc = file_look_closer(c, of, err);
	return rc < 0 ? rc : (int)f->id;
}

int flight_add(struct capture *c, unsigned carrier, int fd, struct err *err)
{
	CLEANUP_FD int own = fd;
	struct stat st;
	int id;

	if (fstat(own, &st) < 0)
		return err_set(err, -errno, "cannot look at a descriptor on its way: %m");
	id = find(c, own, &st);
	return id ? id : add(c, carrier, &own, &st, err);
}
