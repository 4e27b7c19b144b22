/* SPDX-License-Identifier: BSD-2-Clause */
/* A loop that holds known values in every register it can, and checks them all the time. */
#pragma once

#include <stdint.h>

/* A system call that the loop makes again and again while its vector registers are full. */
struct regs_call {
	long nr;
	uint64_t arg[6];
	long min, max; /* what it may return */
	int may_eintr; /* one of those that signal(7) lets return EINTR after a stop without any
			  signal */
};

struct regs_job {
	uint64_t seed;                 /* what the registers hold is a function of it */
	const volatile int *stop;      /* the loop ends when this is not 0 */
	const struct regs_call *calls; /* or NULL: pure computation */
	unsigned n_calls;
	const volatile int *eintr_ok; /* or NULL: 1 while such an EINTR is allowed */
	volatile uint64_t eintrs;     /* how many came */
	volatile uint64_t rounds;     /* how often everything was checked */
	const char *bad;              /* what differed; NULL if nothing */
	int bad_index;                /* which register, or which call */
	uint64_t bad_got, bad_want;
};

/* Vector registers: x87 stack and control words, MXCSR, all of SSE, AVX, AVX-512 that this CPU has.
 */
void regs_vector_loop(struct regs_job *job);
/* General registers, flags and red zone, in assembly that keeps all of them busy. */
void regs_general_loop(struct regs_job *job);
