/* SPDX-License-Identifier: BSD-2-Clause */
/* JSON, driven by the schemas: a field that is added to a table appears here by itself. */
#include "image/json.h"

#include "image/utf8.h"
#include "util/cleanup.h"

#include <inttypes.h>
#include <string.h>

struct json {
	FILE *f;
	unsigned depth;
	bool first; /* nothing printed yet in the innermost object or list */
};

/* --- the syntax ----------------------------------------------------------------------------------
 */

static void put_string(FILE *f, const char *s)
{
	putc('"', f);
	while (*s) {
		uint32_t c = 0;
		unsigned len = utf8_sequence(s, &c);

		if (len == 0)
			fprintf(f, "\\udc%02x", (uint8_t)*s);
		else if (c == '"' || c == '\\')
			fprintf(f, "\\%c", (char)c);
		else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
			fprintf(f, "\\u%04x", c);
		else
			fwrite(s, 1, len, f);
		s += len ? len : 1;
	}
	putc('"', f);
}

/* Comma, new line, indentation, and the key if there is one. */
static void begin_value(struct json *j, const char *key)
{
	if (j->depth > 0)
		fprintf(j->f, "%s\n%*s", j->first ? "" : ",", (int)j->depth, "");
	j->first = false;
	if (key) {
		put_string(j->f, key);
		fputs(": ", j->f);
	}
}

static void open_group(struct json *j, const char *key, char bracket)
{
	begin_value(j, key);
	putc(bracket, j->f);
	j->depth++;
	j->first = true;
}

static void close_group(struct json *j, char bracket)
{
	j->depth--;
	if (!j->first)
		fprintf(j->f, "\n%*s", (int)j->depth, "");
	putc(bracket, j->f);
	j->first = false;
}

static void add_string(struct json *j, const char *key, const char *s)
{
	begin_value(j, key);
	if (s)
		put_string(j->f, s);
	else
		fputs("null", j->f);
}

static void add_u64(struct json *j, const char *key, uint64_t v)
{
	begin_value(j, key);
	fprintf(j->f, "%" PRIu64, v);
}

static void add_i64(struct json *j, const char *key, int64_t v)
{
	begin_value(j, key);
	fprintf(j->f, "%" PRId64, v);
}

static void add_bool(struct json *j, const char *key, bool v)
{
	begin_value(j, key);
	fputs(v ? "true" : "false", j->f);
}

static void add_bytes(struct json *j, const char *key, const uint8_t *p, size_t len)
{
	static const char digits[] = "0123456789abcdef";

	begin_value(j, key);
	putc('"', j->f);
	for (size_t i = 0; i < len; i++) {
		putc(digits[p[i] >> 4], j->f);
		putc(digits[p[i] & 15], j->f);
	}
	putc('"', j->f);
}

/* --- the schemas ---------------------------------------------------------------------------------
 */

static void add_struct(struct json *j, const char *key, const struct schema *schema,
		       const void *base);

static void add_number(struct json *j, const struct field *field, uint64_t v, int64_t as_signed)
{
	bool is_signed = field->kind == FIELD_I32 || field->kind == FIELD_I64;

	begin_value(j, field->name);
	if (field->show == SHOW_HEX)
		fprintf(j->f, "\"0x%" PRIx64 "\"", v);
	else if (field->show == SHOW_OCT)
		fprintf(j->f, "\"0%" PRIo64 "\"", v);
	else if (is_signed)
		fprintf(j->f, "%" PRId64, as_signed);
	else
		fprintf(j->f, "%" PRIu64, v);
}

static void add_list(struct json *j, const struct field *field, const char *base)
{
	const char *elements = *(char *const *)(base + field->offset);
	unsigned n = *(const unsigned *)(base + field->count_offset);

	open_group(j, field->name, '[');
	for (unsigned i = 0; i < n; i++)
		add_struct(j, NULL, field->sub, elements + (size_t)i * field->sub->size);
	close_group(j, ']');
}

static void add_detail(struct json *j, const struct field *field, const char *base)
{
	const struct schema *schema =
		file_kind_schema(*(const uint32_t *)(base + field->count_offset));
	const void *detail = *(void *const *)(base + field->offset);

	if (schema && detail)
		add_struct(j, field->name, schema, detail);
	else
		add_string(j, field->name, NULL);
}

static void add_field(struct json *j, const struct field *field, const char *base)
{
	const void *p = base + field->offset;

	switch (field->kind) {
	case FIELD_U8:
		add_number(j, field, *(const uint8_t *)p, 0);
		break;
	case FIELD_U16:
		add_number(j, field, *(const uint16_t *)p, 0);
		break;
	case FIELD_U32:
		add_number(j, field, *(const uint32_t *)p, 0);
		break;
	case FIELD_U64:
		add_number(j, field, *(const uint64_t *)p, 0);
		break;
	case FIELD_I32:
		add_number(j, field, *(const uint32_t *)p, *(const int32_t *)p);
		break;
	case FIELD_I64:
		add_number(j, field, *(const uint64_t *)p, *(const int64_t *)p);
		break;
	case FIELD_STR:
		add_string(j, field->name, *(char *const *)p);
		break;
	case FIELD_BLOB:
		add_bytes(j, field->name, ((const struct blob *)p)->data,
			  ((const struct blob *)p)->len);
		break;
	case FIELD_ID:
		add_bytes(j, field->name, ((const struct id128 *)p)->b, sizeof(struct id128));
		break;
	case FIELD_STRUCT:
		add_struct(j, field->name, field->sub, p);
		break;
	case FIELD_LIST:
		add_list(j, field, base);
		break;
	case FIELD_DETAIL:
		add_detail(j, field, base);
		break;
	}
}

static const char *space_kind_name(uint32_t kind)
{
	static const char *const names[] = { "unknown", "memory", "shared", "file" };

	return kind < ARRAY_SIZE(names) ? names[kind] : names[0];
}

static const struct {
	const char *schema;
	const char *(*name)(uint32_t);
} named_kinds[] = {
	{ "space", space_kind_name },
	{ "vma", vma_kind_name },
	{ "file", file_kind_name },
};

static void add_struct(struct json *j, const char *key, const struct schema *schema,
		       const void *base)
{
	open_group(j, key, '{');
	for (unsigned i = 0; i < schema->n_fields; i++) {
		const struct field *field = &schema->fields[i];

		add_field(j, field, base);
		if (field->kind != FIELD_U32 || strcmp(field->name, "kind") != 0)
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(named_kinds); k++)
			if (!strcmp(schema->name, named_kinds[k].schema))
				add_string(
					j, "kind_name",
					named_kinds[k].name(*(const uint32_t *)((const char *)base +
										field->offset)));
	}
	close_group(j, '}');
}

/* --- images and chains ---------------------------------------------------------------------------
 */

static void add_image(struct json *j, const struct image_view *v)
{
	struct page_counts sum = { 0 };

	for (unsigned i = 0; i < v->n_runs; i++) {
		sum.here += v->runs[i].kind == RUN_HERE ? v->runs[i].npages : 0;
		sum.zero += v->runs[i].kind == RUN_ZERO ? v->runs[i].npages : 0;
		sum.parent += v->runs[i].kind == RUN_PARENT ? v->runs[i].npages : 0;
	}
	open_group(j, "image", '{');
	add_string(j, "name", v->name);
	add_u64(j, "version", v->info->version);
	add_u64(j, "arch", v->info->arch);
	add_u64(j, "seq", v->info->seq);
	add_string(j, "kind", view_kind(v->info));
	add_bytes(j, "state", v->info->state.b, sizeof v->info->state.b);
	add_bytes(j, "parent", v->info->parent.b, sizeof v->info->parent.b);
	add_u64(j, "file_bytes", v->info->file_bytes);
	add_u64(j, "blocks", v->info->n_blocks);
	add_u64(j, "runs", v->info->n_runs);
	add_u64(j, "pages_here", sum.here);
	add_u64(j, "pages_zero", sum.zero);
	add_u64(j, "pages_parent", sum.parent);
	close_group(j, '}');
}

static void add_entry(struct json *j, const struct chain_entry *e)
{
	static const struct id128 none;
	bool full = !memcmp(&e->parent, &none, sizeof none);

	open_group(j, NULL, '{');
	add_u64(j, "seq", e->seq);
	add_string(j, "name", e->name);
	add_string(j, "kind", !e->readable ? NULL : full ? "full" : "incremental");
	add_bytes(j, "state", e->state.b, sizeof e->state.b);
	add_bytes(j, "parent", e->parent.b, sizeof e->parent.b);
	add_u64(j, "file_bytes", e->file_bytes);
	add_i64(j, "mtime_ns", e->mtime_ns);
	add_bool(j, "readable", e->readable);
	add_bool(j, "complete", e->complete);
	add_string(j, "why", e->complete ? NULL : e->why.msg);
	close_group(j, '}');
}

static void add_chain(struct json *j, const struct chain_view *c)
{
	open_group(j, "chain", '{');
	add_string(j, "path", c->path);
	add_string(j, "finished", c->finished);
	open_group(j, "images", '[');
	for (unsigned i = 0; i < c->n_entries; i++)
		add_entry(j, c->entries[i]);
	close_group(j, ']');
	close_group(j, '}');
}

void json_print(FILE *f, const struct chain_view *chain, const struct image_view *image)
{
	struct json j = { .f = f, .first = true };

	open_group(&j, NULL, '{');
	if (chain)
		add_chain(&j, chain);
	if (image) {
		add_image(&j, image);
		add_struct(&j, "tree", &tree_schema, image->tree);
	}
	close_group(&j, '}');
	putc('\n', f);
}
