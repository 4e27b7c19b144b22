/* SPDX-License-Identifier: BSD-2-Clause */
/* /proc/PID/fdinfo/N (proc_pid_fdinfo(5)): what a descriptor's kind shows of itself. */
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <string.h>

static int bad(const char *label, struct err *err)
{
	return err_set(err, -EBADMSG, "cannot read '/proc/PID/fdinfo': bad line '%.60s'", label);
}

/* "(SECONDS, NANOSECONDS)" */
static const char *read_time(const char *p, uint64_t *ret_ns)
{
	uint64_t s, ns;

	if (*p != '(' || !(p = text_u64(p + 1, 10, &s)) || *p != ',')
		return NULL;
	p = text_u64(text_blanks(p + 1), 10, &ns);
	if (!p || *p != ')' || ns >= 1000000000u || s > (UINT64_MAX - ns) / 1000000000u)
		return NULL;
	*ret_ns = s * 1000000000u + ns;
	return p + 1;
}

/* The number behind key in "key:NUMBER" or "key: NUMBER", searched from p on. */
static const char *read_keyed(const char *p, const char *key, unsigned base, uint64_t *ret)
{
	p = strstr(p, key);
	return p ? text_u64(text_blanks(p + strlen(key)), base, ret) : NULL;
}

/* "tfd:        5 events:       19 data:                5  pos:0 ino:61 sdev:d" */
static int read_epoll(const char *line, struct arena *a, struct proc_fdinfo *f, struct err *err)
{
	uint64_t fd, events, data;
	struct proc_fdinfo_watch *w;
	const char *p;

	f->is_epoll = true;
	if (!(p = read_keyed(line, "tfd:", 10, &fd)) ||
	    !(p = read_keyed(p, "events:", 16, &events)) ||
	    !(p = read_keyed(p, "data:", 16, &data)) || fd > INT32_MAX)
		return bad("tfd:", err);
	w = arena_push(a, &f->watches, &f->n_watches, sizeof *w);
	if (!w)
		return err_nomem(err);
	w->fd = (int32_t)fd;
	w->events = (uint32_t)events;
	w->data = data;
	/* shown since Linux 4.13 */
	(void)read_keyed(p, "ino:", 16, &w->ino);
	(void)read_keyed(p, "sdev:", 16, &w->dev);
	return 0;
}

/* "inotify wd:1 ino:2 sdev:800001 mask:8ce ignored_mask:0 fhandle-bytes:..." */
static int read_inotify(const char *line, struct arena *a, struct proc_fdinfo *f, struct err *err)
{
	uint64_t wd, ino, dev, mask;
	struct proc_fdinfo_watch *w;
	const char *p;

	f->is_inotify = true;
	if (!(p = read_keyed(line, "wd:", 16, &wd)) || !(p = read_keyed(p, "ino:", 16, &ino)) ||
	    !(p = read_keyed(p, "sdev:", 16, &dev)) || !read_keyed(p, "mask:", 16, &mask) ||
	    wd > INT32_MAX)
		return bad("inotify", err);
	w = arena_push(a, &f->watches, &f->n_watches, sizeof *w);
	if (!w)
		return err_nomem(err);
	w->fd = (int32_t)wd;
	w->ino = ino;
	w->dev = dev;
	w->events = (uint32_t)mask;
	return 0;
}

/* The next blank-separated word, cut out of *p; "" at the end. */
static char *next_word(char **p)
{
	char *word = (char *)text_blanks(*p), *end = word + strcspn(word, " \t");

	*p = *end ? end + 1 : end;
	*end = '\0';
	return word;
}

static bool read_range(char *p, struct file_lock *lock)
{
	const char *start = next_word(&p), *end = next_word(&p);
	uint64_t last;

	if (!text_u64(start, 10, &lock->start))
		return false;
	if (!strcmp(end, "EOF")) {
		lock->len = 0;
		return true;
	}
	if (!text_u64(end, 10, &last) || last < lock->start || last == UINT64_MAX)
		return false;
	lock->len = last - lock->start + 1;
	return true;
}

/* "lock:	1: FLOCK  ADVISORY  WRITE 358 00:2c:112 0 EOF"; leases are no locks, but one that is
 * "BREAKING" shows here only. */
static int read_lock(char *p, struct arena *a, struct proc_fdinfo *f, struct err *err)
{
	struct file_lock lock = { 0 }, *slot;
	const char *kind, *access;

	(void)next_word(&p); /* ordinal */
	kind = next_word(&p);
	if (!strcmp(kind, "FLOCK"))
		lock.type = LOCK_TYPE_FLOCK;
	else if (!strcmp(kind, "OFDLCK"))
		lock.type = LOCK_TYPE_OFD;
	else if (!strcmp(kind, "POSIX"))
		lock.type = LOCK_TYPE_POSIX;
	else {
		f->lease_breaking |= !strcmp(kind, "LEASE") && !strcmp(next_word(&p), "BREAKING");
		return 0;
	}
	(void)next_word(&p); /* ADVISORY, or MANDATORY before Linux 5.15 */
	access = next_word(&p);
	lock.write = !strcmp(access, "WRITE");
	if (!lock.write && strcmp(access, "READ"))
		return bad("lock:", err);
	(void)next_word(&p); /* pid of the holder, -1 for OFDLCK */
	(void)next_word(&p); /* device and inode */
	if (!read_range(p, &lock))
		return bad("lock:", err);
	slot = arena_push(a, &f->locks, &f->n_locks, sizeof *slot);
	if (!slot)
		return err_nomem(err);
	*slot = lock;
	return 0;
}

/* The last of the ids on a pidfd's "NSpid:" line: the innermost pid namespace's. */
static void read_nspid(const char *p, int32_t *ret)
{
	int64_t v;

	while ((p = text_i64(text_blanks(p), &v)))
		*ret = (int32_t)v;
}

/* Labels with one number each. */
static const struct {
	const char *label;
	unsigned base;
	size_t offset;
	size_t size;
	size_t flag; /* of the bool that says the label was there; 0 = none */
} numbers[] = {
#define NUMBER(label, base, member, flag)                                                          \
	{                                                                                          \
		label, base, offsetof(struct proc_fdinfo, member),                                 \
			sizeof((struct proc_fdinfo *)0)->member, flag                              \
	}
#define HAS(member) offsetof(struct proc_fdinfo, member)
	NUMBER("pos:", 10, pos, 0),
	NUMBER("flags:", 8, flags, 0),
	NUMBER("mnt_id:", 10, mnt_id, 0),
	NUMBER("ino:", 10, ino, 0),
	NUMBER("eventfd-count:", 16, eventfd_count, HAS(has_eventfd)),
	NUMBER("eventfd-semaphore:", 10, eventfd_semaphore, HAS(has_eventfd)),
	NUMBER("sigmask:", 16, sigmask, HAS(has_sigmask)),
	NUMBER("clockid:", 10, clockid, HAS(has_timer)),
	NUMBER("ticks:", 10, ticks, HAS(has_timer)),
	NUMBER("settime flags:", 8, settime_flags, HAS(has_timer)),
#undef NUMBER
#undef HAS
};

static int read_number(const char *line, struct proc_fdinfo *f, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		const char *p = text_after((char *)line, numbers[i].label);
		char *to = (char *)f + numbers[i].offset;
		uint64_t v;

		if (!p)
			continue;
		if (*p == '-') { /* an offset of -1 can be set through /proc/PID/mem and the like */
			int64_t negative;

			if (numbers[i].size != 8 || !text_i64(p, &negative))
				return bad(line, err);
			v = (uint64_t)negative;
		} else if (!text_u64(p, numbers[i].base, &v) ||
			   (numbers[i].size == 4 && v > UINT32_MAX)) {
			return bad(line, err);
		}
		memcpy(to, &v, numbers[i].size); /* little-endian, as all that ckpt runs on */
		if (numbers[i].flag)
			*((bool *)f + numbers[i].flag) = true;
		return 0;
	}
	return 0;
}

static int read_line(char *line, struct arena *a, struct proc_fdinfo *f, struct err *err)
{
	int64_t pid;
	char *p;

	if (!strncmp(line, "tfd:", 4))
		return read_epoll(line, a, f, err);
	if (!strncmp(line, "inotify wd:", 11))
		return read_inotify(line, a, f, err);
	if ((p = text_after(line, "lock:")))
		return read_lock(p, a, f, err);
	if ((p = text_after(line, "it_value:")))
		return read_time(p, &f->value_ns) ? 0 : bad(line, err);
	if ((p = text_after(line, "it_interval:")))
		return read_time(p, &f->interval_ns) ? 0 : bad(line, err);
	if ((p = text_after(line, "Pid:"))) {
		if (!text_i64(p, &pid))
			return bad(line, err);
		f->pidfd_pid = (int32_t)pid; /* -1 once it has been reaped */
		return 0;
	}
	if ((p = text_after(line, "NSpid:"))) {
		read_nspid(p, &f->pidfd_nspid);
		return 0;
	}
	return read_number(line, f, err);
}

int proc_fdinfo_parse(char *text, struct arena *a, struct proc_fdinfo *ret, struct err *err)
{
	struct proc_fdinfo f = { 0 };
	char *line;
	int rc;

	if (strncmp(text, "pos:", 4))
		return err_set(err, -EBADMSG,
			       "cannot read '/proc/PID/fdinfo': it does not begin with 'pos:'");
	while ((line = text_line(&text))) {
		rc = read_line(line, a, &f, err);
		if (rc < 0)
			return rc;
	}
	*ret = f;
	return 0;
}

int proc_fdinfo_read(int dirfd, int fd, struct arena *a, struct proc_fdinfo *ret, struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *target = NULL;
	char name[32];
	int rc;

	(void)snprintf(name, sizeof name, "fdinfo/%d", fd);
	rc = text_read(dirfd, name, &text, NULL, err);
	if (rc < 0)
		return rc;
	rc = proc_fdinfo_parse(text, a, ret, err);
	if (rc < 0)
		return err_wrap(err, rc, "fd %d", fd);
	/* Without watches an epoll or inotify descriptor shows nothing here; its link does. */
	(void)snprintf(name, sizeof name, "fd/%d", fd);
	if (io_readlink(dirfd, name, &target) >= 0) {
		ret->is_epoll |= !strcmp(target, "anon_inode:[eventpoll]");
		ret->is_inotify |= !strcmp(target, "anon_inode:inotify");
	}
	return 0;
}
