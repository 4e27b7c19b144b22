/* SPDX-License-Identifier: BSD-2-Clause */
/* The GNU build id of an ELF file: what tells one build of a mapped library from another. */
#pragma once

#include "state/schema.h"
#include "util/arena.h"

/* Leaves *ret empty when the file is no ELF file or carries no id. */
void proc_build_id(int fd, struct arena *a, struct blob *ret);
