/* SPDX-License-Identifier: BSD-2-Clause */
/* The invariants of a tree: checked before an image is written and after one is read. */
#pragma once

#include "state/tree.h"
#include "util/err.h"

/*
 * Ids are unique and resolve, ranges are ordered and aligned, kinds are known, what must be there
 * is there (a message says which part of the tree is wrong). Whatever passes can be walked without
 * further checks of this sort. 0 or -EBADMSG (EXIT_BAD_IMAGE), -ENOMEM.
 */
int tree_check(const struct tree *t, struct err *err);
