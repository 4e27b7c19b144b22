/* SPDX-License-Identifier: BSD-2-Clause */
/* The writer's output stage: bytes and pages in file order, gathered into big aligned writes. */
#pragma once

#include "util/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define OUT_IOVS        34
#define OUT_STAGE_BYTES (2u << 20)

/*
 * Small things are copied to a staging buffer, page blocks are referenced where they lie, so that
 * raw pages reach the disk without a copy. Everything is written by one thread, front to back.
 */
struct out {
	int fd;
	bool file;        /* a regular file of ours, not somebody's pipe */
	bool direct;      /* O_DIRECT is on */
	const char *name; /* for messages; borrowed */
	uint64_t pos;     /* bytes accepted so far: where the next one goes */
	uint64_t written; /* bytes written: always page-aligned until the end */
	uint64_t pushed;  /* bytes whose writeback was started (buffered mode) */
	uint8_t *stage;   /* page-aligned */
	size_t stage_len;
	size_t gathered; /* bytes in iov */
	unsigned n;
	struct iovec iov[OUT_IOVS];
};

int out_init(struct out *o, int fd, bool file, bool direct, const char *name, struct err *err);
void out_fini(struct out *o);
/* Copies bytes. */
int out_bytes(struct out *o, const void *p, size_t len, struct err *err);
/* Zero bytes up to a multiple of align (a power of two). */
int out_align(struct out *o, unsigned align, struct err *err);
/*
 * Whole pages at a page-aligned position, from page-aligned memory that stays as it is until the
 * next out_flush (which the caller makes before it reuses the memory).
 */
int out_pages(struct out *o, const void *p, size_t len, struct err *err);
/* Writes what has gathered; an unaligned tail stays for later unless final. */
int out_flush(struct out *o, bool final, struct err *err);
