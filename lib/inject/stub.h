/* SPDX-License-Identifier: BSD-2-Clause */
/* The stub's labels and the layout of its tail and of the arena; the code is in stub.S. */
#pragma once

#include <stddef.h>
#include <stdint.h>

extern const char stub_begin[], stub_map[], stub_batch[], stub_unmap[], stub_thread[], stub_heal[];
extern const char stub_marker_map[], stub_marker_batch[], stub_marker_unmap[], stub_marker_thread[];
extern const char stub_tail[], stub_end[];

#define STUB_OFFSET(label) ((uint64_t)((label)-stub_begin))
#define STUB_BYTES ((size_t)(stub_end - stub_begin))
/* Longest tail of an executable mapping that the stub may need (checked when it is put in place). */
#define STUB_ROOM 1024

struct stub_tail {
	uint64_t mask, arena_size;
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip;
	uint8_t df, of, lowflags, zero[5];
};

/* One call as the stub reads it. */
struct stub_call {
	uint64_t nr, arg[6];
	int64_t ret;
};

/*
 * The arena: a header page with the calls that undo (only run when our tracer is gone), then the calls of the
 * batch, then its data.
 */
#define ARENA_UNDO_MAX 63
struct arena_head {
	uint64_t n_undo;
	uint64_t reserved[7];
	struct stub_call undo[ARENA_UNDO_MAX];
};
