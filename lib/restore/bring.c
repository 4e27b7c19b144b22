/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing what a system call is about to touch (calls.h), also what its arguments only lead to. A
 * thread that changes them meanwhile gets EFAULT, as it might have anyway. */
#include "restore/bring.h"

#include "util/cleanup.h"

#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MAX_IOVECS 64

struct caller {
	struct demand *d;
	unsigned memory;
	pid_t pid;
};

/* The arrays that readv and its like are given, and what they lead to. */
static int bring_iovecs(const struct caller *who, struct range where, struct err *err)
{
	int rc = where.start < where.end ? demand_range(who->d, who->memory, where, err) : 0;

	for (uint64_t at = where.start; rc == 0 && at < where.end;) {
		uint64_t iov[MAX_IOVECS][2];
		struct iovec to = { iov, MIN(sizeof iov, where.end - at) };
		struct iovec from = { (void *)(uintptr_t)at, to.iov_len };
		ssize_t n = process_vm_readv(who->pid, &to, 1, &from, 1, 0);

		if (n < (ssize_t)sizeof iov[0])
			break; /* the call will say EFAULT too */
		for (ssize_t i = 0; rc == 0 && i < n / (ssize_t)sizeof iov[0]; i++)
			if (iov[i][0] < iov[i][0] + iov[i][1])
				rc = demand_range(
					who->d, who->memory,
					(struct range){ iov[i][0], iov[i][0] + iov[i][1] }, err);
		at += (uint64_t)n / sizeof iov[0] * sizeof iov[0];
	}
	return rc;
}

static int bring(const struct caller *who, uint64_t at, uint64_t bytes, struct err *err)
{
	return at && at + bytes > at
		       ? demand_range(who->d, who->memory, (struct range){ at, at + bytes }, err)
		       : 0;
}

static bool peek(const struct caller *who, uint64_t at, void *buf, size_t len)
{
	struct iovec to = { buf, len }, from = { (void *)(uintptr_t)at, len };

	return process_vm_readv(who->pid, &to, 1, &from, 1, 0) == (ssize_t)len;
}

/* What cannot be read the call will not find either. */
static int bring_message(const struct caller *who, uint64_t at, struct err *err)
{
	struct msghdr m;
	int rc = bring(who, at, sizeof m, err);

	if (rc < 0 || !at || !peek(who, at, &m, sizeof m))
		return rc;
	rc = bring(who, (uintptr_t)m.msg_name, m.msg_namelen, err);
	if (rc == 0)
		rc = bring(who, (uintptr_t)m.msg_control, m.msg_controllen, err);
	return rc < 0 ? rc
		      : bring_iovecs(who,
				     (struct range){ (uintptr_t)m.msg_iov,
						     (uintptr_t)m.msg_iov +
							     MIN(m.msg_iovlen, 1024u) *
								     sizeof(struct iovec) },
				     err);
}

/* A value with its length elsewhere, which is there by now. */
static int bring_value(const struct caller *who, const struct call_memory *m, struct err *err)
{
	uint32_t len;

	if (!m->value_len || !peek(who, m->value_len, &len, sizeof len))
		return 0;
	return bring(who, m->value, MIN(len, (uint32_t)INT_MAX), err);
}

/* "7f0000000000-7f0000001000": a file of /proc/PID/map_files. */
static bool is_address_range(const char *name)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = strspn(name, hex);

	return n && name[n] == '-' && name[n + 1] && !name[n + 1 + strspn(name + n + 1, hex)];
}

/* What leads to memory past its mappings: /proc/PID/mem and map_files, by their paths, which are
 * there by now. */
static bool opens_memory(const struct caller *who, const struct call *c)
{
	char path[PATH_MAX];
	struct iovec to = { path, sizeof path };
	struct iovec from = { (void *)(uintptr_t)c->arg[c->nr == SYS_open ? 0 : 1], sizeof path };
	const char *name;
	ssize_t n;
	size_t len;

	if (c->nr != SYS_open && c->nr != SYS_openat)
		return false;
	n = process_vm_readv(who->pid, &to, 1, &from, 1, 0);
	len = n > 0 ? strnlen(path, (size_t)n) : 0;
	if (n <= 0 || len == (size_t)n)
		return n > 0; /* who knows */
	name = strrchr(path, '/');
	name = name ? name + 1 : path;
	return !strcmp(name, "mem") || is_address_range(name);
}

int calls_bring(struct demand *d, unsigned memory, pid_t pid, const struct call *c, struct err *err)
{
	const struct caller of = { d, memory, pid }, *who = &of;
	struct call_memory m;
	int rc;

	if (!call_memory(c, &m) || demand_concerns(who->d, who->memory, m.changes) ||
	    demand_concerns(who->d, who->memory, m.changes_too))
		return 1;
	rc = bring_iovecs(who, m.iovecs, err);
	for (unsigned i = 0; rc == 0 && i < m.n; i++)
		rc = demand_range(who->d, who->memory, m.touches[i], err);
	if (rc == 0)
		rc = bring_message(who, m.msghdr, err);
	if (rc == 0)
		rc = bring_value(who, &m, err);
	return rc == 0 && opens_memory(who, c) ? 1 : rc;
}
