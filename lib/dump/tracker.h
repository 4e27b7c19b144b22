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
struct tracker;

int tracker_new(int dirfd, struct tracker **ret, struct err *err);
void tracker_free(struct tracker *t);
/* Starts a new table; with_old: pages will be compared. */
int tracker_begin(struct tracker *t, bool with_old, struct err *err);
/* Notes a page's hash (pages come in ascending order of space, then page); true if the old table
 * has the same. */
bool tracker_same(struct tracker *t, uint32_t space, uint64_t page, struct hash128 h);
/* The new table becomes the old one; -errno if it could not be written in full. */
int tracker_commit(struct tracker *t, struct err *err);
/* Keeps the old one. */
void tracker_abort(struct tracker *t);
