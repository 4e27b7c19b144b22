/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Standard streams that lead out of the tree, and the terminal: what ckpt-restart's own stand in
 * for.
 *
 * A description outside the tree that is open as 0, 1 or 2 somewhere is not recorded but
 * represented: by the number of the stream. A terminal is usually one description under all three
 * numbers; it is split, so that each stream follows its own number (restarted with its output going
 * to a file, the job's output goes there, whatever it shared before). Other descriptors of the same
 * description follow the stream that suits their access mode.
 */
#include "object/kinds.h"
#include "object/pty.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

bool is_terminal(const struct open_file *of)
{
	unsigned maj = major(of->st.st_rdev), min = minor(of->st.st_rdev);

	/* 5:2, the master side of a pseudo-terminal, is the other end */
	if (!S_ISCHR(of->st.st_mode) || (of->flags & O_PATH) || (maj == 5 && min == 2))
		return false;
	/* By number too: one that was hung up does not answer any more. 136 to 143:
	 * pseudo-terminals. */
	return (maj >= 136 && maj <= 143) || maj == 4 || maj == 5 || isatty(of->dup);
}

/* For each description, bit n: some process has it as descriptor n (0, 1, 2). */
static uint8_t *stream_masks(const struct capture *c)
{
	uint8_t *masks = calloc(c->n_open_files + 1, sizeof *masks);

	for (unsigned i = 0; masks && i < c->n_subjects; i++) {
		const struct process *p = c->subjects[i].process;

		for (unsigned k = 0; k < p->n_fds && p->fds[k].fd <= 2; k++)
			masks[p->fds[k].file - 1] |= (uint8_t)(1u << p->fds[k].fd);
	}
	return masks;
}

int outside_pick(unsigned mask, int flags)
{
	static const int readers[] = { 0, 1, 2 }, writers[] = { 1, 2, 0 };
	const int *order = (flags & O_ACCMODE) == O_RDONLY ? readers : writers;

	for (unsigned i = 0; i < 3; i++)
		if (mask & 1u << order[i])
			return order[i];
	return -1;
}

static bool leads_outside(const struct open_file *of)
{
	return (is_terminal(of) && of->pty != PTY_SLAVE) || socket_leads_outside(of) ||
	       (S_ISFIFO(of->st.st_mode) && of->outside);
}

/* A standard stream that went to a file which the one who opened it may use, and this user not. */
static bool out_of_reach(const struct open_file *of)
{
	return S_ISREG(of->st.st_mode) && of->link[0] == '/' && !of->deleted &&
	       of->st.st_nlink > 0 && !regular_reachable(of);
}

/* A second opening of a pipe that is a standard stream counts as that stream too. */
static unsigned pipe_mask(const struct capture *c, const struct open_file *of, const uint8_t *masks)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < c->n_open_files; i++)
		if (same_inode(&c->open_files[i].st, &of->st))
			mask |= masks[i];
	return mask;
}

/* The file that stands for the description of number i as the given stream. */
static uint32_t split(struct capture *c, unsigned i, unsigned n_before, int stream,
		      uint32_t *clones)
{
	struct open_file *of;
	struct file *f;

	if (clones[i * 3 + (unsigned)stream])
		return clones[i * 3 + (unsigned)stream];
	f = arena_push(c->arena, &c->tree->files, &c->tree->n_files, sizeof *f);
	of = f ? arena_push(c->arena, &c->open_files, &c->n_open_files, sizeof *of) : NULL;
	if (!of || i >= n_before)
		return 0;
	*of = c->open_files[i];
	of->stream = stream;
	of->dup = fcntl(c->open_files[i].dup, F_DUPFD_CLOEXEC, 3);
	f->id = c->n_open_files;
	return clones[i * 3 + (unsigned)stream] = of->dup < 0 ? 0 : f->id;
}

int outside_survey(struct capture *c, struct err *err)
{
	unsigned n = c->n_open_files;
	CLEANUP_FREE uint32_t *clones = calloc(n + 1, 3 * sizeof *clones);
	CLEANUP_FREE uint8_t *masks = stream_masks(c);

	if (!clones || !masks)
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++) {
		struct open_file *of = &c->open_files[i];
		unsigned mask = of->flags & O_PATH ? 0 : masks[i];

		if (!mask && S_ISFIFO(of->st.st_mode) && of->outside)
			mask = pipe_mask(c, of, masks);
		if (mask && (leads_outside(of) || out_of_reach(of)))
			of->stream = outside_pick(mask, of->flags);
		else if (!mask && S_ISFIFO(of->st.st_mode) && of->outside && !(of->flags & O_PATH))
			of->stream = of->fd; /* --inherit gives the job another in its place */
		if (fd_rule(&c->tree->settings, of->fd) == FD_INHERIT)
			of->stream = of->fd;
	}
	for (unsigned s = 0; s < c->n_subjects; s++) {
		struct process *p = c->subjects[s].process;

		for (unsigned k = 0; k < p->n_fds && p->fds[k].fd <= 2; k++) {
			unsigned i = p->fds[k].file - 1;

			if (c->open_files[i].stream < 0 || c->open_files[i].stream == p->fds[k].fd)
				continue;
			p->fds[k].file = split(c, i, n, p->fds[k].fd, clones);
			if (!p->fds[k].file)
				return err_nomem(err);
		}
	}
	return 0;
}

/* --- the terminal itself -----------------------------------------------------------------------
 */

/* Is it the terminal of the job: its controlling one, or one that a standard stream leads to? */
static bool is_own_terminal(const struct capture *c, const struct open_file *of)
{
	struct proc_stat stat;

	if (of->st.st_rdev == makedev(5, 0))
		return true;
	for (unsigned i = 0; i < c->n_open_files; i++)
		if (c->open_files[i].stream >= 0 && c->open_files[i].st.st_rdev == of->st.st_rdev)
			return true;
	if (proc_stat_read(of->subject->proc_dirfd, &stat, NULL) < 0 || !stat.tty_nr)
		return false;
	return proc_tty_device(&stat) == of->st.st_rdev;
}

static bool is_job_terminal(const struct capture *c, const struct open_file *of)
{
	return is_terminal(of) && of->pty == PTY_NO && (of->stream >= 0 || is_own_terminal(c, of));
}

/* The foreground group of the terminal as the job sees it; 0: none of the job's. */
static int32_t foreground_group(const struct capture *c)
{
	for (unsigned i = 0; i < c->n_subjects; i++) {
		struct proc_stat stat;
		pid_t tpgid;

		if (proc_stat_read(c->subjects[i].proc_dirfd, &stat, NULL) < 0 || stat.tpgid <= 0)
			continue;
		tpgid = stat.tpgid;
		for (unsigned k = 0; k < c->n_subjects; k++)
			if (proc_stat_read(c->subjects[k].proc_dirfd, &stat, NULL) == 0 &&
			    stat.pgrp == tpgid)
				return c->subjects[k].process->pgid;
		return 0;
	}
	return 0;
}

/* Its modes are the job's as long as that runs on it: a restart sets them on another terminal. */
int terminal_capture(struct capture *c, struct err *err)
{
	struct terminal_state *t = &c->tree->terminal;

	for (unsigned i = 0; i < c->n_open_files; i++) {
		const struct open_file *of = &c->open_files[i];
		struct termios2 modes;
		struct winsize size;

		if (!is_job_terminal(c, of) || ioctl(of->dup, PTY_TCGETS2, &modes) < 0 ||
		    ioctl(of->dup, TIOCGWINSZ, &size) < 0)
			continue;
		t->path = of->link;
		t->termios =
			(struct blob){ arena_memdup(c->arena, &modes, sizeof modes), sizeof modes };
		t->rows = size.ws_row;
		t->columns = size.ws_col;
		t->group = foreground_group(c);
		return t->termios.data ? 0 : err_nomem(err);
	}
	return 0;
}

/* --- FILE_OUTSIDE ----------------------------------------------------------------------------- */

static bool outside_match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return of->stream >= 0;
}

static int outside_capture(struct capture *c, const struct open_file *of, struct file *f,
			   struct err *err)
{
	struct file_outside *d = arena_alloc(c->arena, sizeof *d);

	if (!d)
		return err_nomem(err);
	d->stream = (uint32_t)of->stream;
	d->what = of->fd > 2 && of->link[0] != '/' && !S_ISFIFO(of->st.st_mode) &&
				  !S_ISSOCK(of->st.st_mode)
			  ? arena_strdup(c->arena, of->link)
		  : S_ISCHR(of->st.st_mode) ? arena_printf(c->arena, "terminal %s", of->link)
		  : S_ISREG(of->st.st_mode)
			  ? arena_printf(c->arena, "file %s", of->link)
			  : arena_strdup(c->arena, S_ISSOCK(of->st.st_mode) ? "socket"
						   : of->link[0] == '/'     ? "FIFO"
									    : "pipe");
	if (!d->what)
		return err_nomem(err);
	f->detail = d;
	return 0;
}

static int outside_check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	static const char *const names[] = { "standard input", "standard output",
					     "standard error" };
	const struct file_outside *d = f->detail;

	(void)rb;
	if (d->stream > 2) { /* with --inherit nobody would ask */
		err_set(err, -EBADF,
			"this %s led out of the job, to a program that is not restarted with it",
			d->what ? d->what : "descriptor");
		err_hint(err,
			 "give the job one in its place: ckpt-restart --inherit %u ... %u<>FILE",
			 d->stream, d->stream);
		return -EBADF;
	}
	if (fcntl((int)d->stream, F_GETFD) >= 0)
		return 0;
	err_set(err, -EBADF, "%s led to a %s, and is closed here", names[d->stream],
		d->what ? d->what : "place outside");
	err_hint(err, d->stream ? "for example add %u>/dev/null" : "for example add %u</dev/null",
		 d->stream);
	return -EBADF;
}

static int outside_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_outside *d = f->detail;
	int rc = lift_copy(rb, (int)d->stream, ret_fd, err), now;

	if (rc < 0)
		return rc;
	/*
	 * The description is the caller's, as it would be had the job been started from there; a
	 * job that made it non-blocking counts on that, though. The rest of its flags are left
	 * alone.
	 */
	now = fcntl(*ret_fd, F_GETFL);
	if ((f->flags & O_NONBLOCK) && now >= 0 && !(now & O_NONBLOCK))
		(void)fcntl(*ret_fd, F_SETFL, now | O_NONBLOCK);
	return 0;
}

const struct file_ops outside_ops = {
	.kind = FILE_OUTSIDE,
	.match = outside_match,
	.capture = outside_capture,
	.check = outside_check,
	.open = outside_open,
};

/* --- FILE_TTY --------------------------------------------------------------------------------- */

static bool tty_match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return is_terminal(of);
}

static int tty_capture(struct capture *c, const struct open_file *of, struct file *f,
		       struct err *err)
{
	(void)f;
	if (is_own_terminal(c, of))
		return 0;
	return refuse(of, err, "'%s' is not supported: it is not the terminal that the job runs on",
		      of->link);
}

/* /dev/tty, else whichever standard stream is a terminal. */
static int open_terminal(int flags)
{
	int fd = open("/dev/tty", flags | O_NOCTTY | O_CLOEXEC);

	for (int i = 0; fd < 0 && i <= 2; i++)
		if (isatty(i))
			fd = reopen_fd(i, flags | O_NOCTTY | O_CLOEXEC);
	return fd;
}

static int tty_check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	CLEANUP_FD int fd = open_terminal((int)f->flags & O_ACCMODE);

	(void)rb;
	if (fd >= 0)
		return 0;
	err_set(err, -ENXIO, "'%s' was the job's terminal, and there is no terminal here",
		f->path ? f->path : "tty");
	err_hint(err, "restart it from a terminal, or under script(1)");
	return -ENXIO;
}

static int tty_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	int fd = open_terminal(reopen_flags(f));

	(void)rb;
	if (fd < 0)
		return err_set(err, -ENXIO, "cannot open the terminal");
	*ret_fd = fd;
	return 0;
}

const struct file_ops tty_ops = {
	.kind = FILE_TTY,
	.match = tty_match,
	.capture = tty_capture,
	.check = tty_check,
	.open = tty_open,
};
