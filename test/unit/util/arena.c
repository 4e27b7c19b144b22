/* SPDX-License-Identifier: BSD-2-Clause */
/* Arenas: what is handed out is zero, aligned and nobody else's, however arrays grow in between. */
#include "util/arena.h"

#include "../check.h"

#include <stdint.h>

static void fill(unsigned char *p, size_t len, unsigned char with)
{
	for (size_t i = 0; i < len; i++)
		CHECK(p[i] == 0);
	memset(p, with, len);
}

static void check(const unsigned char *p, size_t len, unsigned char with)
{
	for (size_t i = 0; i < len; i++)
		CHECK_INT(p[i], with);
}

static void test_sizes(void)
{
	static const size_t sizes[] = { 0, 1, 15, 16, 17, 1000, 1024, 4032, 5000, 20000, 70000 };
	enum { N = 400 };
	struct arena *a = arena_new();
	unsigned char *p[N];

	for (unsigned i = 0; i < N; i++) {
		size_t len = sizes[i * 7 % (sizeof sizes / sizeof sizes[0])];

		p[i] = arena_alloc(a, len);
		CHECK(p[i] && (uintptr_t)p[i] % 16 == 0);
		fill(p[i], len, (unsigned char)(i + 1));
	}
	for (unsigned i = 0; i < N; i++)
		check(p[i], sizes[i * 7 % (sizeof sizes / sizeof sizes[0])],
		      (unsigned char)(i + 1));
	CHECK(!arena_alloc(a, SIZE_MAX) && !arena_alloc(a, SIZE_MAX - 16));
	CHECK(!arena_array(a, SIZE_MAX / 2, 3));
	arena_free(a);
}

static void test_warm(void)
{
	struct arena *a = arena_new();
	unsigned char *p, *q;

	CHECK(arena_bytes(a) == 0);
	p = arena_alloc(a, 100);
	arena_warm(a, 0);
	arena_warm(a, SIZE_MAX);
	CHECK(arena_bytes(a) == 112);
	arena_warm(a, 10000);
	CHECK(arena_bytes(a) == 112);
	q = arena_alloc(a, 10000);
	CHECK(p && q && arena_bytes(a) == 10112);
	check(p, 100, 0);
	check(q, 10000, 0);
	fill(q, 10000, 1);
	p = arena_alloc(a, 100);
	CHECK(p && (p < q || p >= q + 10000));
	arena_free(a);
}

struct element {
	unsigned char bytes[40];
};

/* Two arrays that grow in turn, each in runs, so that they grow in place and by moving. */
static void test_push(unsigned in_a_row)
{
	struct arena *a = arena_new();
	struct element *v[2] = { NULL, NULL };
	unsigned n[2] = { 0, 0 };

	for (unsigned i = 0; i < 3000; i++) {
		unsigned k = i / in_a_row % 2;
		struct element *e = arena_push(a, &v[k], &n[k], sizeof *e);

		CHECK(e == &v[k][n[k] - 1]);
		fill(e->bytes, sizeof e->bytes, (unsigned char)(n[k] + k));
	}
	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = 0; i < n[k]; i++)
			check(v[k][i].bytes, sizeof v[k][i].bytes, (unsigned char)(i + 1 + k));
	CHECK_INT(n[0] + n[1], 3000);
	arena_free(a);
}

static void test_text(void)
{
	struct arena *a = arena_new();

	CHECK(!arena_strdup(a, NULL));
	CHECK_STR(arena_strdup(a, "one"), "one");
	CHECK_STR(arena_printf(a, "%d of %s", 2, "two"), "2 of two");
	arena_free(a);
	arena_free(NULL);
}

int main(void)
{
	test_sizes();
	test_warm();
	test_push(1);
	test_push(5);
	test_push(3000);
	test_text();
	return 0;
}
