/* SPDX-License-Identifier: BSD-2-Clause */
/* The stub's labels, the layout of its slots and of the arena; the code is in stub.S. */
#pragma once

#include <stddef.h>
#include <stdint.h>

extern const char stub_begin[], stub_map[], stub_batch[], stub_fork[], stub_exit[], stub_unmap[];
extern const char stub_thread[], stub_marker_fork[];
extern const char stub_marker_map[], stub_marker_batch[], stub_marker_unmap[], stub_marker_thread[];
extern const char stub_hold[], stub_patience[], stub_wait[];
extern const char stub_open[], stub_slots[], stub_slot_end[];

#define STUB_OFFSET(label) ((uint64_t)((label)-stub_begin))
/* Bytes of the stub with n slots. */
#define STUB_BYTES(n)  ((size_t)(stub_slots - stub_begin) + (size_t)(n) * sizeof(struct stub_slot))
#define STUB_MAX_SLOTS 12

/* The context of one thread in the stub: where it goes on should it have to do so by itself. */
struct stub_slot {
	uint8_t code[16]; /* loads rbp and rip: the same in every slot, copied from the first */
	uint64_t tgid, tid, sig; /* the marker */
	uint64_t mask, arena_size;
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, rbp, rip;
	uint8_t df, of, lowflags, zero[5];
};

/* One call as the stub reads it. */
struct stub_call {
	uint64_t nr, arg[6];
	int64_t ret;
};

/* What stub_thread says. */
struct stub_answers {
	uint64_t altstack_sp;
	uint32_t altstack_flags, zero;
	uint64_t altstack_size, unused;
	uint64_t clear_child_tid;
	int32_t parent_death_signal, zero2;
	uint64_t timer_slack_ns;
	int64_t personality;
};

/*
 * The arena: a header page with the calls that undo (only run when our tracer is gone), then the
 * calls of the batch, then its data, then a page that nobody touches (batch_untouched).
 */
#define ARENA_UNDO_MAX 63
struct arena_head {
	uint64_t n_undo;
	int64_t forked; /* the copy's pid as the job sees it, or -errno (stub_fork) */
	int64_t others; /* threads besides the first that are still to leave the arena */
	uint64_t reserved[4];
	uint64_t option; /* a socket's, which the call below puts back */
	struct stub_call undo[ARENA_UNDO_MAX];
};
