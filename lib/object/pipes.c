/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which pipes and FIFOs lead out of the tree.
 *
 * A pipe is inside when the tree holds all there is of it. Whether someone else holds an end cannot
 * be asked directly, but the kernel lets on who is missing (pipe_poll): a read end shows POLLHUP
 * when no writer is left, a write end POLLERR when no reader is. Our own duplicates do not disturb
 * that as long as we hold only ends of the kind that the tree holds: a second reader makes no
 * writer. So:
 *
 *   the tree holds  and               then
 *   both kinds      we hold it too    outside: we inherited it with the job (a make jobserver)
 *   both kinds      we do not         inside
 *   readers only    POLLHUP           inside, half closed: what is in it is all that will come
 *   readers only    no POLLHUP        outside: there is a writer somewhere
 *   writers only    POLLERR           inside, half closed; outside if we hold it too (output
 *                                     whose reader has ended: a restart gives it a new one)
 *   writers only    no POLLERR        outside: there is a reader somewhere
 *
 * An end that the job itself has, but that --fd leaves out, counts as closed.
 *
 * A FIFO's reader shows no POLLHUP either when no writer has come yet; tee(2), which takes nothing
 * out, then tells: from an empty pipe it returns 0 without a writer and EAGAIN with one.
 */
#include "object/kinds.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

int pipes_own(struct arena *a, struct inode_list *ret, struct err *err)
{
	unsigned n = 0;
	CLEANUP_FD int dirfd = -1;
	int *fds = NULL, rc;

	rc = proc_open_pid(getpid(), &dirfd, err);
	if (rc == 0)
		rc = proc_fds(dirfd, a, &fds, &n, err);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		struct inode_ref *ref;
		struct stat st;

		if (fstat(fds[i], &st) < 0 || (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)))
			continue;
		ref = arena_push(a, &ret->v, &ret->n, sizeof *ref);
		if (!ref)
			return err_nomem(err);
		*ref = (struct inode_ref){ .dev = st.st_dev, .ino = st.st_ino };
	}
	return rc;
}

bool inode_listed(const struct inode_list *l, const struct stat *st)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->v[i].dev == st->st_dev && l->v[i].ino == st->st_ino)
			return true;
	return false;
}

static bool reads(const struct open_file *of)
{
	return (of->flags & O_ACCMODE) != O_WRONLY;
}

static bool writes(const struct open_file *of)
{
	return (of->flags & O_ACCMODE) != O_RDONLY;
}

static bool shows(int fd, short event)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) > 0 && (p.revents & event);
}

/* A FIFO's reader that shows no POLLHUP: has no writer opened it yet? */
static bool still_waiting(int fd)
{
	CLEANUP_FD int in = -1;
	CLEANUP_FD int out = -1;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	in = ends[0];
	out = ends[1];
	return tee(fd, out, 1, SPLICE_F_NONBLOCK) == 0;
}

/* Is an end of that kind left out of the image? */
static bool left_out(const struct capture *c, const struct open_file *of, bool reader)
{
	for (unsigned i = 0; i < c->n_left_out; i++)
		if (c->left_out[i].dev == of->st.st_dev && c->left_out[i].ino == of->st.st_ino &&
		    (reader ? c->left_out[i].reads : c->left_out[i].writes))
			return true;
	return false;
}

/* of: one of the n descriptions of one pipe. */
static void survey_one(const struct capture *c, struct open_file *const *of, unsigned n, bool ours,
		       bool *content_taken)
{
	const struct open_file *reader = NULL, *writer = NULL;
	bool outside = ours, no_readers = false, no_writers = false, never = false;

	for (unsigned i = 0; i < n; i++) {
		if (reads(of[i]))
			reader = of[i];
		if (writes(of[i]))
			writer = of[i];
	}
	if (reader && !writer) {
		never = of[0]->link[0] == '/' && !shows(reader->dup, POLLHUP) &&
			still_waiting(reader->dup);
		no_writers = never || shows(reader->dup, POLLHUP) || left_out(c, reader, false);
		outside = !no_writers;
	} else if (writer && !reader) {
		no_readers = shows(writer->dup, POLLERR) || left_out(c, writer, true);
		outside = ours || !no_readers;
	}
	for (unsigned i = 0; i < n; i++) {
		of[i]->outside = outside;
		of[i]->no_readers = no_readers;
		of[i]->no_writers = no_writers;
		of[i]->never_written = never;
		of[i]->content_taken = content_taken;
	}
}

static int by_inode(const void *pa, const void *pb)
{
	const struct stat *a = &(*(struct open_file *const *)pa)->st,
			  *b = &(*(struct open_file *const *)pb)->st;

	if (a->st_dev != b->st_dev)
		return a->st_dev < b->st_dev ? -1 : 1;
	return a->st_ino < b->st_ino ? -1 : a->st_ino > b->st_ino;
}

int pipes_survey(struct capture *c, const struct inode_list *own, struct err *err)
{
	CLEANUP_FREE struct open_file **pipes = calloc(c->n_open_files + 1, sizeof *pipes);
	unsigned n = 0, end;
	bool *taken = arena_array(c->arena, c->n_open_files, sizeof *taken);

	if (!pipes || !taken)
		return err_nomem(err);
	for (unsigned i = 0; i < c->n_open_files; i++)
		if (S_ISFIFO(c->open_files[i].st.st_mode) && !(c->open_files[i].flags & O_PATH))
			pipes[n++] = &c->open_files[i];
	qsort(pipes, n, sizeof *pipes, by_inode);
	for (unsigned i = 0; i < n; i = end) {
		end = i + 1;
		while (end < n && same_inode(&pipes[i]->st, &pipes[end]->st))
			end++;
		survey_one(c, pipes + i, end - i, inode_listed(own, &pipes[i]->st), taken++);
	}
	return 0;
}
