/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory of victim changed: regions, what each page of them must hold, and what can be done. */
#pragma once

#include "victim.h"

#define REGIONS   48u
#define MAX_PAGES 96u
#define HUGE_LEN  (2ul << 20)
#define FILE_SEED 0xf11e0000ull /* of the pages of file_fd */
#define TWIN_SEED 0x77770000ull /* of pages that are there several times */

enum kind { NOTHING, ANON, FILE_PRIVATE, SHARED, SHARED_FD, HUGE, BREAK };

/* What a page must hold: a pattern's seed, BLANK (zero, or the file's page), either if MAYBE. */
#define BLANK 0ull
#define MAYBE (1ull << 63)

struct region {
	enum kind kind;
	char *at;
	unsigned npages;
	int prot, fd;
	char *home; /* ANON: where it was one mapping with its neighbour; NULL: nowhere */
	uint64_t page[HUGE_LEN / PAGE];
};
extern struct region regions[REGIONS];

extern uint64_t rng, seeds; /* where rnd() stands; the last pattern's seed */
extern uint64_t steps_done; /* for messages */
extern int file_fd;         /* of MAX_PAGES pages */

uint64_t rnd(uint64_t n); /* below n */

void verify_all(void);
/* Each does something to a region, or nothing where that cannot be done to one of its kind. */
void make(struct region *r);
void unmake(struct region *r);
void replace(struct region *r);
void shrink(struct region *r);
void split(struct region *r);
void move(struct region *r);
void protect(struct region *r);
void writes(struct region *r);
void advise(struct region *r);
void touch(struct region *r);
