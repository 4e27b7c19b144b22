/* SPDX-License-Identifier: BSD-2-Clause */
/* --interval auto: how often checkpoints pay, from what they cost this job and how often it fails.
 */
#pragma once

#include "dump/dump.h"

#include <stdint.h>

/*
 * The best time between two checkpoints that cost cost_ns each when failures come every mtbf_ns on
 * average: Young's square root of 2 C M, with Daly's correction. max_overhead: the part of the
 * job's time that checkpoints may take, in millionths (0: no bound), which may make it longer.
 */
uint64_t cadence_interval(uint64_t cost_ns, uint64_t mtbf_ns, uint32_t max_overhead);

/* What checkpoints cost, as measured so far. Zeroed: nothing yet. */
struct cadence {
	uint64_t cost_ns;
	unsigned n;
};

/*
 * What the job felt of a checkpoint: its pause; the processors' time that was spent on writing,
 * which it might have had (cpu_ns, of n_cpus); and a first write's fault for each page that was
 * found changed.
 */
uint64_t cadence_cost(const struct dump_result *r, uint64_t cpu_ns, unsigned n_cpus);
/* The newest counts for half. */
void cadence_note(struct cadence *c, uint64_t cost_ns);
/* The next interval; before any has been measured, one that suits a cheap checkpoint. */
uint64_t cadence_next(const struct cadence *c, const struct settings *s);
