/* SPDX-License-Identifier: BSD-2-Clause */
/* What a fuzz target is to libFuzzer, and to replay.c, which runs a target over files without it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Counts the inputs that were accepted as good, so that a seed which has gone stale is noticed. */
extern unsigned long fuzz_accepted;
