/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making a pseudo-terminal again: the master first, then all its slaves at once, since a terminal
 * whose last slave is closed is hung up. The content goes in between, through modes that leave it
 * alone; the modes of the job come last.
 *
 * The kernel gives the lowest free number, so that the old one is had, when it is free, by opening
 * masters until it comes.
 */
#include "object/pty.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_TRIES 256

static bool is_pty(const struct file *f, uint32_t index)
{
	const struct file_pty *d = f->detail;

	return f->kind == FILE_PTY && d->index == index;
}

/* The master of f's pseudo-terminal in tree->files, -1: it has gone. */
static int master_file(const struct tree *t, const struct file *f)
{
	const struct file_pty *d = f->detail;

	if (d->hung_up && !d->master)
		return -1;
	for (unsigned i = 0; i < t->n_files; i++) {
		const struct file_pty *o = t->files[i].detail;

		if (is_pty(&t->files[i], d->index) && o->master)
			return (int)i;
	}
	return -1;
}

int pty_check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_pty *d = f->detail;

	if (!d->master && !d->hung_up && master_file(rb->tree, f) < 0)
		return err_image(err, -EINVAL, "the image has no master of /dev/pts/%u", d->index);
	if (d->master && d->termios.len != sizeof(struct termios2))
		return err_image(err, -EINVAL, "the image has no modes of /dev/pts/%u", d->index);
	if (access("/dev/ptmx", R_OK | W_OK) < 0)
		return err_set(err, -errno, "cannot make a pseudo-terminal: /dev/ptmx: %m");
	return 0;
}

static int open_master(uint32_t want, int *ret_fd, struct err *err)
{
	int other[MAX_TRIES], n = 0, fd = -1, first = -1;
	unsigned index = 0;

	while (n < MAX_TRIES) {
		fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd < 0)
			break;
		if (ioctl(fd, TIOCGPTN, &index) < 0 || index >= want)
			break;
		other[n++] = fd;
		fd = -1;
	}
	/* beyond the old number, or none: any will do, and the first is as good as another */
	if (fd < 0 && n)
		first = other[--n];
	while (n)
		(void)close(other[--n]);
	*ret_fd = fd >= 0 ? fd : first;
	return *ret_fd < 0 ? err_set(err, -errno, "cannot make a pseudo-terminal: /dev/ptmx: %m")
			   : 0;
}

/*
 * TIOCGPTPEER's flags are those of open(2), without a path that may be another's. O_CLOEXEC would
 * stay among those of the description, where the program could see it.
 */
static int open_peer(int master, int flags, struct err *err)
{
	int zero = 0, fd;

	if (ioctl(master, TIOCSPTLCK, &zero) < 0)
		return err_set(err, -errno, "cannot unlock a pseudo-terminal: %m");
	fd = ioctl(master, TIOCGPTPEER, (flags & ~O_CLOEXEC) | O_NOCTTY);
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd < 0 ? err_set(err, -errno, "cannot open the slave of a pseudo-terminal: %m") : fd;
}

/* Waits until all that was written has passed through the modes. */
static void drain(int fd, int want)
{
	struct timespec ts = { .tv_nsec = 1000000 };
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int have = 0;

	for (int i = 0; i < 2000; i++) {
		(void)poll(&p, 1, 0);
		if (ioctl(fd, FIONREAD, &have) < 0 || have >= want)
			break;
		(void)nanosleep(&ts, NULL);
	}
}

/* How much of the input FIONREAD shows when all of it has arrived: whole lines, without marks. */
static int visible(const struct file_pty *d, const struct termios2 *t)
{
	int n = 0, lines = 0;

	if (!(t->c_lflag & ICANON))
		return (int)d->input.len;
	for (uint32_t i = 0; i < d->input.len; i++) {
		uint8_t b = d->input.data[i];

		n += b || !d->input_marks;
		if (b == '\n' || (!b && d->input_marks) || (b && b == t->c_cc[VEOL]) ||
		    (b && b == t->c_cc[VEOL2]))
			lines = n;
	}
	return lines;
}

static int put_all(int fd, const uint8_t *data, size_t len, struct err *err)
{
	return !len || write(fd, data, len) == (ssize_t)len
		       ? 0
		       : err_set(err, -EIO, "cannot put %zu bytes back into a pseudo-terminal: %m",
				 len);
}

static int put_content(struct rebuild *rb, const struct file_pty *d, int master, int slave,
		       struct err *err)
{
	uint8_t mark = d->input_marks ? pty_unused_byte(&d->input) : 0;
	struct termios2 modes, plain;
	uint8_t *input = arena_memdup(rb->arena, d->input.data, d->input.len);
	int rc;

	memcpy(&modes, d->termios.data, sizeof modes);
	pty_plain(&modes, mark, &plain);
	if (d->input.len && !input)
		return err_nomem(err);
	for (uint32_t i = 0; mark && i < d->input.len; i++)
		input[i] = input[i] ? input[i] : mark;
	if (ioctl(master, PTY_TCSETS2, &plain) < 0)
		return err_set(err, -errno, "cannot set the modes of a pseudo-terminal: %m");
	rc = put_all(slave, d->output.data, d->output.len, err);
	if (rc == 0)
		rc = put_all(master, input, d->input.len, err);
	if (rc < 0)
		return rc;
	drain(slave, visible(d, &modes));
	drain(master, (int)MIN(d->output.len, 4095u));
	return 0;
}

static int put_modes(const struct file_pty *d, int master, int slave, struct err *err)
{
	struct winsize size = { (unsigned short)d->rows, (unsigned short)d->columns,
				(unsigned short)d->xpixel, (unsigned short)d->ypixel };
	struct termios2 modes;
	int on = 1;

	memcpy(&modes, d->termios.data, sizeof modes);
	if (ioctl(master, TIOCSWINSZ, &size) < 0 || ioctl(master, PTY_TCSETS2, &modes) < 0 ||
	    (d->packet && ioctl(master, TIOCPKT, &on) < 0))
		return err_set(err, -errno, "cannot set the modes of a pseudo-terminal: %m");
	/* Ctrl-S where it works, so that Ctrl-Q undoes it */
	if (d->stopped && (modes.c_iflag & IXON) && modes.c_cc[VSTOP])
		return put_all(master, &modes.c_cc[VSTOP], 1, err);
	if (d->stopped && ioctl(slave, TCXONC, TCOOFF) < 0)
		return err_set(err, -errno, "cannot hold back a terminal's output: %m");
	return 0;
}

/* All slaves of the master that the tree has. */
static int open_slaves(struct rebuild *rb, const struct file_pty *d, int master, unsigned *ret_n,
		       struct err *err)
{
	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file *g = &rb->tree->files[i];
		const struct file_pty *o = g->detail;
		int fd, rc;

		if (!is_pty(g, d->index) || o->master || o->hung_up || rb->file_fds[i] >= 0)
			continue;
		fd = open_peer(master, reopen_flags(g) & ~O_NOFOLLOW, err);
		if (fd < 0)
			return fd;
		rc = lift_fd(rb, &fd, err);
		if (rc < 0) {
			(void)close(fd);
			return rc;
		}
		rb->file_fds[i] = fd;
		++*ret_n;
		if (o->master == 0 && d->slave_mode)
			(void)fchmod(fd, d->slave_mode);
	}
	return 0;
}

static int fill(struct rebuild *rb, const struct file_pty *d, int master, struct err *err)
{
	CLEANUP_FD int slave = -1;
	unsigned n = 0;
	int on = 1, rc = 0;

	/* one that was never opened must not be: its master would read an end of file then */
	for (unsigned i = 0; i < rb->tree->n_files; i++)
		n += is_pty(&rb->tree->files[i], d->index);
	if (n > 1 || d->hung_up || d->output.len) {
		slave = open_peer(master, O_RDWR | O_NONBLOCK, err);
		if (slave < 0)
			return slave;
		rc = open_slaves(rb, d, master, &n, err);
		if (rc == 0)
			rc = put_content(rb, d, master, slave, err);
	}
	if (rc == 0)
		rc = put_modes(d, master, slave, err);
	if (rc == 0 && d->exclusive && slave >= 0 && ioctl(slave, TIOCEXCL) < 0)
		rc = err_set(err, -errno, "cannot make a terminal exclusive: %m");
	if (rc == 0 && d->locked && ioctl(master, TIOCSPTLCK, &on) < 0)
		rc = err_set(err, -errno, "cannot lock a pseudo-terminal: %m");
	return rc;
}

/* The other end is made and goes: what is left is hung up. */
static int open_hung_up(const struct file *f, int *ret_fd, struct err *err)
{
	CLEANUP_FD int master = -1;
	int rc = open_master(0, &master, err);

	if (rc == 0)
		rc = *ret_fd = open_peer(master, reopen_flags(f) & ~O_NOFOLLOW, err);
	return rc < 0 ? rc : 0;
}

int pty_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_pty *d = f->detail;
	int at = master_file(rb->tree, f), rc;
	CLEANUP_FD int master = -1;

	if (at < 0)
		return open_hung_up(f, ret_fd, err);
	rc = open_master(d->index, &master, err);
	if (rc == 0)
		rc = lift_fd(rb, &master, err);
	if (rc == 0)
		rc = fill(rb, rb->tree->files[at].detail, master, err);
	if (rc < 0)
		return rc;
	if (&rb->tree->files[at] == f) {
		*ret_fd = fd_take(&master);
		return 0;
	}
	/* asked for a slave first: it was made along with the others */
	rb->file_fds[at] = fd_take(&master);
	*ret_fd = rb->file_fds[file_index(rb->tree, f->id)];
	rb->file_fds[file_index(rb->tree, f->id)] = -1;
	return *ret_fd < 0 ? err_image(err, -EINVAL, "the image contradicts itself") : 0;
}

/* --- controlling terminals -------------------------------------------------------------------- */

/* A descriptor of the slave side: one that is made for the tree, else another, to be closed. */
static int slave_fd(const struct rebuild *rb, const struct file_pty *d, int master, bool *ret_close)
{
	*ret_close = false;
	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file_pty *o = rb->tree->files[i].detail;

		if (is_pty(&rb->tree->files[i], d->index) && !o->master && !o->hung_up)
			return rb->file_fds[i];
	}
	*ret_close = true;
	return ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* The index in tree->files of the pseudo-terminal that controls the session, -1: none does. */
static int terminal_of_session(const struct tree *t, int32_t session)
{
	for (unsigned i = 0; session && i < t->n_files; i++) {
		const struct file_pty *d = t->files[i].detail;

		if (t->files[i].kind == FILE_PTY && d->master && d->session == session)
			return (int)i;
	}
	return -1;
}

int32_t ptys_foreground_group(const struct tree *t, int32_t session)
{
	int i = terminal_of_session(t, session);
	const struct file_pty *d = i < 0 ? NULL : t->files[i].detail;

	return d ? d->group : 0;
}

int ptys_control(const struct rebuild *rb, int32_t session, pid_t group)
{
	int i = terminal_of_session(rb->tree, session), fd, rc = 0;
	bool ours;

	if (i < 0)
		return 0;
	fd = slave_fd(rb, rb->tree->files[i].detail, rb->file_fds[i], &ours);
	if (fd < 0 || (group ? ioctl(fd, TIOCSPGRP, &group) : ioctl(fd, TIOCSCTTY, 0)) < 0)
		rc = -errno;
	if (ours && fd >= 0)
		(void)close(fd);
	return rc;
}
