/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON form of an image and of a chain's listing: every field of the schemas, under the
 * schemas' names. */
#pragma once

#include "image/view.h"

/*
 * Numbers are JSON numbers, except that what is written in hexadecimal by habit (addresses, masks,
 * flags) and octal (modes) are strings "0x..." and "0...". Ids and binary data are strings of
 * hexadecimal digits, a NULL string or detail is null. A byte of a path that is not part of valid
 * UTF-8 becomes the lone surrogate U+DC00 + byte, which is what Python's os.fsdecode() gives too.
 * Kinds come twice: as number and, named kind_name, in words.
 *
 * Errors of the stream are left in it for the caller to find (ferror).
 */

/* {"chain": {...} or absent, "image": {...} or absent, "tree": {...} or absent}; either view may be
 * NULL. */
void json_print(FILE *f, const struct chain_view *chain, const struct image_view *image);
