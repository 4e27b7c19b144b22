/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * timerfd_create(2): what is left to run, the interval, and expirations that were not read yet.
 *
 * Timers are armed again for the time that was left, also those that were set to a point in time
 * (TFD_TIMER_ABSTIME): CLOCK_MONOTONIC may have started again from zero. Only a point in
 * CLOCK_REALTIME, which goes on while the job does not exist, stays that point: what was to happen
 * at five o'clock happens then.
 */
#include "object/kinds.h"
#include "proc/refusals.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CKPT_TFD_IOC_SET_TICKS                                                                     \
	_IOW('T', 0, uint64_t) /* linux/timerfd.h; needs CONFIG_CHECKPOINT_RESTORE */
#define SECOND UINT64_C(1000000000)

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	return !strcmp(of->link, LINK_TIMERFD);
}

/*
 * An interval timer that has expired and was not read since stands still until it is looked at:
 * then the kernel adds up the missed ticks and runs it on, which changes nothing that a reader
 * would see.
 */
static int catch_up(struct capture *c, const struct open_file *of, struct file_timerfd *d,
		    struct err *err)
{
	struct proc_fdinfo info = { 0 };
	struct itimerspec left;
	int rc;

	if (timerfd_gettime(of->dup, &left) < 0)
		return fd_error(of, err, -errno, "cannot read the timer: %m");
	rc = proc_fdinfo_read(of->subject->proc_dirfd, of->fd, c->arena, &info, err);
	if (rc < 0)
		return rc;
	d->ticks = info.ticks;
	d->value_ns = (uint64_t)left.it_value.tv_sec * SECOND + (uint64_t)left.it_value.tv_nsec;
	return 0;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	struct file_timerfd *d = arena_alloc(c->arena, sizeof *d);

	if (!d)
		return err_nomem(err);
	if (!of->info.has_timer)
		return refuse(of, err, "the kernel does not show the state of a timerfd");
	*d = (struct file_timerfd){
		.clockid = of->info.clockid,
		.settime_flags = of->info.settime_flags,
		.ticks = of->info.ticks,
		.value_ns = of->info.value_ns,
		.interval_ns = of->info.interval_ns,
	};
	f->detail = d;
	return d->interval_ns && !d->value_ns ? catch_up(c, of, d, err) : 0;
}

static int open_timerfd(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err)
{
	const struct file_timerfd *d = f->detail;
	int fd = timerfd_create(d->clockid, TFD_CLOEXEC | TFD_NONBLOCK);

	(void)rb;
	if (fd < 0) {
		int rc = err_set(err, -errno, "cannot make a timerfd of clock %d: %m", d->clockid);

		if (rc == -EPERM)
			err_hint(err, "clocks that wake the machine up need CAP_WAKE_ALARM");
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };
}

/* What to arm the timer with, as timerfd_settime wants it; returns its flags. */
static unsigned to_arm(const struct rebuild *rb, const struct file_timerfd *d,
		       struct itimerspec *ret)
{
	bool realtime = d->clockid == CLOCK_REALTIME || d->clockid == CLOCK_REALTIME_ALARM;
	uint64_t value = d->value_ns, now = rb->tree->host.realtime_ns;

	*ret = (struct itimerspec){ .it_interval = to_timespec(d->interval_ns) };
	if (!value && d->interval_ns)
		value = 1; /* on the very edge: 0 would disarm it */
	if (realtime && (d->settime_flags & TFD_TIMER_ABSTIME) && value && now &&
	    value <= INT64_MAX - now) {
		ret->it_value = to_timespec(now + value);
		return d->settime_flags & (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
	}
	ret->it_value = to_timespec(value);
	return 0;
}

/* Armed as late as can be, in the process, so that the time the restart takes is not taken off. */
static int finish(struct rebuild *rb, const struct process *p, const struct fd *fd,
		  const struct file *f, struct placer *pl, struct err *err)
{
	const struct file_timerfd *d = f->detail;
	struct itimerspec value;
	unsigned flags = to_arm(rb, d, &value);
	int rc;

	if (file_first_holder(rb->tree, f->id, NULL) != p)
		return 0;
	rc = placer_room(pl, 2, sizeof value + sizeof d->ticks + 32, err);
	if (rc < 0)
		return rc;
	if (value.it_value.tv_sec || value.it_value.tv_nsec)
		batch_call(pl->b, "arm a timerfd", SYS_timerfd_settime, fd->fd, flags,
			   batch_in(pl->b, &value, sizeof value), 0);
	if (d->ticks)
		batch_call(pl->b, "set the expirations of a timerfd", SYS_ioctl, fd->fd,
			   CKPT_TFD_IOC_SET_TICKS, batch_in(pl->b, &d->ticks, sizeof d->ticks));
	return 0;
}

const struct file_ops timerfd_ops = {
	.kind = FILE_TIMERFD,
	.match = match,
	.capture = capture,
	.open = open_timerfd,
	.finish = finish,
};
