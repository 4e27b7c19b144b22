/* SPDX-License-Identifier: BSD-2-Clause */
/* Batches: calls and their data, built here, run in the remote's arena. */
#include "inject/engine.h"

#include "trace/outlive.h"
#include "util/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define LOG_ROOM "inject"

struct batch_store {
	const struct batch *user;
	const char *what[BATCH_CALLS];
	struct stub_call calls[BATCH_CALLS];
	_Alignas(16) uint8_t data[BATCH_DATA];
};

struct batch {
	struct remote *r;
	struct batch_store *store;
	bool owns_store;
	unsigned n_calls;
	size_t data_len;
	bool overflow;
};

pid_t remote_pid(const struct remote *r)
{
	return r->pid;
}

struct batch_store *batch_store_new(void)
{
	struct batch_store *store = malloc(sizeof *store);

	if (store)
		store->user = NULL;
	return store;
}

void batch_store_free(struct batch_store *store)
{
	free(store);
}

struct batch *batch_new(struct remote *r, struct batch_store *store)
{
	struct batch *b = malloc(sizeof *b);

	if (!b)
		return NULL;
	*b = (struct batch){ .r = r, .store = store, .owns_store = !store };
	if (!store)
		b->store = batch_store_new();
	if (!b->store) {
		free(b);
		return NULL;
	}
	return b;
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	if (b->store->user == b)
		b->store->user = NULL;
	if (b->owns_store)
		batch_store_free(b->store);
	free(b);
}

void batch_start(struct batch *b)
{
	b->store->user = b;
	b->n_calls = 0;
	b->data_len = 0;
	b->overflow = false;
}

bool batch_room(const struct batch *b, unsigned n, size_t len)
{
	return b->n_calls + n <= BATCH_CALLS && BATCH_DATA - b->data_len >= len + 16 * (size_t)n;
}

unsigned batch_add(struct batch *b, const char *what, long nr, uint64_t a0, uint64_t a1,
		   uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5)
{
	if (b->n_calls == BATCH_CALLS || b->store->user != b) {
		b->overflow = true;
		return 0;
	}
	b->store->what[b->n_calls] = what;
	b->store->calls[b->n_calls] =
		(struct stub_call){ .nr = (uint64_t)nr, .arg = { a0, a1, a2, a3, a4, a5 } };
	return b->n_calls++;
}

static uint64_t take_data(struct batch *b, size_t len)
{
	size_t at = (b->data_len + 15) & ~(size_t)15;

	if (at > BATCH_DATA || len > BATCH_DATA - at || b->store->user != b) {
		b->overflow = true;
		return b->r->arena + ARENA_DATA_OFFSET;
	}
	b->data_len = at + len;
	return b->r->arena + ARENA_DATA_OFFSET + at;
}

uint64_t batch_in(struct batch *b, const void *p, size_t len)
{
	uint64_t addr = take_data(b, len);

	if (!b->overflow && len)
		memcpy(b->store->data + (addr - b->r->arena - ARENA_DATA_OFFSET), p, len);
	return addr;
}

uint64_t batch_out(struct batch *b, size_t len)
{
	uint64_t addr = take_data(b, len);

	if (!b->overflow)
		memset(b->store->data + (addr - b->r->arena - ARENA_DATA_OFFSET), 0, len);
	return addr;
}

uint64_t batch_untouched(const struct batch *b)
{
	return b->r->arena + ARENA_SPARE_OFFSET;
}

uint64_t batch_arg_address(const struct batch *b, unsigned call, unsigned arg)
{
	return b->r->arena + ARENA_CALLS_OFFSET + call * sizeof b->store->calls[0] +
	       offsetof(struct stub_call, arg) + arg * sizeof b->store->calls[0].arg[0];
}

uint64_t batch_ret_address(const struct batch *b, unsigned call)
{
	return b->r->arena + ARENA_CALLS_OFFSET + call * sizeof b->store->calls[0] +
	       offsetof(struct stub_call, ret);
}

static const struct engine_thread *find_thread(const struct remote *r, pid_t tid)
{
	for (unsigned i = 0; i < r->n_threads; i++)
		if (r->threads[i].tid == tid)
			return &r->threads[i];
	return NULL;
}

static int check_results(struct batch *b, struct err *err)
{
	for (unsigned i = 0; i < b->n_calls; i++) {
		int64_t v = b->store->calls[i].ret;

		if (b->store->what[i] && v < 0 && v >= -4095)
			return err_set(err, (int)v, "process %d: cannot %s: %m", b->r->pid,
				       b->store->what[i]);
	}
	return 0;
}

int batch_run(struct batch *b, pid_t tid, struct err *err)
{
	const struct engine_thread *t = find_thread(b->r, tid);
	struct user_regs_struct gp = b->r->base;
	size_t calls_len = b->n_calls * sizeof b->store->calls[0];
	struct remote *r = b->r;
	int rc;

	if (b->store->user != b)
		return err_set(err, -EINVAL, "a batch of system calls was not started");
	if (b->overflow)
		return err_set(err, -E2BIG, "too much for one batch of system calls");
	if (!t)
		return err_set(err, -ESRCH, "thread %d cannot run calls", tid);
	if (b->n_calls == 0)
		return 0;
	if (outlive_orphaned())
		return err_set(err, -ECANCELED, "ckpt-run has been killed");
	for (unsigned i = 0; i < b->n_calls; i++)
		b->store->calls[i].ret = -ENOSYS;
	rc = engine_write(r, r->arena + ARENA_CALLS_OFFSET, b->store->calls, calls_len, err);
	if (rc == 0 && b->data_len)
		rc = engine_write(r, r->arena + ARENA_DATA_OFFSET, b->store->data, b->data_len,
				  err);
	if (rc == 0 &&
	    !r->leader_regs) { /* a live one's slot was written when its arena was mapped */
		struct stub_slot slot;

		engine_slot(r, t, NULL, &slot);
		rc = engine_write(r, engine_slot_address(r, 0), &slot, sizeof slot, err);
	}
	if (rc < 0)
		return rc;
	gp.rip = r->stub + STUB_OFFSET(stub_batch);
	gp.rbx = r->arena + ARENA_CALLS_OFFSET;
	gp.r14 = b->n_calls;
	gp.r13 = r->arena;
	rc = engine_run(r, t, &gp, STUB_OFFSET(stub_marker_batch), err);
	if (rc == 0)
		rc = engine_read(r, r->arena + ARENA_CALLS_OFFSET, b->store->calls, calls_len, err);
	if (rc == 0 && b->data_len)
		rc = engine_read(r, r->arena + ARENA_DATA_OFFSET, b->store->data, b->data_len, err);
	if (rc < 0)
		return err_wrap(err, rc, "process %d", r->pid);
	return check_results(b, err);
}

int64_t batch_ret(const struct batch *b, unsigned i)
{
	assert(i < b->n_calls && b->store->user == b);
	return b->store->calls[i].ret;
}

const void *batch_result(const struct batch *b, uint64_t addr)
{
	uint64_t at = addr - b->r->arena - ARENA_DATA_OFFSET;

	assert(at <= BATCH_DATA && b->store->user == b);
	return b->store->data + at;
}

static int undo_count(struct remote *r, unsigned count, struct err *err)
{
	uint64_t n = count;
	int rc = engine_write(r, r->arena + offsetof(struct arena_head, n_undo), &n, sizeof n, err);

	if (rc == 0)
		r->n_undo = count;
	return rc;
}

int engine_undo_push(struct remote *r, const struct stub_call *call, struct err *err)
{
	uint64_t at = r->arena + offsetof(struct arena_head, undo) + r->n_undo * sizeof *call;
	int rc;

	if (r->n_undo == ARENA_UNDO_MAX)
		return err_set(err, -E2BIG, "too much to undo in process %d", r->pid);
	/* the call before the count that makes it valid */
	rc = engine_write(r, at, call, sizeof *call, err);
	return rc < 0 ? rc : undo_count(r, r->n_undo + 1, err);
}

int engine_undo_pop(struct remote *r, struct err *err)
{
	return r->n_undo ? undo_count(r, r->n_undo - 1, err) : 0;
}

int batch_undo(struct batch *b, long nr, uint64_t a0, uint64_t a1, uint64_t a2, struct err *err)
{
	const struct stub_call call = { .nr = (uint64_t)nr, .arg = { a0, a1, a2 } };

	return engine_undo_push(b->r, &call, err);
}

int batch_undone(struct batch *b, struct err *err)
{
	return engine_undo_pop(b->r, err);
}

uint64_t batch_undo_address(const struct batch *b)
{
	assert(b->r->n_undo);
	return b->r->arena + offsetof(struct arena_head, undo) +
	       (b->r->n_undo - 1) * sizeof(struct stub_call) + offsetof(struct stub_call, arg);
}

int batch_undo_option(struct batch *b, int fd, int level, int name, int value, struct err *err)
{
	uint64_t at = b->r->arena + offsetof(struct arena_head, option);
	const struct stub_call call = {
		.nr = SYS_setsockopt,
		.arg = { (uint64_t)fd, (uint64_t)level, (uint64_t)name, at, sizeof value },
	};
	int rc = engine_write(b->r, at, &value, sizeof value, err);

	return rc < 0 ? rc : engine_undo_push(b->r, &call, err);
}
