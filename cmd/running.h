/* SPDX-License-Identifier: BSD-2-Clause */
/* ckpt-inspect --pid: says of a running tree whether it can be checkpointed. */
#pragma once

#include "util/err.h"

#include <stdbool.h>
#include <sys/types.h>

/* Prints the answer; ret_can: it can be checkpointed as far as is known. */
int running_inspect(pid_t pid, bool json, bool *ret_can, struct err *err);
