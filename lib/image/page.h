/* SPDX-License-Identifier: BSD-2-Clause */
/* One page of one process, as a resolved state has it. */
#pragma once

#include "image/chain.h"

/*
 * The 4096 bytes that process pid would see at address (rounded down to its page) after a restart.
 * An error says why there are none in the images: no such process or mapping, content that stays in
 * a mapped file, or the vdso.
 */
int page_read(const struct resolved *r, const struct tree *tree, int32_t pid, uint64_t address,
	      uint8_t ret[static CKPT_PAGE_SIZE], struct err *err);
