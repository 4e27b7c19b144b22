/* SPDX-License-Identifier: BSD-2-Clause */
/* Words to write field tables with: for schema.c and schema_files.c only. A row needs #define T. */
#pragma once

#include "state/schema.h"

#include <stddef.h>

#define KIND_OF(x)                                                                                 \
	_Generic((x),                   \
		uint8_t: FIELD_U8,      \
		uint16_t: FIELD_U16,    \
		uint32_t: FIELD_U32,    \
		int32_t: FIELD_I32,     \
		uint64_t: FIELD_U64,    \
		int64_t: FIELD_I64,     \
		char *: FIELD_STR,      \
		struct blob: FIELD_BLOB, \
		struct id128: FIELD_ID)

#define SHOWN(T, m, how)                                                                           \
	{                                                                                          \
#m, KIND_OF(((T *)0)->m), how, offsetof(T, m), 0, NULL                             \
	}
#define VAL(T, m) SHOWN(T, m, SHOW_DEC)
#define HEX(T, m) SHOWN(T, m, SHOW_HEX)
#define OCT(T, m) SHOWN(T, m, SHOW_OCT)
#define SUB(T, m, s)                                                                               \
	{                                                                                          \
#m, FIELD_STRUCT, SHOW_DEC, offsetof(T, m), 0, &(s)                                \
	}
#define LIST(T, m, s)                                                                              \
	{                                                                                          \
#m, FIELD_LIST, SHOW_DEC, offsetof(T, m), offsetof(T, n_##m), &(s)                 \
	}
#define SCHEMA(var, label, T)                                                                      \
	const struct schema var = { label, sizeof(T), var##_fields,                                \
				    sizeof var##_fields / sizeof var##_fields[0] }

extern const struct schema file_schema;
