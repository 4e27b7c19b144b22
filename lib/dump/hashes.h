/* SPDX-License-Identifier: BSD-2-Clause */
/* Page hashes of the last durable state: which pages are as in the parent. */
#pragma once

#include "util/err.h"
#include "util/hash.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The table lies in unlinked files in the chain's directory, read and written in page order, so
 * that memory use does not grow with the job. A checkpoint writes a new table while it reads the
 * old one; commit makes it the old.
 */
struct hashes;

int hashes_new(int dirfd, struct hashes **ret, struct err *err);
void hashes_free(struct hashes *t);
/* Starts a new table; with_old: pages will be compared. */
int hashes_begin(struct hashes *t, bool with_old, struct err *err);
/* Within a checkpoint pages may come in two passes, each ascending, that have no page in common:
 * begins the second one. */
int hashes_second_pass(struct hashes *t, struct err *err);
/* Notes a page's hash (pages come in ascending order of space, then page); true if the old table
 * has the same. */
bool hashes_same(struct hashes *t, uint32_t space, uint64_t page, struct hash128 h);
/* The new table becomes the old one; -errno if it could not be written in full. */
int hashes_commit(struct hashes *t, struct err *err);
/* Keeps the old one. */
void hashes_abort(struct hashes *t);
