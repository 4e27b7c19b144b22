/* SPDX-License-Identifier: BSD-2-Clause */
/* Records read: a walk over the schema tables that decodes what nobody vouches for. */
#include "image/record.h"

#include "state/tree.h"
#include "util/bytes.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_DEPTH 16
/* Decoded structs are at most a few times bigger than their records; more is a hostile count. */
#define MEMORY_FACTOR 24
#define MEMORY_SLACK  (64 * 1024)

/* Where we are, for messages: a list of frames on the stack. */
struct where {
	const struct where *up;
	const struct field *field;
	unsigned index; /* in a list; UINT32_MAX elsewhere */
};

struct decoder {
	struct arena *arena;
	size_t budget; /* bytes that may still be allocated */
	bool oom;
	struct err *err;
};

struct span {
	const uint8_t *p;
	size_t left;
};

static void path_text(const struct where *w, char *out, size_t room)
{
	size_t len;

	if (!w) {
		out[0] = '\0';
		return;
	}
	path_text(w->up, out, room);
	len = strlen(out);
	if (w->index != UINT32_MAX)
		(void)snprintf(out + len, room - len, "%s%s[%u]", len ? "." : "", w->field->name,
			       w->index);
	else
		(void)snprintf(out + len, room - len, "%s%s", len ? "." : "", w->field->name);
}

static int bad(struct decoder *d, const struct where *w, const char *what)
{
	char path[256];

	path_text(w, path, sizeof path);
	return err_image(d->err, -EBADMSG, "record field '%s' is damaged (%s)", path, what);
}

static void *take_memory(struct decoder *d, size_t n, size_t size)
{
	size_t len;
	void *p;

	if (__builtin_mul_overflow(n, size, &len) || len > SIZE_MAX - 16)
		return NULL;
	len = (len + 15) & ~(size_t)15;
	if (len > d->budget)
		return NULL;
	d->budget -= len;
	p = arena_alloc(d->arena, len);
	d->oom = !p;
	return p;
}

/* Why take_memory gave nothing: we have none, or the record asks for far more than its size
 * explains. */
static int no_memory(struct decoder *d, const struct where *w)
{
	return d->oom ? err_nomem(d->err) : bad(d, w, "asks for too much memory");
}

static bool take(struct span *in, size_t len, const uint8_t **ret)
{
	if (in->left < len)
		return false;
	*ret = in->p;
	in->p += len;
	in->left -= len;
	return true;
}

static bool take32(struct span *in, uint32_t *ret)
{
	const uint8_t *p;

	if (!take(in, 4, &p))
		return false;
	*ret = get_le32(p);
	return true;
}

static int decode(struct decoder *d, struct span *in, const struct schema *s, void *obj,
		  const struct where *w, unsigned depth);

static int decode_bytes(struct decoder *d, struct span *in, const struct field *f, void *p,
			const struct where *w)
{
	const uint8_t *from;
	uint8_t *to;
	uint32_t len;

	if (!take32(in, &len))
		return bad(d, w, "cut short");
	if (len == RECORD_NULL && f->kind == FIELD_STR)
		return 0;
	if (!take(in, len, &from))
		return bad(d, w, "longer than its record");
	if (f->kind == FIELD_STR && memchr(from, '\0', len))
		return bad(d, w, "zero byte in a string");
	if (f->kind == FIELD_BLOB && !len)
		return 0;
	to = take_memory(d, (size_t)len + (f->kind == FIELD_STR), 1);
	if (!to)
		return no_memory(d, w);
	memcpy(to, from, len);
	if (f->kind == FIELD_STR) {
		*(char **)p = (char *)to;
	} else {
		((struct blob *)p)->data = to;
		((struct blob *)p)->len = len;
	}
	return 0;
}

static int decode_list(struct decoder *d, struct span *in, const struct field *f, uint8_t *base,
		       const struct where *w, unsigned depth)
{
	struct where at = { w->up, f, 0 };
	uint8_t *elems;
	uint32_t n;

	if (!take32(in, &n))
		return bad(d, w, "cut short");
	if (!n)
		return 0;
	/* each element has at least its length */
	if (n > in->left / 4)
		return bad(d, w, "count exceeds its record");
	elems = take_memory(d, n, f->sub->size);
	if (!elems)
		return no_memory(d, w);
	for (at.index = 0; at.index < n; at.index++) {
		int rc = decode(d, in, f->sub, elems + at.index * f->sub->size, &at, depth + 1);

		if (rc < 0)
			return rc;
	}
	*(void **)(base + f->offset) = elems;
	*(unsigned *)(base + f->count_offset) = n;
	return 0;
}

static int decode_detail(struct decoder *d, struct span *in, const struct field *f, uint8_t *base,
			 const struct where *w, unsigned depth)
{
	const struct schema *s = file_kind_schema(*(const uint32_t *)(base + f->count_offset));
	struct span peek = *in;
	const uint8_t *skip;
	uint32_t len;
	void *obj;
	int rc;

	if (!take32(&peek, &len))
		return bad(d, w, "cut short");
	if (len == RECORD_NULL) {
		*in = peek;
		return 0;
	}
	if (!s) { /* a kind from the future: skipped here, refused by the tree's check */
		if (!take(&peek, len, &skip))
			return bad(d, w, "longer than its record");
		*in = peek;
		return 0;
	}
	obj = take_memory(d, 1, s->size);
	if (!obj)
		return no_memory(d, w);
	rc = decode(d, in, s, obj, w, depth + 1);
	if (rc == 0)
		*(void **)(base + f->offset) = obj;
	return rc;
}

static int decode_number(struct decoder *d, struct span *in, const struct field *f, void *p,
			 const struct where *w)
{
	static const uint8_t sizes[] = {
		[FIELD_U8] = 1,  [FIELD_U16] = 2, [FIELD_U32] = 4,
		[FIELD_I32] = 4, [FIELD_U64] = 8, [FIELD_I64] = 8,
	};
	const uint8_t *from;

	if (!take(in, sizes[f->kind], &from))
		return bad(d, w, "cut short");
	switch (sizes[f->kind]) {
	case 1:
		*(uint8_t *)p = *from;
		break;
	case 2:
		*(uint16_t *)p = get_le16(from);
		break;
	case 4:
		*(uint32_t *)p = get_le32(from);
		break;
	default:
		*(uint64_t *)p = get_le64(from);
	}
	return 0;
}

static int decode_field(struct decoder *d, struct span *in, const struct field *f, uint8_t *base,
			const struct where *w, unsigned depth)
{
	void *p = base + f->offset;
	const uint8_t *from;

	switch (f->kind) {
	case FIELD_STR:
	case FIELD_BLOB:
		return decode_bytes(d, in, f, p, w);
	case FIELD_ID:
		if (!take(in, sizeof(struct id128), &from))
			return bad(d, w, "cut short");
		memcpy(p, from, sizeof(struct id128));
		return 0;
	case FIELD_STRUCT:
		return decode(d, in, f->sub, p, w, depth + 1);
	case FIELD_LIST:
		return decode_list(d, in, f, base, w, depth);
	case FIELD_DETAIL:
		return decode_detail(d, in, f, base, w, depth);
	default:
		return decode_number(d, in, f, p, w);
	}
}

/* A record that ends between two fields comes from an older writer, one that goes on from a newer
 * one. */
static int decode(struct decoder *d, struct span *in, const struct schema *s, void *obj,
		  const struct where *w, unsigned depth)
{
	struct span rec;
	uint32_t len;

	if (!take32(in, &len))
		return bad(d, w, "cut short");
	if (depth > MAX_DEPTH || !take(in, len, &rec.p))
		return bad(d, w, "longer than what holds it");
	rec.left = len;
	for (unsigned i = 0; i < s->n_fields && rec.left; i++) {
		struct where at = { w, &s->fields[i], UINT32_MAX };
		int rc = decode_field(d, &rec, &s->fields[i], obj, &at, depth);

		if (rc < 0)
			return rc;
	}
	return 0;
}

int record_decode(const uint8_t *data, size_t len, const struct schema *s, struct arena *arena,
		  void **ret, struct err *err)
{
	struct decoder d = { .arena = arena, .err = err };
	struct span in = { data, len };
	void *obj;
	int rc;

	if (__builtin_mul_overflow(len, (size_t)MEMORY_FACTOR, &d.budget) ||
	    d.budget > SIZE_MAX / 2)
		d.budget = SIZE_MAX / 2;
	d.budget += MEMORY_SLACK + s->size;
	obj = take_memory(&d, 1, s->size);
	if (!obj)
		return err_nomem(err);
	rc = decode(&d, &in, s, obj, NULL, 0);
	if (rc < 0)
		return rc;
	if (in.left)
		return err_image(err, -EBADMSG, "record '%s' is followed by %zu stray bytes",
				 s->name, in.left);
	*ret = obj;
	return 0;
}
