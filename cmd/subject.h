/* SPDX-License-Identifier: BSD-2-Clause */
/* The CHAIN|IMAGE operand of ckpt-inspect and ckpt-merge: which of the two it is, and the image
 * that is meant. */
#pragma once

#include "image/chain.h"
#include "options.h"

#include <limits.h>

struct subject {
	const char *path;    /* as given */
	struct chain *chain; /* scanned; NULL: the operand is an image */
	const struct chain_entry
		*entry;      /* of the chain: --at, or the newest complete; NULL: there is none */
	char name[PATH_MAX]; /* the image's, for messages: "CHAIN/000003.img" or the operand */
};

/* The single operand; misuse when there are none or more. */
const char *subject_operand(const struct options *o);
/*
 * Opens the chain (in that mode) and picks the image: number at, or with at < 0 the newest complete
 * one. Without a complete image entry stays NULL; a number that is not there is an error, and so is
 * `at` with an image.
 */
int subject_open(struct subject *s, const char *path, enum chain_mode mode, int64_t at,
		 struct err *err);
void subject_fini(struct subject *s);
/* Resolves the image along its parents; an error when there is no entry. */
int subject_resolve(const struct subject *s, struct resolved **ret, struct err *err);
/* Says what to do about too many open files; returns rc. */
int subject_hint_emfile(int rc, struct err *err);
/* The error of a chain without an entry. */
int subject_no_image(const struct subject *s, struct err *err);
/* Enters the sandbox; goes on without it where there is none, and says so if verbose. */
void subject_sandbox(const struct options *o, int profile);

/* For CLEANUP(). */
static inline void free_reader(struct image_reader **r)
{
	image_reader_free(*r);
}

static inline void free_resolved(struct resolved **r)
{
	resolved_free(*r);
}

static inline void free_arena(struct arena **a)
{
	arena_free(*a);
}
