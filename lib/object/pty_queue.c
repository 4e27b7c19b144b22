/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is unread in a pseudo-terminal. The kernel has no way to look at it; it can only be read,
 * and that takes it out. So the process that holds the master takes it out and puts it back, in one
 * batch, which runs to its end whoever dies meanwhile:
 *
 *   - How much there is becomes known only as the batch runs: FIONREAD puts the number where the
 *     length of an iovec lies, which the next calls then read and write.
 *   - What has been written goes through a kernel worker before it can be read. poll(2) on an empty
 *     queue waits for that worker, so that after a few rounds of read and poll nothing is left
 *     behind that would then stand in front.
 *   - Put back is with modes that change nothing. Input passes through the modes when the worker
 *     gets to it, so that these stay until it has begun (poll(2) again: the machine may be busy),
 *     and for a moment more (unless the terminal is raw anyway).
 *   - A descriptor of the slave is opened for it, at the lowest free number; the batch closes it.
 *
 * In lines that wait to be read an end of file (Ctrl-D) looks like a zero byte. It is put back as
 * one at first; then, when there was one, again as what it was.
 *
 * Input in lines is looked at only when there is a whole line: the beginning of one does not show.
 */
#include "object/pty.h"

#include "proc/probe.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#define CHUNK     4096
#define ROUNDS    4
#define NEAR_FULL 4000 /* a queue holds 4095 bytes; with more, others wait behind it */
#define SETTLE_MS 20

void pty_plain(const struct termios2 *t, uint8_t mark, struct termios2 *ret)
{
	*ret = *t;
	ret->c_iflag = 0;
	ret->c_oflag = 0;
	ret->c_lflag = t->c_lflag & ICANON;
	for (unsigned i = 0; i < sizeof ret->c_cc; i++)
		if (i != VEOL && i != VEOL2)
			ret->c_cc[i] = 0;
	ret->c_cc[VMIN] = t->c_lflag & ICANON ? 0 : 1;
	ret->c_cc[VEOF] = t->c_lflag & ICANON ? mark : ret->c_cc[VEOF];
}

bool pty_is_plain(const struct termios2 *t)
{
	return !(t->c_iflag &
		 ~(IGNBRK | BRKINT | IGNPAR | INPCK | IXOFF | IXANY | IMAXBEL | IUTF8)) &&
	       !(t->c_lflag & (ICANON | ECHO | ECHONL | ISIG | IEXTEN));
}

uint8_t pty_unused_byte(const struct blob *data)
{
	bool used[256] = { [0] = true, ['\n'] = true };

	for (uint32_t i = 0; i < data->len; i++)
		used[data->data[i]] = true;
	for (unsigned b = 1; b < 256; b++)
		if (!used[b])
			return (uint8_t)b;
	return 0;
}

struct taking {
	const struct open_file *of;
	struct batch *b;
	int slave; /* the number that the slave's descriptor gets */
	bool input;
	struct termios2 modes;
	uint64_t iov;
	uint64_t data[ROUNDS];
};

/* The lowest number that the process does not use. */
static int free_number(const struct process *p)
{
	int fd = 0;

	for (unsigned i = 0; i < p->n_fds && p->fds[i].fd == fd; i++)
		fd++;
	return fd;
}

static void set_modes(struct taking *t, const struct termios2 *modes)
{
	(void)batch_call(t->b, "set the modes of a pseudo-terminal", SYS_ioctl, t->of->fd,
			 PTY_TCSETS2, batch_in(t->b, modes, sizeof *modes));
}

static void open_slave(struct taking *t, unsigned *ret_call)
{
	*ret_call = batch_call(t->b, "open the slave of a pseudo-terminal", SYS_ioctl, t->of->fd,
			       TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK);
}

/* Nothing is taken out before it is known that the slave can be opened, and under which number. */
static int try_slave(struct taking *t, struct err *err)
{
	unsigned call;
	int rc;

	batch_start(t->b);
	open_slave(t, &call);
	(void)batch_call(t->b, NULL, SYS_close, t->slave);
	rc = batch_run(t->b, t->of->subject->pid, err);
	if (rc == 0 && batch_ret(t->b, call) != t->slave)
		rc = err_set(err, -EAGAIN, "the slave came as descriptor %d, not %d",
			     (int)batch_ret(t->b, call), t->slave);
	return rc;
}

static void take_out(struct taking *t)
{
	struct iovec iov[ROUNDS];
	struct pollfd p = { .fd = t->input ? t->slave : t->of->fd, .events = POLLIN };
	struct timespec now = { 0 };
	uint64_t pollfd = batch_in(t->b, &p, sizeof p), zero = batch_in(t->b, &now, sizeof now);

	for (unsigned i = 0; i < ROUNDS; i++) {
		t->data[i] = batch_out(t->b, CHUNK);
		iov[i] = (struct iovec){ (void *)(uintptr_t)t->data[i], 0 };
	}
	t->iov = batch_in(t->b, iov, sizeof iov);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t one = t->iov + i * sizeof iov[0];

		(void)batch_call(t->b, NULL, SYS_ppoll, pollfd, 1, zero, 0, 8);
		(void)batch_call(t->b, "ask a pseudo-terminal", SYS_ioctl, p.fd, FIONREAD,
				 one + offsetof(struct iovec, iov_len));
		(void)batch_call(t->b, NULL, SYS_readv, p.fd, one, 1);
	}
}

static void settle(struct taking *t)
{
	struct pollfd p = { .fd = t->slave, .events = POLLIN };
	struct timespec now = { 0 }, ts = { .tv_nsec = SETTLE_MS * 1000000 };

	(void)batch_call(t->b, NULL, SYS_ppoll, batch_in(t->b, &p, sizeof p), 1,
			 batch_in(t->b, &now, sizeof now), 0, 8);
	if (!probe_without("settling"))
		(void)batch_call(t->b, NULL, SYS_nanosleep, batch_in(t->b, &ts, sizeof ts), 0);
}

/* Collects what was taken out. */
static int collect(struct capture *c, struct taking *t, struct blob *ret, struct err *err)
{
	struct iovec iov[ROUNDS];
	size_t total = 0;

	memcpy(iov, batch_result(t->b, t->iov), sizeof iov);
	for (unsigned i = 0; i < ROUNDS; i++)
		total += MIN(iov[i].iov_len, (size_t)CHUNK);
	*ret = (struct blob){ arena_alloc(c->arena, total + 1), 0 };
	if (!ret->data)
		return err_nomem(err);
	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t len = MIN(iov[i].iov_len, (size_t)CHUNK);

		memcpy(ret->data + ret->len, batch_result(t->b, t->data[i]), len);
		ret->len += (uint32_t)len;
	}
	return 0;
}

static int take_and_put_back(struct capture *c, struct taking *t, bool packet, struct blob *ret,
			     struct err *err)
{
	bool plain = t->input ? pty_is_plain(&t->modes) : !(t->modes.c_oflag & OPOST);
	struct termios2 raw, put;
	int off = 0, on = 1, rc;
	unsigned call;

	raw = t->modes;
	raw.c_lflag &= ~(tcflag_t)ICANON;
	pty_plain(&raw, 0, &raw);
	pty_plain(&t->modes, 0, &put);
	batch_start(t->b);
	if (packet)
		(void)batch_call(t->b, NULL, SYS_ioctl, t->of->fd, TIOCPKT,
				 batch_in(t->b, &off, sizeof off));
	open_slave(t, &call);
	if (!plain)
		set_modes(t, t->input ? &raw : &put);
	take_out(t);
	if (!plain && t->input)
		set_modes(t, &put);
	(void)batch_call(t->b, "put back what is unread in a pseudo-terminal", SYS_writev,
			 t->input ? t->of->fd : t->slave, t->iov, ROUNDS);
	if (!plain && t->input)
		settle(t);
	if (!plain)
		set_modes(t, &t->modes);
	(void)batch_call(t->b, NULL, SYS_close, t->slave);
	if (packet)
		(void)batch_call(t->b, NULL, SYS_ioctl, t->of->fd, TIOCPKT,
				 batch_in(t->b, &on, sizeof on));
	rc = batch_run(t->b, t->of->subject->pid, err);
	return rc < 0 ? rc : collect(c, t, ret, err);
}

/* Once more, with what is known now: the zero bytes as the ends of file that they were. */
static int put_marks_back(struct capture *c, struct taking *t, const struct blob *input,
			  struct err *err)
{
	uint8_t mark = pty_unused_byte(input),
		*text = arena_memdup(c->arena, input->data, input->len);
	struct termios2 raw, put;
	unsigned call;

	if (!text)
		return err_nomem(err);
	for (uint32_t i = 0; i < input->len; i++)
		text[i] = text[i] ? text[i] : mark;
	raw = t->modes;
	raw.c_lflag &= ~(tcflag_t)ICANON;
	pty_plain(&raw, 0, &raw);
	pty_plain(&t->modes, mark, &put);
	batch_start(t->b);
	open_slave(t, &call);
	set_modes(t, &raw);
	take_out(t);
	set_modes(t, &put);
	(void)batch_call(t->b, "put back what is unread in a pseudo-terminal", SYS_write, t->of->fd,
			 batch_in(t->b, text, input->len), input->len);
	settle(t);
	set_modes(t, &t->modes);
	(void)batch_call(t->b, NULL, SYS_close, t->slave);
	return batch_run(t->b, t->of->subject->pid, err);
}

/* Whose terminal the slave is must not be asked to stop for touching it from the background. */
static bool is_own_terminal(const struct open_file *of)
{
	struct proc_stat stat;

	return proc_stat_read(of->subject->proc_dirfd, &stat, NULL) == 0 && stat.tty_nr &&
	       (stat.tty_nr >> 8 & 0xff) == 136 &&
	       (((unsigned)stat.tty_nr & 0xff) | ((unsigned)stat.tty_nr >> 12 & 0xfff00)) ==
		       of->pty_index;
}

static int check_queues(const struct open_file *of, const struct file_pty *d, int in, int out,
			struct err *err)
{
	if (in >= NEAR_FULL || out >= NEAR_FULL)
		return fd_error(of, err, -EAGAIN,
				"the queue of the pseudo-terminal /dev/pts/%u is full (%d bytes)",
				d->index, MAX(in, out));
	if (d->stopped && out)
		return fd_error(of, err, -EAGAIN,
				"the pseudo-terminal /dev/pts/%u holds unread output, and more is "
				"held back (Ctrl-S)",
				d->index);
	if (in && is_own_terminal(of))
		return fd_error(of, err, -EAGAIN,
				"unread input in /dev/pts/%u, which is the terminal of the process "
				"that holds its master too",
				d->index);
	return 0;
}

int pty_queues_capture(struct capture *c, const struct open_file *of, struct file_pty *d,
		       const struct open_file *slave, struct err *err)
{
	struct taking t = { .of = of, .b = of->subject->batch };
	int in = 0, out = 0, rc;

	if (ioctl(of->dup, FIONREAD, &out) < 0 || (slave && ioctl(slave->dup, FIONREAD, &in) < 0))
		return fd_error(of, err, -errno, "cannot ask a pseudo-terminal what is unread: %m");
	if (!in && !out)
		return 0;
	rc = check_queues(of, d, in, out, err);
	if (rc < 0)
		return rc;
	t.slave = free_number(of->subject->process);
	memcpy(&t.modes, d->termios.data, sizeof t.modes);
	rc = try_slave(&t, err);
	if (rc == 0 && out)
		rc = take_and_put_back(c, &t, d->packet, &d->output, err);
	t.input = true;
	if (rc == 0 && in)
		rc = take_and_put_back(c, &t, false, &d->input, err);
	if (rc == 0 && (t.modes.c_lflag & ICANON) && d->input.len &&
	    memchr(d->input.data, 0, d->input.len)) {
		d->input_marks = 1;
		rc = put_marks_back(c, &t, &d->input, err);
	}
	return rc < 0 ? err_wrap(err, rc, "pid %d fd %d", of->subject->pid, of->fd) : 0;
}
