/* SPDX-License-Identifier: BSD-2-Clause */
/* Arena: allocations that live and die together; what a captured or decoded state is made of. */
#pragma once

#include <stddef.h>

struct arena;

/* NULL when out of memory. */
struct arena *arena_new(void);
/* What is handed out next, so many bytes of it, lies in memory that is there (no page faults). */
void arena_warm(struct arena *a, size_t bytes);
/* All that has been handed out so far. */
size_t arena_bytes(const struct arena *a);
/* Frees everything that came from it. Accepts NULL. */
void arena_free(struct arena *a);
/* Zeroed, 16-byte aligned memory; NULL when out of memory. len 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, size_t len);
/* n * size with overflow check. */
void *arena_array(struct arena *a, size_t n, size_t size);
void *arena_memdup(struct arena *a, const void *p, size_t len);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * Appends room for one more element to an array of *n elements of size bytes that came from a (or
 * is NULL); grows by doubling. Returns the zeroed new element, or NULL when out of memory (array
 * unchanged).
 */
void *arena_push(struct arena *a, void *array_ptr, unsigned *n, size_t size);
