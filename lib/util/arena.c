/* SPDX-License-Identifier: BSD-2-Clause */
/* Arena: a list of chunks, bump-allocated; big requests get a chunk of their own. */
#include "util/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (64 * 1024)
#define ALIGNMENT   16

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(ALIGNMENT) unsigned char data[];
};

struct arena {
	struct chunk *head;
};

struct arena *arena_new(void)
{
	return calloc(1, sizeof(struct arena));
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

void *arena_alloc(struct arena *a, size_t len)
{
	struct chunk *c = a->head;
	size_t need = (len + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	void *p;

	if (need < len)
		return NULL;
	if (!c || c->size - c->used < need) {
		size_t size = need > CHUNK_BYTES ? need : CHUNK_BYTES;

		if (size > SIZE_MAX - sizeof *c)
			return NULL;
		c = calloc(1, sizeof *c + size);
		if (!c)
			return NULL;
		c->size = size;
		/* a full-size chunk goes behind the head, which may still have room */
		if (a->head && need > CHUNK_BYTES / 4) {
			c->next = a->head->next;
			a->head->next = c;
		} else {
			c->next = a->head;
			a->head = c;
		}
	}
	p = c->data + c->used;
	c->used += need;
	return p;
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
		void *bigger = arena_array(a, want, size);

		if (!bigger)
			return NULL;
		if (have)
			memcpy(bigger, *array, have * size);
		*array = bigger;
	}
	*n = have + 1;
	return (char *)*array + have * size;
}
