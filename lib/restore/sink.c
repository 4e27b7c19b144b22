/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where restored pages go: the memory of a process that is being rebuilt, or the file behind a
 * shared space.
 *
 * Fresh anonymous memory is filled with UFFDIO_COPY (ioctl_userfaultfd(2)), which allocates a page
 * and copies into it: a write would first make the kernel clear the page. It never replaces a page
 * that is there. The userfaultfd is made inside the process, which needs no privilege, and fetched
 * from there. Where huge pages are to come back memory is written to instead, since a fault brings
 * a whole one, and UFFDIO_COPY never does; but only where all of a huge page is in the image.
 */
#include "restore/sink.h"

#include "restore/huge.h"
#include "restore/views.h"

#include "object/object.h"
#include "proc/probe.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* Registering costs a walk over the mappings; a smaller stretch is written to as quickly. */
#define MIN_FRESH ((uint64_t)256 << 10)

/* A container's filter may forbid pidfd_getfd(2). What it is wanted for are files: a description of
 * our own does as well. */
static int open_again(pid_t pid, int fd)
{
	char path[64];
	int got;

	(void)snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
	got = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (got < 0 && errno == EACCES)
		got = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (got < 0 && errno == EACCES)
		got = open_lent(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return got < 0 ? -errno : got;
}

int sink_fetch_fd(pid_t pid, int fd)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int got;

	if (pidfd < 0)
		return -errno;
	got = probe_without("pidfd_getfd") ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (got < 0)
		got = probe_without("pidfd_getfd") ? -EPERM : -errno;
	(void)close(pidfd);
	return got == -EPERM || got == -ENOSYS ? open_again(pid, fd) : got;
}

/* --- the userfaultfd -----------------------------------------------------------------------------
 */

/* One of the process's own: a descriptor in it, or negative: there is none to be had. */
static int make_inside(struct build_process *bp, int flags, int *ret, struct err *err)
{
	unsigned at;
	int rc;

	batch_start(bp->batch);
	at = batch_call(bp->batch, NULL, SYS_userfaultfd, flags | O_CLOEXEC | O_NONBLOCK);
	rc = batch_run(bp->batch, bp->pid, err);
	if (rc == 0)
		*ret = (int)batch_ret(bp->batch, at);
	return rc;
}

static int close_inside(struct build_process *bp, int fd, struct err *err)
{
	batch_start(bp->batch);
	(void)batch_call(bp->batch, "close the userfaultfd", SYS_close, fd);
	return batch_run(bp->batch, bp->pid, err);
}

/* No userfaultfd is no error: memory is then written to. */
static int open_uffd(struct sink *s, struct build_process *bp, struct err *err)
{
	struct uffdio_api api = { .api = UFFD_API };
	int inside = -1, rc = 0;

	if (probe_without("userfaultfd"))
		return 0;
	if (s->kernel_faults)
		rc = make_inside(bp, 0, &inside, err);
	if (rc == 0 && inside < 0) {
		s->kernel_faults = false;
		rc = make_inside(bp, UFFD_USER_MODE_ONLY, &inside, err);
	}
	if (rc < 0 || inside < 0)
		return rc;
	s->uffd = sink_fetch_fd(bp->pid, inside);
	if (s->uffd >= 0 && ioctl(s->uffd, UFFDIO_API, &api) < 0) {
		(void)close(s->uffd);
		s->uffd = -1;
	}
	s->uffd = MAX(s->uffd, -1);
	return close_inside(bp, inside, err);
}

/* What is to come later must not be locked into memory, and a stack must be able to grow inside of
 * a system call. */
static bool may_enroll(const struct vma *v, bool for_later)
{
	const uint32_t not = ADVICE_DROPPABLE | ADVICE_GROWSDOWN | ADVICE_HUGETLB |
			     (for_later ? ADVICE_LOCKED : 0);

	return v->kind == VMA_ANON && !(v->advice & not );
}

/* A fault brings huge pages there, or they are there already. */
static bool gets_huge(const struct build_process *bp, const struct vma *v, enum huge_given given)
{
	unsigned i = huge_find(bp, v->start);

	return huge_is_given(v, given) || (i < bp->n_huge && bp->huge[i].start < v->end);
}

/* The end of the stretch of neighbouring mappings from i on that can be registered at once; i: this
 * one can not. */
static unsigned stretch_end(const struct build_process *bp, unsigned i, enum huge_given given,
			    bool for_later)
{
	const struct process *p = bp->state;
	unsigned end = i;

	for (; end < p->n_vmas; end++) {
		const struct vma *v = &p->vmas[end];

		if (!may_enroll(v, for_later) || (!for_later && gets_huge(bp, v, given)) ||
		    (end > i && v->start != p->vmas[end - 1].end))
			break;
	}
	return end;
}

static bool enroll(struct sink *s, uint64_t start, uint64_t end, uint64_t least)
{
	struct uffdio_register reg = { .range = { start, end - start },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	return end - start >= least && ioctl(s->uffd, UFFDIO_REGISTER, &reg) == 0;
}

static int add_fresh(struct sink *s, uint64_t start, uint64_t end, struct err *err)
{
	struct range *more;

	if ((s->n_fresh & (s->n_fresh - 1)) == 0) {
		more = realloc(s->fresh, (s->n_fresh ? s->n_fresh * 2 : 1) * sizeof *more);
		if (!more)
			return err_nomem(err);
		s->fresh = more;
	}
	s->fresh[s->n_fresh++] = (struct range){ start, end };
	return 0;
}

static uint64_t huge_after(const struct build_process *bp, uint64_t at)
{
	unsigned i = huge_find(bp, at);

	return i < bp->n_huge ? bp->huge[i].start : UINT64_MAX;
}

static uint64_t run_after(const struct resolved_run *runs, unsigned n, unsigned cursor)
{
	return cursor < n ? runs[cursor].run.page * CKPT_PAGE_SIZE : UINT64_MAX;
}

/*
 * In memory that is to have huge pages: a fault may bring one only where all of it was there. What
 * the program had given up, or never touched, would be there otherwise.
 */
static int enroll_gaps(struct sink *s, const struct vma *v, enum huge_given to,
		       const struct resolved_run *runs, unsigned n, struct err *err)
{
	bool given = huge_is_given(v, to);
	uint64_t gap = v->start, at = (v->start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
	unsigned cursor = 0;
	int rc = 0;

	for (; rc == 0 && gap < v->end; at += HUGE_PAGE) {
		uint64_t next = given ? run_after(runs, n, cursor) : huge_after(s->bp, at);
		bool last;

		if (next > at) /* a reservation may have 16 TiB with nothing in it */
			at = next < v->end ? (next + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1) : v->end;
		last = at + HUGE_PAGE > v->end;
		if (!last && !(given ? huge_is_whole(runs, n, &cursor, at, at + HUGE_PAGE)
				     : huge_after(s->bp, at) <= at))
			continue;
		if (last)
			at = v->end;
		if (at > gap && enroll(s, gap, at, 0))
			rc = add_fresh(s, gap, at, err);
		gap = last ? at : at + HUGE_PAGE;
	}
	return rc;
}

static int enroll_all(struct sink *s, const struct resolved_run *runs, unsigned n_runs,
		      bool for_later, struct err *err)
{
	const struct process *p = s->bp->state;
	enum huge_given given = huge_given(s->bp);
	int rc = 0;

	for (unsigned i = 0, end; rc == 0 && i < p->n_vmas; i = MAX(end, i + 1)) {
		end = stretch_end(s->bp, i, given, for_later);
		if (end == i && may_enroll(&p->vmas[i], for_later))
			rc = enroll_gaps(s, &p->vmas[i], given, runs, n_runs, err);
		if (end == i || !enroll(s, p->vmas[i].start, p->vmas[end - 1].end, MIN_FRESH))
			continue;
		/* a copy must not reach from one mapping into the next */
		for (unsigned j = i; rc == 0 && j < end; j++)
			rc = add_fresh(s, p->vmas[j].start, p->vmas[j].end, err);
	}
	return rc;
}

int sink_open_process(struct sink *s, struct build_process *bp, const struct resolved_run *runs,
		      unsigned n_runs, bool for_later, struct err *err)
{
	int rc;

	*s = (struct sink){ .fd = build_remote_mem(bp->remote),
			    .pid = bp->pid,
			    .bp = bp,
			    .uffd = -1,
			    .kernel_faults = for_later && !probe_without("kernel_faults") };
	rc = open_uffd(s, bp, err);
	if (rc == 0 && s->uffd >= 0)
		rc = enroll_all(s, runs, n_runs, for_later, err);
	return rc;
}

void sink_close(struct sink *s)
{
	if (s->pid == 0 && s->fd >= 0)
		(void)close(s->fd);
	if (s->uffd >= 0)
		(void)close(s->uffd);
	views_forget(s);
	free(s->fresh);
	*s = (struct sink){ .fd = -1, .uffd = -1 };
}

/* --- pages ---------------------------------------------------------------------------------------
 */

/* Straight from here to there; read-only memory is written to through /proc/PID/mem, which may do
 * that. */
static int put_written(const struct sink *s, uint64_t at, const uint8_t *p, size_t len)
{
	struct iovec from = { (void *)(uintptr_t)p, len };
	struct iovec to = { (void *)(uintptr_t)at, len };
	ssize_t n = s->pid ? process_vm_writev(s->pid, &from, 1, &to, 1, 0) : 0;
	size_t done = n > 0 ? (size_t)n : 0;

	if (done < len && probe_without("proc_mem"))
		return -EIO;
	return done == len ? 0 : io_pwrite_full(s->fd, p + done, len - done, at + done);
}

/*
 * A page that is there already was touched while the mappings were made, and is written to; once
 * the process runs it has come out of turn and is the process's own.
 */
static int put_fresh(const struct sink *s, uint64_t at, const uint8_t *p, size_t len)
{
	const uint64_t begin = at;
	size_t most = len, all = len;

	while (len > 0) {
		struct uffdio_copy copy = { .dst = s->base + at,
					    .src = (uint64_t)(uintptr_t)p,
					    .len = MIN(len, most),
					    .mode = s->runs ? 0 : UFFDIO_COPY_MODE_DONTWAKE };
		int rc = ioctl(s->uffd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
		size_t done = copy.copy > 0 ? (size_t)copy.copy : 0;

		if (rc == -EEXIST && done == 0) {
			rc = s->runs ? 0 : put_written(s, at, p, CKPT_PAGE_SIZE);
			done = CKPT_PAGE_SIZE;
		} else if (rc == -ENOENT && copy.len > CKPT_PAGE_SIZE) {
			most = CKPT_PAGE_SIZE; /* a mapping that was split since */
			rc = 0;
		}
		if (rc < 0 && rc != -EAGAIN && done == 0)
			return rc;
		at += done;
		p += done;
		len -= done;
	}
	if (s->base)
		views_drop(s, begin, all);
	return 0;
}

int sink_zero(const struct sink *s, uint64_t at, size_t len)
{
	size_t most = len;

	while (len > 0) {
		struct uffdio_zeropage zero = { .range = { s->base + at, MIN(len, most) } };
		int rc = ioctl(s->uffd, UFFDIO_ZEROPAGE, &zero) < 0 ? -errno : 0;
		size_t done = zero.zeropage > 0 ? (size_t)zero.zeropage : 0;

		if (rc == -EEXIST && done == 0) {
			rc = 0;
			done = CKPT_PAGE_SIZE;
		} else if (rc == -ENOENT && zero.range.len > CKPT_PAGE_SIZE) {
			most = CKPT_PAGE_SIZE;
			rc = 0;
		}
		if (rc < 0 && rc != -EAGAIN && done == 0)
			return rc;
		at += done;
		len -= done;
	}
	return 0;
}

void sink_wake(const struct sink *s, uint64_t at, size_t len)
{
	struct uffdio_range range = { at, len };

	(void)ioctl(s->uffd, UFFDIO_WAKE, &range);
}

unsigned sink_find_fresh(const struct sink *s, uint64_t at)
{
	unsigned lo = 0, hi = s->n_fresh;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (s->fresh[mid].end > at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

int sink_put(const struct sink *s, uint64_t at, const uint8_t *p, size_t len, struct err *err)
{
	unsigned i = sink_find_fresh(s, at);

	while (len > 0) {
		bool fresh = i < s->n_fresh && s->fresh[i].start <= at;
		uint64_t end = i == s->n_fresh ? UINT64_MAX
			       : fresh         ? s->fresh[i++].end
					       : s->fresh[i].start;
		size_t part = (size_t)MIN(len, end - at);
		int rc = fresh ? put_fresh(s, at, p, part) : put_written(s, at, p, part);

		if (rc < 0)
			return err_set(err, rc, "cannot fill the job's memory at %#llx: %m",
				       (unsigned long long)at);
		at += part;
		p += part;
		len -= part;
	}
	return 0;
}
