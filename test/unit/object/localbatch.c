/* SPDX-License-Identifier: BSD-2-Clause */
/* The batch interface of inject/remote.h, run in the calling process itself, without ptrace. */
#include "inject/live.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct batch {
	unsigned n;
	size_t len;
	struct {
		const char *what;
		long nr;
		uint64_t a[6];
		int64_t ret;
	} calls[BATCH_CALLS];
	_Alignas(16) uint8_t data[BATCH_DATA];
};

struct batch *batch_new(struct remote *r, struct batch_store *store)
{
	(void)r;
	(void)store;
	return calloc(1, sizeof(struct batch));
}

void batch_free(struct batch *b)
{
	free(b);
}

void batch_start(struct batch *b)
{
	b->n = 0;
	b->len = 0;
}

/* Less than a real one holds, so that the splitting of long batches is tried too. */
bool batch_room(const struct batch *b, unsigned n, size_t len)
{
	return b->n + n <= 64 && b->len + len + 16 * (size_t)n <= 20480;
}

unsigned batch_add(struct batch *b, const char *what, long nr, uint64_t a0, uint64_t a1,
		   uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5)
{
	if (b->n == 64)
		abort();
	b->calls[b->n].what = what;
	b->calls[b->n].nr = nr;
	memcpy(b->calls[b->n].a, (uint64_t[]){ a0, a1, a2, a3, a4, a5 }, sizeof b->calls[0].a);
	return b->n++;
}

uint64_t batch_arg_address(const struct batch *b, unsigned call, unsigned arg)
{
	return (uint64_t)(uintptr_t)&b->calls[call].a[arg];
}

uint64_t batch_ret_address(const struct batch *b, unsigned call)
{
	return (uint64_t)(uintptr_t)&b->calls[call].ret;
}

uint64_t batch_out(struct batch *b, size_t len)
{
	size_t at = (b->len + 15) & ~(size_t)15;

	if (at + len > sizeof b->data)
		abort();
	b->len = at + len;
	memset(b->data + at, 0, len);
	return (uint64_t)(uintptr_t)(b->data + at);
}

uint64_t batch_in(struct batch *b, const void *p, size_t len)
{
	uint64_t at = batch_out(b, len);

	memcpy((void *)(uintptr_t)at, p, len);
	return at;
}

int batch_run(struct batch *b, pid_t tid, struct err *err)
{
	int rc = 0;

	(void)tid;
	for (unsigned i = 0; i < b->n; i++) {
		const uint64_t *a = b->calls[i].a;
		long v = syscall(b->calls[i].nr, a[0], a[1], a[2], a[3], a[4], a[5]);

		b->calls[i].ret = v < 0 ? -errno : v;
		if (v < 0 && b->calls[i].what && rc == 0)
			rc = err_set(err, -errno, "cannot %s: %m", b->calls[i].what);
	}
	return rc;
}

int64_t batch_ret(const struct batch *b, unsigned i)
{
	return b->calls[i].ret;
}

const void *batch_result(const struct batch *b, uint64_t addr)
{
	(void)b;
	return (const void *)(uintptr_t)addr;
}

/* Nobody vanishes from a process of its own. */
int batch_undo(struct batch *b, long nr, uint64_t a0, uint64_t a1, uint64_t a2, struct err *err)
{
	(void)b;
	(void)nr;
	(void)a0;
	(void)a1;
	(void)a2;
	(void)err;
	return 0;
}

int batch_undone(struct batch *b, struct err *err)
{
	(void)b;
	(void)err;
	return 0;
}

uint64_t batch_undo_address(const struct batch *b)
{
	return (uint64_t)(uintptr_t)b->data;
}

int live_hold(struct remote *r, int semaphores, bool runs, struct err *err)
{
	(void)r;
	(void)semaphores;
	(void)runs;
	(void)err;
	return 0;
}

int live_release(struct remote *r, struct err *err)
{
	(void)r;
	(void)err;
	return 0;
}

int batch_undo_option(struct batch *b, int fd, int level, int name, int value, struct err *err)
{
	(void)fd;
	(void)level;
	(void)name;
	(void)value;
	return batch_undo(b, 0, 0, 0, 0, err);
}
