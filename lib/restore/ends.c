/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel writes to when a thread ends: the word that pthread_join waits for
 * (set_tid_address(2)), and the robust mutexes that it holds (get_robust_list(2)). A thread that is
 * killed asks nobody first, and what is missing just then is passed over: with shared memory, other
 * processes would wait for such a mutex for ever. A mutex that is locked after the restart is
 * there, since it was touched.
 */
#include "restore/ends.h"

#include "util/cleanup.h"

#include <sys/uio.h>

#define LIST_LIMIT 2048 /* the kernel's (ROBUST_LIST_LIMIT) */

/* struct robust_list_head */
enum { NEXT, OFFSET, PENDING };

static int bring(struct demand *d, unsigned memory, uint64_t at, uint64_t bytes, struct err *err)
{
	return at && at + bytes > at
		       ? demand_range(d, memory, (struct range){ at, at + bytes }, err)
		       : 0;
}

/* What cannot be read the kernel cannot either, and gives the list up. */
static int read_words(struct demand *d, unsigned memory, pid_t pid, uint64_t at, uint64_t *words,
		      unsigned n, struct err *err)
{
	struct iovec to = { words, n * sizeof *words };
	struct iovec from = { (void *)(uintptr_t)at, to.iov_len };
	int rc = bring(d, memory, at, to.iov_len, err);

	if (rc < 0)
		return rc;
	return process_vm_readv(pid, &to, 1, &from, 1, 0) == (ssize_t)to.iov_len;
}

static int bring_robust(struct demand *d, unsigned memory, pid_t pid, uint64_t list,
			struct err *err)
{
	uint64_t head[3], entry;
	int rc = read_words(d, memory, pid, list, head, 3, err);

	if (rc <= 0)
		return rc;
	/* the lowest bit says that it is a PI mutex */
	rc = bring(d, memory, (head[PENDING] & ~1ull) + head[OFFSET], 4, err);
	entry = head[NEXT] & ~1ull;
	for (unsigned i = 0; rc >= 0 && entry != list && i < LIST_LIMIT; i++) {
		rc = bring(d, memory, entry + head[OFFSET], 4, err);
		if (rc == 0)
			rc = read_words(d, memory, pid, entry, &entry, 1, err);
		if (rc <= 0)
			break;
		entry &= ~1ull;
	}
	return MIN(rc, 0);
}

int ends_bring(struct demand *d, unsigned memory, pid_t pid, const struct thread *t,
	       struct err *err)
{
	int rc = bring(d, memory, t->clear_child_tid, 4, err);

	if (rc == 0)
		rc = bring(d, memory, t->rseq_ptr, t->rseq_len, err);
	return rc == 0 && t->robust_list ? bring_robust(d, memory, pid, t->robust_list, err) : rc;
}
