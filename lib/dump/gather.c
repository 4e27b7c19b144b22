/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page here and a page there: a read of each takes 3 us, most of it for the call.
 * process_vm_readv(2) takes a list. It cannot read what the process itself may not (PROT_NONE), and
 * copies a page that a snapshot shares: for these, and whenever anything is odd, it is read piece
 * by piece.
 */
#include "dump/internal.h"

#include <sys/uio.h>

static bool is_small(const struct page_list *l, const struct extent *e)
{
	return !e->later && e->fd == l->fd && e->npages <= GATHER_SMALL;
}

unsigned gather_runs(pid_t pid, const struct page_class_run *runs, unsigned n, uint8_t *buf)
{
	struct iovec from[GATHER_PIECES], to = { .iov_base = buf };
	unsigned whole = 0;
	ssize_t got;

	if (!n)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		size_t len = runs[i].end - runs[i].start;

		/* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process */
		from[i] = (struct iovec){ (void *)(uintptr_t)runs[i].start, len };
		to.iov_len += len;
	}
	got = process_vm_readv(pid, &to, 1, from, n, 0);
	while (whole < n && got >= (ssize_t)from[whole].iov_len)
		got -= (ssize_t)from[whole++].iov_len;
	return whole;
}

unsigned gather(const struct page_list *l, unsigned first, uint8_t *buf)
{
	struct iovec from[GATHER_PIECES], to = { .iov_base = buf };
	unsigned n = 0, i;
	ssize_t got;

	if (!l->pid || l->source != SOURCE_MEMORY || l->extents[first].kind == EXTENT_PARENT ||
	    !is_small(l, &l->extents[first]))
		return 0;
	for (i = first; i < l->n_extents && n < GATHER_PIECES; i++) {
		const struct extent *e = &l->extents[i];
		size_t len = e->npages * CKPT_PAGE_SIZE;

		if (e->kind == EXTENT_PARENT)
			continue;
		if (!is_small(l, e) || to.iov_len + len > IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE)
			break;
		/* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process */
		from[n++] = (struct iovec){ (void *)(uintptr_t)e->address, len };
		to.iov_len += len;
	}
	if (n < 2)
		return 0;
	got = process_vm_readv(l->pid, &to, 1, from, n, 0);
	while (i > first && got < (ssize_t)to.iov_len) /* it ended at a piece that cannot be read */
		if (l->extents[--i].kind != EXTENT_PARENT)
			to.iov_len -= l->extents[i].npages * CKPT_PAGE_SIZE;
	return i - first;
}
