/* SPDX-License-Identifier: BSD-2-Clause */
/* Records: what was encoded comes back, older and newer records are read, damaged ones are refused.
 */
#include "imgtest.h"

#include "image/check.h"
#include "image/record.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#include <string.h>

static void encode_tree(struct buf *b, const struct tree *t)
{
	struct err err = { 0 };

	OK(record_encode(b, &tree_schema, t, &err), &err);
}

struct gathered {
	struct buf buf;
	size_t limit;
	unsigned pieces;
};

static int gather(void *arg, const void *p, size_t len, struct err *err)
{
	struct gathered *g = arg;

	(void)err;
	buf_put(&g->buf, p, len);
	g->pieces++;
	return g->buf.len > g->limit ? -EFBIG : 0;
}

/* The same bytes, however many elements and in however many pieces. */
static void in_pieces(void)
{
	struct arena *a = arena_new();
	struct buf whole = { 0 };
	struct gathered g = { .limit = SIZE_MAX };
	struct err err = { 0 };
	struct tree *t = test_tree(a);
	struct process *one = t->processes;

	for (unsigned n = 0; n < 200; n = n * 3 + 1) {
		t->n_processes = n;
		t->processes = arena_array(a, n, sizeof *one);
		for (unsigned i = 0; i < n; i++)
			t->processes[i] = *one;
		whole.len = g.buf.len = g.pieces = 0;
		encode_tree(&whole, t);
		OK(record_encode_to(&tree_schema, t, gather, &g, &err), &err);
		CHECK(g.buf.len == whole.len && !memcmp(g.buf.data, whole.data, whole.len));
	}
	CHECK(g.pieces > 1);
	g.limit = g.buf.len / 2;
	g.buf.len = 0;
	CHECK(record_encode_to(&tree_schema, t, gather, &g, &err) == -EFBIG);
	CHECK(g.buf.len < whole.len);
	buf_fini(&whole);
	buf_fini(&g.buf);
	arena_free(a);
}

/* Encoding what was decoded gives the same bytes: nothing was lost, and nothing invented. */
static void round_trip(void)
{
	struct arena *a = arena_new(), *b = arena_new();
	struct buf one = { 0 }, two = { 0 };
	struct err err = { 0 };
	struct tree *t = test_tree(a);
	struct tree *u;
	void *obj;

	OK(tree_check(t, &err), &err);
	encode_tree(&one, t);
	OK(record_decode(one.data, one.len, &tree_schema, b, &obj, &err), &err);
	u = obj;
	OK(tree_check(u, &err), &err);
	encode_tree(&two, u);
	CHECK(one.len == two.len && !memcmp(one.data, two.data, one.len));
	CHECK(u->n_processes == 1 && u->processes[0].n_threads == 2 &&
	      u->processes[0].threads[1].tid == 101);
	CHECK(!strcmp(u->processes[0].vmas[1].path, "[heap]") &&
	      u->processes[0].vmas[1].n_guards == 1);
	CHECK(u->host.boot_id && !*u->host.boot_id && !u->host.nodename); /* "" and NULL differ */
	CHECK(u->processes[0].threads[0].nice == -5 && u->processes[0].threads[0].syscall_nr == -1);
	CHECK(((struct file_pipe *)tree_file(u, 13)->detail)->packets[0].data.len == 1000);
	CHECK(((struct file_epoll *)tree_file(u, 12)->detail)->watches[0].data ==
	      0x1122334455667788u);
	buf_fini(&one);
	buf_fini(&two);
	arena_free(a);
	arena_free(b);
}

struct small {
	uint8_t a;
	uint16_t b;
	uint32_t c;
	int64_t d;
	char *s;
	struct small_part {
		uint32_t x, y;
	} * parts;
	unsigned n_parts;
	struct id128 id;
};

static const struct field part_fields[] = {
	{ "x", FIELD_U32, SHOW_DEC, offsetof(struct small_part, x), 0, NULL },
	{ "y", FIELD_U32, SHOW_DEC, offsetof(struct small_part, y), 0, NULL },
};
static const struct schema part_new = { "part", sizeof(struct small_part), part_fields, 2 };
static const struct schema part_old = { "part", sizeof(struct small_part), part_fields, 1 };
#define SMALL(sub)                                                                                 \
	{ "a", FIELD_U8, SHOW_DEC, offsetof(struct small, a), 0, NULL },                           \
		{ "b", FIELD_U16, SHOW_DEC, offsetof(struct small, b), 0, NULL },                  \
		{ "c", FIELD_U32, SHOW_DEC, offsetof(struct small, c), 0, NULL },                  \
		{ "parts",                                                                         \
		  FIELD_LIST,                                                                      \
		  SHOW_DEC,                                                                        \
		  offsetof(struct small, parts),                                                   \
		  offsetof(struct small, n_parts),                                                 \
		  sub },                                                                           \
		{ "d", FIELD_I64, SHOW_DEC, offsetof(struct small, d), 0, NULL },                  \
		{ "s", FIELD_STR, SHOW_DEC, offsetof(struct small, s), 0, NULL },                  \
	{                                                                                          \
		"id", FIELD_ID, SHOW_DEC, offsetof(struct small, id), 0, NULL                      \
	}
static const struct field new_fields[] = { SMALL(&part_new) };
static const struct field old_fields[] = { SMALL(&part_old) };
static const struct schema small_new = { "small", sizeof(struct small), new_fields, 7 };
static const struct schema small_old = { "small", sizeof(struct small), old_fields, 5 };

static struct small_part two_parts[] = { { 1, 2 }, { 3, 4 } };
static const struct small sample = {
	.a = 200,
	.b = 60000,
	.c = 7,
	.d = -8,
	.s = (char *)"str",
	.parts = two_parts,
	.n_parts = 2,
	.id = { { 5 } },
};

static struct small *pass(const struct schema *from, const struct schema *to, struct arena *arena)
{
	struct buf b = { 0 };
	struct err err = { 0 };
	void *obj;

	OK(record_encode(&b, from, &sample, &err), &err);
	OK(record_decode(b.data, b.len, to, arena, &obj, &err), &err);
	buf_fini(&b);
	return obj;
}

static void old_and_new(void)
{
	struct arena *arena = arena_new();
	struct small *o = pass(&small_old, &small_new, arena);

	CHECK(o->a == 200 && o->b == 60000 && o->c == 7 && o->d == -8 && !o->s && !o->id.b[0]);
	CHECK(o->n_parts == 2 && o->parts[1].x == 3 && o->parts[1].y == 0);
	o = pass(&small_new, &small_old, arena);
	CHECK(o->d == -8 && !o->s && o->n_parts == 2 && o->parts[0].x == 1 && o->parts[0].y == 0);
	o = pass(&small_new, &small_new, arena);
	CHECK(!strcmp(o->s, "str") && o->id.b[0] == 5 && o->parts[1].y == 4);
	arena_free(arena);
}

static void refuse(const uint8_t *data, size_t len, const struct schema *s, const char *msg)
{
	struct arena *arena = arena_new();
	struct err err = { 0 };
	void *obj = NULL;

	CHECK(record_decode(data, len, s, arena, &obj, &err) < 0 && !obj);
	CHECK(err.exit_status == EXIT_BAD_IMAGE);
	CHECK_MSG(&err, msg);
	arena_free(arena);
}

static void refusals(void)
{
	struct buf b = { 0 };
	struct err err = { 0 };
	uint8_t *copy;

	OK(record_encode(&b, &small_new, &sample, &err), &err);
	for (size_t len = 0; len < b.len; len++) {
		copy = malloc(
			len ? len
			    : 1); /* its own allocation, so that a sanitizer sees every overrun */
		memcpy(copy, b.data, len);
		refuse(copy, len, &small_new, "damaged");
		free(copy);
	}
	buf_put(&b, "x", 1);
	refuse(b.data, b.len, &small_new, "stray");
	b.len--;
	put_le32(b.data + 11, 0x40000000); /* the count of parts */
	refuse(b.data, b.len, &small_new, "'parts' is damaged (count exceeds");
	put_le32(b.data + 11, 2);
	put_le32(b.data + 15, 1000); /* the first part's length */
	refuse(b.data, b.len, &small_new, "'parts[0]' is damaged");
	put_le32(b.data + 15, 8);
	put_le32(b.data + 0, 10); /* ends inside of the list's count */
	refuse(b.data, 14, &small_new, "'parts' is damaged (cut short)");
	buf_fini(&b);
}

/* A count of empty records must not turn a small section into gigabytes. */
static void no_amplification(void)
{
	static const struct field fields[] = {
		{ "processes", FIELD_LIST, SHOW_DEC, offsetof(struct tree, processes),
		  offsetof(struct tree, n_processes), NULL },
	};
	struct schema tree = { "tree", sizeof(struct tree), fields, 1 };
	struct schema process = { "process", 800, fields, 0 };
	struct field with_sub = fields[0];
	struct buf b = { 0 };

	with_sub.sub = &process;
	tree.fields = &with_sub;
	buf_put32(&b, 4 + 4 * 100000);
	buf_put32(&b, 100000);
	memset(buf_add(&b, 400000), 0, 400000);
	refuse(b.data, b.len, &tree, "too much memory");
	buf_fini(&b);
}

/* Any byte changed in any way: refused or decoded, never out of bounds (run under a sanitizer to
 * see it). */
static void mutations(void)
{
	struct arena *a = arena_new();
	struct tree *t = test_tree(a);
	struct buf b = { 0 };
	unsigned seed = 1, refused = 0;

	encode_tree(&b, t);
	for (int i = 0; i < 20000; i++) {
		struct arena *to = arena_new();
		struct err err = { 0 };
		uint8_t *copy = malloc(b.len);
		void *obj = NULL;

		memcpy(copy, b.data, b.len);
		for (int k = 0; k <= i % 3; k++) {
			seed = seed * 1103515245 + 12345;
			copy[(seed >> 8) % b.len] = (uint8_t)(seed >> 3);
		}
		if (record_decode(copy, b.len, &tree_schema, to, &obj, &err) < 0 ||
		    tree_check(obj, &err) < 0) {
			CHECK(err.code < 0 && err.msg[0]);
			refused++;
		}
		free(copy);
		arena_free(to);
	}
	CHECK(refused > 1000);
	buf_fini(&b);
	arena_free(a);
}

int main(void)
{
	round_trip();
	in_pieces();
	old_and_new();
	refusals();
	no_amplification();
	mutations();
	return 0;
}
