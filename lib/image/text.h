/* SPDX-License-Identifier: BSD-2-Clause */
/* The human form of an image and of a chain's listing. */
#pragma once

#include "image/view.h"

/*
 * Each prints one section. Names from the image are shown with control characters and invalid UTF-8
 * written as \xNN, so that a hostile image cannot drive the terminal. Errors of the stream are left
 * in it for the caller (ferror).
 */
void text_summary(FILE *f, const struct image_view *v, int64_t now_ns);
void text_processes(FILE *f, const struct image_view *v);
void text_threads(FILE *f, const struct image_view *v);
void text_segments(FILE *f, const struct image_view *v);
void text_files(FILE *f, const struct image_view *v);
void text_chain(FILE *f, const struct chain_view *c);

/* "1.5 MiB" */
const char *text_size(char buf[static 16], uint64_t bytes);
/* "14s", "3m12s", "2h05m", "3d04h" */
const char *text_duration(char buf[static 16], int64_t ns);
