/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Arena: a list of chunks, bump-allocated; big requests get a chunk of their own. The first chunk
 * is small, since many arenas serve one question only, and each next one twice as big.
 */
#include "util/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES (4 * 1024 - 64) /* with what the C library adds: a page */
#define CHUNK_BYTES (64 * 1024)
#define ALIGNMENT   16
#define PAGE_BYTES  4096

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(ALIGNMENT) unsigned char data[];
};

struct arena {
	struct chunk *head;
	size_t next; /* bytes of the next chunk */
};

struct arena *arena_new(void)
{
	struct arena *a = calloc(1, sizeof *a);

	if (a)
		a->next = FIRST_BYTES;
	return a;
}

void arena_free(struct arena *a)
{
	struct chunk *c, *next;

	if (!a)
		return;
	for (c = a->head; c; c = next) {
		next = c->next;
		free(c);
	}
	free(a);
}

static size_t aligned(size_t len)
{
	return (len + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

static struct chunk *new_chunk(size_t size)
{
	struct chunk *c = size > SIZE_MAX - sizeof *c ? NULL : calloc(1, sizeof *c + size);

	if (c)
		c->size = size;
	return c;
}

static struct chunk *add_chunk(struct arena *a, size_t need)
{
	bool own = need > a->next / 4;
	struct chunk *c = new_chunk(own ? need : a->next);

	if (!c)
		return NULL;
	/* one that will be full goes behind the head, which may still have room */
	if (own && a->head) {
		c->next = a->head->next;
		a->head->next = c;
		return c;
	}
	if (!own && a->next < CHUNK_BYTES)
		a->next *= 2;
	c->next = a->head;
	a->head = c;
	return c;
}

/* Without the memory all goes as it would have gone. */
void arena_warm(struct arena *a, size_t bytes)
{
	size_t size = aligned(bytes);
	struct chunk *c = size && size >= bytes ? new_chunk(size) : NULL;

	if (!c)
		return;
	for (size_t at = 0; at < c->size; at += PAGE_BYTES)
		((volatile unsigned char *)c->data)[at] = 0;
	c->next = a->head;
	a->head = c;
}

size_t arena_bytes(const struct arena *a)
{
	size_t sum = 0;

	for (const struct chunk *c = a->head; c; c = c->next)
		sum += c->used;
	return sum;
}

void *arena_alloc(struct arena *a, size_t len)
{
	struct chunk *c = a->head;
	size_t need = aligned(len);
	void *p;

	if (need < len)
		return NULL;
	if (!c || c->size - c->used < need)
		c = add_chunk(a, need);
	if (!c)
		return NULL;
	p = c->data + c->used;
	c->used += need;
	return p;
}

/* What was handed out last may grow where it stands. */
static bool extend(struct arena *a, const void *p, size_t len, size_t more)
{
	struct chunk *c = a->head;
	size_t had = aligned(len), wants = aligned(more) - had;

	if (!c || had > c->used || p != c->data + c->used - had || c->size - c->used < wants)
		return false;
	c->used += wants;
	return true;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
	size_t len;

	return __builtin_mul_overflow(n, size, &len) ? NULL : arena_alloc(a, len);
}

void *arena_memdup(struct arena *a, const void *p, size_t len)
{
	void *copy = arena_alloc(a, len);

	if (copy && len)
		memcpy(copy, p, len);
	return copy;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return s ? arena_memdup(a, s, strlen(s) + 1) : NULL;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	char *text = NULL, *copy;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return NULL;
	copy = arena_memdup(a, text, (size_t)n + 1);
	free(text);
	return copy;
}

/* Capacity is implied: arrays grow to the next power of two (at least 4) whenever n reaches one. */
void *arena_push(struct arena *a, void *array_ptr, unsigned *n, size_t size)
{
	void **array = array_ptr;
	unsigned have = *n;

	if (have == 0 || (have >= 4 && (have & (have - 1)) == 0)) {
		size_t want = have ? (size_t)have * 2 : 4;

		if (!have || !extend(a, *array, have * size, want * size)) {
			void *bigger = arena_array(a, want, size);

			if (!bigger)
				return NULL;
			if (have)
				memcpy(bigger, *array, have * size);
			*array = bigger;
		}
	}
	*n = have + 1;
	return (char *)*array + have * size;
}
