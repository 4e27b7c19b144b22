/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of /proc/PID that hold one thing: a number, the auxiliary vector. */
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>

int proc_int_read(int dirfd, const char *name, int64_t *ret, struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	const char *p;
	uint64_t large;
	int64_t v;
	int rc;

	rc = text_read(dirfd, name, &text, NULL, err);
	if (rc < 0)
		return rc;
	p = text_i64(text_blanks(text), &v);
	if (!p && (p = text_u64(text_blanks(text), 10, &large)))
		v = INT64_MAX; /* "for ever" is written as 2^64-1 in places */
	if (!p || (*p && *p != '\n'))
		return err_set(err, -EBADMSG, "cannot read '/proc/PID/%s': not a number", name);
	*ret = v;
	return 0;
}

int32_t proc_pid_limit(void)
{
	int64_t max;

	if (proc_int_read(AT_FDCWD, "/proc/sys/kernel/pid_max", &max, NULL) < 0 || max < 301 ||
	    max > 1 << 22)
		return 32768;
	return (int32_t)max;
}

int proc_private_pages(int dirfd, uint64_t *ret, struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	uint64_t size, resident, shared;
	const char *p;
	int rc = text_read(dirfd, "statm", &text, NULL, err);

	if (rc < 0)
		return rc;
	p = text_u64(text, 10, &size);
	p = p ? text_u64(text_blanks(p), 10, &resident) : NULL;
	p = p ? text_u64(text_blanks(p), 10, &shared) : NULL;
	if (!p)
		return err_set(err, -EBADMSG, "cannot read '/proc/PID/statm'");
	*ret = resident > shared ? resident - shared : 0;
	return 0;
}

int proc_auxv_read(int dirfd, struct arena *a, struct blob *ret, struct err *err)
{
	CLEANUP_FREE char *data = NULL;
	uint8_t *copy;
	size_t len;
	int rc;

	rc = text_read(dirfd, "auxv", &data, &len, err);
	if (rc < 0)
		return rc;
	if (len % 16 || len > 4096)
		return err_set(err, -EBADMSG, "cannot read '/proc/PID/auxv': it has %zu bytes",
			       len);
	copy = arena_memdup(a, data, len);
	if (!copy)
		return err_nomem(err);
	*ret = (struct blob){ .data = copy, .len = (uint32_t)len };
	return 0;
}

uint64_t proc_mmap_min(void)
{
	CLEANUP_FREE char *text = NULL;
	uint64_t v;

	if (io_read_file(AT_FDCWD, "/proc/sys/vm/mmap_min_addr", &text, NULL) < 0 ||
	    !text_u64(text, 10, &v))
		return 65536;
	/* 0 is allowed by some, and is not a place to put things */
	return MAX(v, (uint64_t)CKPT_PAGE_SIZE);
}
