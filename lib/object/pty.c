/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pseudo-terminals whose master is in the tree: what a terminal emulator, script(1), tmux or expect
 * holds, and the slaves of it in the programs that run there.
 *
 * Nearly everything can be asked of the master, which answers for the slave's side (tty_ioctl(4),
 * ioctl_tty(2)): modes, size, foreground group, session. A master without a slave in the tree
 * either shows POLLHUP, when the last slave has been closed, or has never had one. A slave whose
 * master has gone is hung up for ever: every call on it gives EIO.
 */
#include "object/pty.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

static bool is_char(const struct open_file *of)
{
	return S_ISCHR(of->st.st_mode) && !(of->flags & O_PATH);
}

static bool is_master(const struct open_file *of)
{
	return is_char(of) && of->st.st_rdev == makedev(5, 2);
}

/* 136 to 143 are slaves by number; /dev/tty (5:0) may be one. */
static bool may_be_slave(const struct open_file *of)
{
	unsigned maj = major(of->st.st_rdev);

	return is_char(of) && ((maj >= 136 && maj <= 143) || of->st.st_rdev == makedev(5, 0));
}

/* The N of /dev/pts/N, from the device number as the kernel shows it; -1: not a slave. */
static int slave_index(unsigned dev)
{
	unsigned maj = dev >> 8 & 0xfff, min = (dev & 0xff) | (dev >> 12 & 0xfff00);

	return maj >= 136 && maj <= 143 ? (int)((maj - 136) << 20 | min) : -1;
}

static const struct open_file *master_of(const struct capture *c, unsigned index)
{
	for (unsigned i = 0; i < c->n_open_files; i++)
		if (c->open_files[i].pty == PTY_MASTER && c->open_files[i].pty_index == index)
			return &c->open_files[i];
	return NULL;
}

static int survey_masters(struct capture *c, struct err *err)
{
	for (unsigned i = 0; i < c->n_open_files; i++) {
		struct open_file *of = &c->open_files[i];
		unsigned index;

		if (!is_master(of) || ioctl(of->dup, TIOCGPTN, &index) < 0)
			continue;
		if (master_of(c, index)) {
			(void)refuse(of, err,
				     "pseudo-terminals of several instances of devpts (there are "
				     "two with number %u) are not supported",
				     index);
			return err_hint(err, "--fd %d=close leaves it out", of->fd);
		}
		of->pty = PTY_MASTER;
		of->pty_index = index;
	}
	return 0;
}

int ptys_survey(struct capture *c, struct err *err)
{
	int rc = survey_masters(c, err);

	for (unsigned i = 0; rc == 0 && i < c->n_open_files; i++) {
		struct open_file *of = &c->open_files[i];
		unsigned dev;
		int index;

		if (!may_be_slave(of))
			continue;
		if (ioctl(of->dup, TIOCGDEV, &dev) == 0) {
			index = slave_index(dev);
			if (index < 0 || !master_of(c, (unsigned)index))
				continue;
			of->pty = PTY_SLAVE;
			of->pty_index = (unsigned)index;
		} else if (errno == EIO && of->st.st_rdev != makedev(5, 0)) {
			of->pty = PTY_HUNG_UP;
			of->pty_index = minor(of->st.st_rdev);
		}
	}
	return rc;
}

/* --- capture ---------------------------------------------------------------------------------- */

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return of->pty != PTY_NO;
}

static const struct open_file *slave_of(const struct capture *c, unsigned index)
{
	for (unsigned i = 0; i < c->n_open_files; i++)
		if (c->open_files[i].pty == PTY_SLAVE && c->open_files[i].pty_index == index)
			return &c->open_files[i];
	return NULL;
}

/* A process, group or session id as we see it, as the job does; 0: not of the tree. */
static int32_t id_in_job(const struct capture *c, pid_t id, bool group)
{
	for (unsigned i = 0; i < c->n_subjects; i++) {
		const struct subject *s = &c->subjects[i];
		struct proc_stat stat;

		if (s->status.tgid == id)
			return s->process->pid;
		if (group && proc_stat_read(s->proc_dirfd, &stat, NULL) == 0 && stat.pgrp == id)
			return s->process->pgid;
	}
	return 0;
}

static int capture_job_control(struct capture *c, const struct open_file *of, struct file_pty *d,
			       struct err *err)
{
	pid_t session = 0, group = 0;

	if (ioctl(of->dup, TIOCGSID, &session) < 0 || session <= 0)
		return 0;
	d->session = id_in_job(c, session, false);
	if (ioctl(of->dup, TIOCGPGRP, &group) == 0 && group > 0)
		d->group = id_in_job(c, group, true);
	if (d->session || slave_of(c, of->pty_index))
		return 0;
	return refuse(of, err,
		      "the slave of this pseudo-terminal (/dev/pts/%u) is the terminal of session "
		      "%d, which is not in the job; that is not supported",
		      of->pty_index, session);
}

static bool shows(int fd, short event)
{
	struct pollfd p = { .fd = fd, .events = event };

	return poll(&p, 1, 0) > 0 && (p.revents & event);
}

static int capture_slave_side(struct capture *c, const struct open_file *of,
			      const struct open_file *slave, struct file_pty *d, struct err *err)
{
	int on = 0, discipline = 0;

	if (!slave)
		return 0;
	if (ioctl(slave->dup, TIOCGETD, &discipline) < 0 || discipline != 0)
		return refuse(slave, err,
			      "a terminal with line discipline %d (as for SLIP or PPP) is not "
			      "supported",
			      discipline);
	if (ioctl(slave->dup, TIOCGEXCL, &on) == 0)
		d->exclusive = on != 0;
	d->stopped = !shows(slave->dup, POLLOUT);
	if (slave->st.st_rdev != makedev(5, 0))
		d->slave_mode = slave->st.st_mode & 0777;
	return capture_job_control(c, of, d, err);
}

static int capture_master(struct capture *c, const struct open_file *of, struct file_pty *d,
			  struct err *err)
{
	const struct open_file *slave = slave_of(c, of->pty_index);
	struct termios2 *t = arena_alloc(c->arena, sizeof *t);
	int locked = 0, packet = 0;
	struct winsize size = { 0 };
	int rc;

	if (!t)
		return err_nomem(err);
	if (ioctl(of->dup, PTY_TCGETS2, t) < 0 || ioctl(of->dup, TIOCGWINSZ, &size) < 0 ||
	    ioctl(of->dup, TIOCGPTLCK, &locked) < 0 || ioctl(of->dup, TIOCGPKT, &packet) < 0)
		return fd_error(of, err, -errno, "cannot read the modes of a pseudo-terminal: %m");
	d->termios = (struct blob){ (uint8_t *)t, sizeof *t };
	d->rows = size.ws_row;
	d->columns = size.ws_col;
	d->xpixel = size.ws_xpixel;
	d->ypixel = size.ws_ypixel;
	d->locked = locked != 0;
	d->packet = packet != 0;
	d->hung_up = !slave && shows(of->dup, POLLHUP);
	if (d->packet && shows(of->dup, POLLPRI))
		return fd_error(of, err, -EAGAIN,
				"the pseudo-terminal has news in packet mode (TIOCPKT) that its "
				"owner has not read yet");
	rc = slave ? capture_slave_side(c, of, slave, d, err) : capture_job_control(c, of, d, err);
	return rc < 0 ? rc : pty_queues_capture(c, of, d, slave, err);
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_pty *d = arena_alloc(c->arena, sizeof *d);

	if (!d)
		return err_nomem(err);
	*d = (struct file_pty){ .index = of->pty_index,
				.master = of->pty == PTY_MASTER,
				.hung_up = of->pty == PTY_HUNG_UP };
	f->detail = d;
	return of->pty == PTY_MASTER ? capture_master(c, of, d, err) : 0;
}

const struct file_ops pty_ops = {
	.kind = FILE_PTY,
	.match = match,
	.capture = capture,
	.check = pty_check,
	.open = pty_open,
};
