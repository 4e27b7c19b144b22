/* SPDX-License-Identifier: BSD-2-Clause */
/* Schemas: one table per struct from which encoding, decoding, inspection and JSON all follow. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Binary data of any length; data may be NULL when len is 0. */
struct blob {
	uint8_t *data;
	uint32_t len;
};

struct id128 {
	uint8_t b[16];
};

enum field_kind {
	FIELD_U8,
	FIELD_U16,
	FIELD_U32,
	FIELD_I32,
	FIELD_U64,
	FIELD_I64,
	FIELD_STR,    /* char *; NULL and "" differ on disk */
	FIELD_BLOB,   /* struct blob */
	FIELD_ID,     /* struct id128 */
	FIELD_STRUCT, /* an embedded struct with the schema sub */
	FIELD_LIST,   /* T *x; unsigned n_x; elements have the schema sub */
	FIELD_DETAIL, /* void *, a struct whose schema file_kind_schema() gives for the u32 at
			 count_offset */
};

enum field_show { SHOW_DEC, SHOW_HEX, SHOW_OCT };

struct schema;

struct field {
	const char *name;
	enum field_kind kind;
	enum field_show show;
	uint32_t offset;
	uint32_t count_offset; /* LIST: of the unsigned count; DETAIL: of the u32 kind */
	const struct schema *sub;
};

/*
 * The on-disk form of a struct is its fields in table order. Fields are only ever appended: a
 * shorter record than the table leaves the rest zero, a longer one (from a newer writer) is cut.
 */
struct schema {
	const char *name;
	size_t size;
	const struct field *fields;
	unsigned n_fields;
};
