/* SPDX-License-Identifier: BSD-2-Clause */
/* How the job ended, and what follows from it: our exit status, and the chain's mark. */
#pragma once

#include "run/supervise.h"

/* Learns how the ended root ended, and reaps what is ours. No attempt may be under way. */
void ended_take(const struct supervise_opts *o, struct supervise_end *end);
