/* SPDX-License-Identifier: BSD-2-Clause */
/* What a system call may touch of the memory of the process that makes it. */
#pragma once

#include "state/tree.h"

#include <stdbool.h>
#include <stdint.h>

struct call {
	uint64_t nr, arg[6], sp;
	uint64_t brk; /* the break at the checkpoint */
	bool leader;  /* it is made by the first thread */
};

/* Some of a call's pointers lead to further ones: an array of struct iovec. */
struct call_memory {
	struct range touches[4];
	unsigned n;
	struct range iovecs; /* empty: none */
	uint64_t msghdr;     /* of a struct msghdr; 0: none */
	/* Of as many bytes as the int at value_len says (its address); 0: none. */
	uint64_t value, value_len;
	struct range changes; /* mappings that the call takes away or replaces; empty: none */
	struct range changes_too;
};

/* False: nothing is known of this call; it may touch anything and change any mapping. */
bool call_memory(const struct call *c, struct call_memory *ret);
