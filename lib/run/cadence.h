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

/* What full images and increments cost, as measured so far. Zeroed: nothing yet. */
struct cadence {
	uint64_t full_ns, increment_ns;
};

/*
 * What the job felt of a checkpoint: its pause; the processors' time that was spent on writing,
 * which it might have had (cpu_ns, of n_cpus); and a first write's fault for each page that was
 * found changed.
 */
uint64_t cadence_cost(const struct dump_result *r, uint64_t cpu_ns, unsigned n_cpus);
/*
 * The newest of its kind counts for half. One that failed has cost the job, too, but maybe less
 * than one that succeeds: it can only raise the estimate.
 */
void cadence_note(struct cadence *c, bool incremental, bool failed, uint64_t cost_ns);
/* On average, with a full image every so often; before any has been measured, a cheap one. */
uint64_t cadence_mean(const struct cadence *c, const struct settings *s);
uint64_t cadence_next(const struct cadence *c, const struct settings *s);
