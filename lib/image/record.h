/* SPDX-License-Identifier: BSD-2-Clause */
/* Records: structs to and from their on-disk form, driven by the schema tables. */
#pragma once

#include "state/schema.h"
#include "util/arena.h"
#include "util/err.h"

#include <stddef.h>
#include <stdint.h>

/* A growing byte buffer. Zeroed is empty; after a failed growth failed is set and everything else
 * is a no-op. */
struct buf {
	uint8_t *data;
	size_t len, room;
	int failed; /* out of memory */
};

/* Room for len more bytes, uninitialised; NULL when out of memory. */
uint8_t *buf_add(struct buf *b, size_t len);
void buf_put(struct buf *b, const void *p, size_t len);
void buf_put32(struct buf *b, uint32_t v);
void buf_put64(struct buf *b, uint64_t v);
void buf_fini(struct buf *b);

/*
 * A record is a u32 byte length, then its fields in table order. Strings and blobs are a u32 length
 * and their bytes (length RECORD_NULL: a NULL string), lists a u32 count and that many records, a
 * detail a record (length RECORD_NULL: none).
 */
#define RECORD_NULL 0xffffffffu

/* Appends obj, a struct of the schema, to the buffer: 0, -ENOMEM, or -E2BIG when a part exceeds 4
 * GiB. */
int record_encode(struct buf *b, const struct schema *s, const void *obj, struct err *err);
/*
 * The same to put, in pieces and in order: in memory is one element of obj's own lists at a time.
 * What is wrong with obj is found before anything is put.
 */
typedef int (*record_put_fn)(void *arg, const void *p, size_t len, struct err *err);
int record_encode_to(const struct schema *s, const void *obj, record_put_fn put, void *arg,
		     struct err *err);
/*
 * Decodes the record that fills data[0..len) into a struct from the arena. Nothing in data is
 * trusted: memory used is bounded by a small multiple of len. Messages name the field
 * ("processes[0].vmas[3].path").
 */
int record_decode(const uint8_t *data, size_t len, const struct schema *s, struct arena *arena,
		  void **ret, struct err *err);
