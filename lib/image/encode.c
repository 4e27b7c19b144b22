/* SPDX-License-Identifier: BSD-2-Clause */
/* Records written: a walk over the schema tables, into a buffer or piece by piece. */
#include "image/record.h"

#include "state/tree.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#include <stdbool.h>
#include <string.h>

#define PIECE_BYTES (64u << 10)

uint8_t *buf_add(struct buf *b, size_t len)
{
	uint8_t *p;

	if (b->failed || len > SIZE_MAX / 4 - b->len) {
		b->failed = 1;
		return NULL;
	}
	if (b->room - b->len < len) {
		size_t room = MAX(b->room * 2, b->len + len);

		room = MAX(room, 4096u);
		p = realloc(b->data, room);
		if (!p) {
			b->failed = 1;
			return NULL;
		}
		b->data = p;
		b->room = room;
	}
	p = b->data + b->len;
	b->len += len;
	return p;
}

void buf_put(struct buf *b, const void *p, size_t len)
{
	uint8_t *to = buf_add(b, len);

	if (to && len)
		memcpy(to, p, len);
}

void buf_put32(struct buf *b, uint32_t v)
{
	uint8_t *p = buf_add(b, 4);

	if (p)
		put_le32(p, v);
}

void buf_put64(struct buf *b, uint64_t v)
{
	uint8_t *p = buf_add(b, 8);

	if (p)
		put_le64(p, v);
}

void buf_fini(struct buf *b)
{
	free(b->data);
	memset(b, 0, sizeof *b);
}

static void put_bytes(struct buf *b, const void *p, size_t len, bool *too_big)
{
	if (len >= RECORD_NULL) {
		*too_big = true;
		return;
	}
	buf_put32(b, (uint32_t)len);
	buf_put(b, p, len);
}

static void encode(struct buf *b, const struct schema *s, const void *obj, bool *too_big);

static void encode_list(struct buf *b, const struct field *f, const uint8_t *base, bool *too_big)
{
	const uint8_t *elem = *(const uint8_t *const *)(base + f->offset);
	unsigned n = *(const unsigned *)(base + f->count_offset);

	buf_put32(b, n);
	for (unsigned i = 0; i < n; i++)
		encode(b, f->sub, elem + i * f->sub->size, too_big);
}

static void encode_detail(struct buf *b, const struct field *f, const uint8_t *base, bool *too_big)
{
	const void *detail = *(const void *const *)(base + f->offset);
	const struct schema *s = file_kind_schema(*(const uint32_t *)(base + f->count_offset));

	if (detail && s)
		encode(b, s, detail, too_big);
	else
		buf_put32(b, RECORD_NULL);
}

static void encode_number(struct buf *b, const struct field *f, const void *p)
{
	switch (f->kind) {
	case FIELD_U8:
		buf_put(b, p, 1);
		break;
	case FIELD_U16: {
		uint8_t *to = buf_add(b, 2);

		if (to)
			put_le16(to, *(const uint16_t *)p);
		break;
	}
	case FIELD_U32:
	case FIELD_I32:
		buf_put32(b, *(const uint32_t *)p);
		break;
	default:
		buf_put64(b, *(const uint64_t *)p);
	}
}

static void encode_field(struct buf *b, const struct field *f, const uint8_t *base, bool *too_big)
{
	const void *p = base + f->offset;

	switch (f->kind) {
	case FIELD_STR: {
		const char *str = *(char *const *)p;

		if (str)
			put_bytes(b, str, strlen(str), too_big);
		else
			buf_put32(b, RECORD_NULL);
		break;
	}
	case FIELD_BLOB: {
		const struct blob *blob = p;

		put_bytes(b, blob->data, blob->len, too_big);
		break;
	}
	case FIELD_ID:
		buf_put(b, p, sizeof(struct id128));
		break;
	case FIELD_STRUCT:
		encode(b, f->sub, p, too_big);
		break;
	case FIELD_LIST:
		encode_list(b, f, base, too_big);
		break;
	case FIELD_DETAIL:
		encode_detail(b, f, base, too_big);
		break;
	default:
		encode_number(b, f, p);
	}
}

static void encode(struct buf *b, const struct schema *s, const void *obj, bool *too_big)
{
	size_t at = b->len, len;

	buf_put32(b, 0);
	for (unsigned i = 0; i < s->n_fields; i++)
		encode_field(b, &s->fields[i], obj, too_big);
	if (b->failed)
		return;
	len = b->len - at - 4;
	if (len >= RECORD_NULL)
		*too_big = true;
	else
		put_le32(b->data + at, (uint32_t)len);
}

static int refuse_size(const struct schema *s, struct err *err)
{
	return err_set(err, -E2BIG, "cannot encode '%s': a part exceeds 4 GiB", s->name);
}

int record_encode(struct buf *b, const struct schema *s, const void *obj, struct err *err)
{
	bool too_big = false;

	encode(b, s, obj, &too_big);
	if (b->failed)
		return err_nomem(err);
	return too_big ? refuse_size(s, err) : 0;
}

/* --- piece by piece --------------------------------------------------------------------------- */

struct pieces {
	struct buf buf;
	record_put_fn put; /* NULL: it is only counted */
	void *arg;
	uint64_t len;
	bool too_big;
};

static void pieces_fini(struct pieces *x)
{
	buf_fini(&x->buf);
}

static int flush(struct pieces *x, size_t from, struct err *err)
{
	int rc = x->buf.failed ? err_nomem(err) : 0;

	if (rc < 0 || x->buf.len < from)
		return rc;
	if (x->put)
		rc = x->put(x->arg, x->buf.data, x->buf.len, err);
	x->len += x->buf.len;
	x->buf.len = 0;
	return rc;
}

static int walk(struct pieces *x, const struct schema *s, const void *obj, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < s->n_fields; i++) {
		const struct field *f = &s->fields[i];
		const uint8_t *base = obj, *elem;
		unsigned n;

		if (f->kind != FIELD_LIST) {
			encode_field(&x->buf, f, base, &x->too_big);
			continue;
		}
		elem = *(const uint8_t *const *)(base + f->offset);
		n = *(const unsigned *)(base + f->count_offset);
		buf_put32(&x->buf, n);
		for (unsigned k = 0; rc == 0 && k < n; k++) {
			encode(&x->buf, f->sub, elem + k * f->sub->size, &x->too_big);
			rc = flush(x, PIECE_BYTES, err);
		}
	}
	return rc < 0 ? rc : flush(x, 0, err);
}

int record_encode_to(const struct schema *s, const void *obj, record_put_fn put, void *arg,
		     struct err *err)
{
	CLEANUP(pieces_fini) struct pieces x = { .put = NULL };
	int rc = walk(&x, s, obj, err);

	if (rc < 0)
		return rc;
	if (x.too_big || x.len >= RECORD_NULL)
		return refuse_size(s, err);
	buf_put32(&x.buf, (uint32_t)x.len);
	x.put = put;
	x.arg = arg;
	return walk(&x, s, obj, err);
}
