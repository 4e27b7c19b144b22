/* SPDX-License-Identifier: BSD-2-Clause */
/* What the image tests share: checks that end the test, a scratch directory, a tree, and pages of
 * known content. */
#pragma once

#include "image/reader.h"
#include "image/writer.h"
#include "state/tree.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CHECK(cond) ((cond) ? (void)0 : test_fail(__FILE__, __LINE__, #cond, NULL))
/* rc is 0, or the error's message is the test's. */
#define OK(call, err) \
	((call) == 0 ? (void)0 : test_fail(__FILE__, __LINE__, #call, (err)->msg))
#define CHECK_MSG(err, text) test_check_msg(__FILE__, __LINE__, (err), (text))

_Noreturn void test_fail(const char *file, int line, const char *what, const char *why);
void test_check_msg(const char *file, int line, const struct err *err, const char *text);

/* A fresh directory below the build's, which is the working directory from then on; removed at exit
 * when all is well. */
const char *test_dir(void);

/* Until the caller is this process's only thread: one that has been joined is there still, for a
 * moment, which on a busy machine is long. */
void test_alone(void);

/* How many files the working directory has. */
unsigned count_files(void);

/* Content of page `page` of a space in generation gen: of a kind that is random, text, or zero. */
enum content { CONTENT_RANDOM, CONTENT_TEXT, CONTENT_ZERO };
void fill_page(uint8_t *to, enum content how, uint32_t space, uint64_t page, uint32_t gen);
struct id128 test_id(uint32_t n);

/*
 * A tree with one process, two threads, and something of each kind of record. Spaces 1 (memory), 2
 * (shared, 4 MiB), 3 (deleted file, 1 MiB). Lives in the arena.
 */
struct tree *test_tree(struct arena *a);

/* One page through image_writer_buffer and image_writer_submit. */
int put_page(struct image_writer *w, uint32_t space, uint64_t page, const uint8_t *data,
	     struct err *err);
/* The whole of a file; the caller frees. */
uint8_t *slurp(const char *path, size_t *ret_len);
void spill(const char *path, const void *data, size_t len);
/* The content of a page as one image has it (kind of its run; 0 = absent). */
unsigned read_page(struct image_reader *r, uint32_t space, uint64_t page, uint8_t *to);
/* Recomputes header, directory and trailer checksums of an image that was tampered with. */
void fix_sums(uint8_t *image, size_t len);
