/* SPDX-License-Identifier: BSD-2-Clause */
/* The writer's output stage: gathers, writes (O_DIRECT where it can), and keeps writeback going
 * where it can not. */
#include "image/out.h"

#include "image/format.h"
#include "util/cleanup.h"
#include "util/fault.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>

#define PAGE         ((size_t)IMAGE_RAW_ALIGN)
#define DIRECT_ALIGN PAGE
/* Buffered: writeback starts every PUSH bytes, and no more than WINDOW bytes wait for it. */
#define PUSH_BYTES   (8u << 20)
#define WINDOW_BYTES (32u << 20)

int out_init(struct out *o, int fd, bool file, bool direct, const char *name, struct err *err)
{
	void *stage;

	memset(o, 0, sizeof *o);
	o->fd = fd;
	o->file = file;
	o->direct = direct;
	o->name = name;
	if (posix_memalign(&stage, PAGE, OUT_STAGE_BYTES))
		return err_nomem(err);
	o->stage = stage;
	return 0;
}

void out_fini(struct out *o)
{
	free(o->stage);
	o->stage = NULL;
}

static int write_failed(struct out *o, int code, struct err *err)
{
	err_set(err, code, "cannot write '%s': %m", o->name);
	if (code == -ENOSPC || code == -EDQUOT)
		err_hint(err, "free some space; images that are complete are not touched");
	else if (code == -EFBIG)
		err_hint(err, "raise the file size limit, ulimit -f");
	return code;
}

static void direct_off(struct out *o)
{
	int flags = fcntl(o->fd, F_GETFL);

	if (flags >= 0)
		(void)fcntl(o->fd, F_SETFL, flags & ~O_DIRECT);
	o->direct = false;
	o->pushed = o->written;
}

static void advance(struct iovec **iov, unsigned *n, size_t done)
{
	while (done) {
		size_t part = MIN(done, (*iov)->iov_len);

		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + part;
		(*iov)->iov_len -= part;
		done -= part;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*n)--;
		}
	}
}

/* Some file systems accept O_DIRECT at open and refuse at the write, or refuse this alignment: go
 * on without. */
static int write_all(struct out *o, struct iovec *iov, unsigned n, struct err *err)
{
	while (n) {
		ssize_t done = writev(o->fd, iov, (int)n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EINVAL && o->direct) {
			direct_off(o);
			continue;
		}
		if (done < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = o->fd, .events = POLLOUT };

			(void)poll(&p, 1, -1);
			continue;
		}
		if (done < 0)
			return write_failed(o, -errno, err);
		if (done == 0)
			return write_failed(o, -EIO, err);
		advance(&iov, &n, (size_t)done);
		o->written += (uint64_t)done;
		if (o->direct && n && (o->written & (DIRECT_ALIGN - 1)))
			direct_off(o);
	}
	return 0;
}

/* Without this a gigabyte gathers in the page cache and the fsync at the end takes all the time. */
static void push_writeback(struct out *o)
{
	uint64_t from = o->pushed;

	if (!o->file || o->direct || o->written - from < PUSH_BYTES)
		return;
	(void)sync_file_range(o->fd, (off_t)from, (off_t)(o->written - from),
			      SYNC_FILE_RANGE_WRITE);
	o->pushed = o->written;
	if (from > WINDOW_BYTES)
		(void)sync_file_range(o->fd, (off_t)(from - WINDOW_BYTES), PUSH_BYTES,
				      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					      SYNC_FILE_RANGE_WAIT_AFTER);
}

int out_flush(struct out *o, bool final, struct err *err)
{
	size_t tail = final ? 0 : o->gathered & (PAGE - 1);
	const uint8_t *rest = o->stage + o->stage_len - tail;
	int rc;

	if (o->gathered == tail)
		return 0;
	if (final && o->direct && (o->gathered & (DIRECT_ALIGN - 1)))
		direct_off(o);
	/* only staged bytes can be unaligned, so the tail is the end of the last piece */
	o->iov[o->n - 1].iov_len -= tail;
	if (!o->iov[o->n - 1].iov_len)
		o->n--;
	rc = fault_point("image-write", err);
	if (rc < 0)
		return err_wrap(err, rc, "cannot write '%s'", o->name);
	rc = write_all(o, o->iov, o->n, err);
	if (rc < 0)
		return rc;
	push_writeback(o);
	memmove(o->stage, rest, tail);
	o->stage_len = o->gathered = tail;
	o->n = tail ? 1 : 0;
	o->iov[0] = (struct iovec){ o->stage, tail };
	return 0;
}

/* Room in the staging buffer and in the vector; writes what is there when one is full. */
static int make_room(struct out *o, struct err *err)
{
	if (o->n < OUT_IOVS && o->stage_len < OUT_STAGE_BYTES)
		return 0;
	return out_flush(o, false, err);
}

/* Continues the last piece when it is the staged one, else begins a piece. */
static void stage_piece(struct out *o, size_t len)
{
	struct iovec *last = o->n ? &o->iov[o->n - 1] : NULL;
	uint8_t *at = o->stage + o->stage_len;

	if (last && (uint8_t *)last->iov_base + last->iov_len == at)
		last->iov_len += len;
	else
		o->iov[o->n++] = (struct iovec){ at, len };
	o->stage_len += len;
	o->gathered += len;
	o->pos += len;
}

int out_bytes(struct out *o, const void *p, size_t len, struct err *err)
{
	const uint8_t *from = p;

	while (len) {
		int rc = make_room(o, err);
		size_t part;

		if (rc < 0)
			return rc;
		part = MIN(len, OUT_STAGE_BYTES - o->stage_len);
		memcpy(o->stage + o->stage_len, from, part);
		stage_piece(o, part);
		from += part;
		len -= part;
	}
	return 0;
}

int out_align(struct out *o, unsigned align, struct err *err)
{
	static const uint8_t zeros[IMAGE_RAW_ALIGN];
	size_t over = (size_t)(o->pos & (align - 1));

	return over ? out_bytes(o, zeros, align - over, err) : 0;
}

int out_pages(struct out *o, const void *p, size_t len, struct err *err)
{
	int rc = make_room(o, err);

	if (rc < 0)
		return rc;
	o->iov[o->n++] = (struct iovec){ (void *)(uintptr_t)p, len };
	o->gathered += len;
	o->pos += len;
	return 0;
}
