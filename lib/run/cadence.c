/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974;
 * J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS
 * 22(3), 2006.
 */
#include "run/cadence.h"

#include "run/schedule.h"
#include "util/cleanup.h"

#include <math.h>
#include <string.h>

#define FIRST_COST_NS UINT64_C(10000000)
/* Below it the job would do little else. */
#define SHORTEST_NS UINT64_C(100000000)
/* The first write to a watched page, and to one that a snapshot has too. */
#define WATCHED_NS 1000
#define COPIED_NS  2500

uint64_t cadence_interval(uint64_t cost_ns, uint64_t mtbf_ns, uint32_t max_overhead)
{
	double c = (double)cost_ns, m = (double)mtbf_ns, best = m, least = 0;

	if (c < 2 * m) {
		double x = c / (2 * m);

		best = sqrt(2 * c * m) * (1 + sqrt(x) / 3 + x / 9) - c;
	}
	if (max_overhead)
		least = c * (1e6 - (double)max_overhead) / (double)max_overhead;
	best = MAX(best, MAX(least, (double)SHORTEST_NS));
	return best < (double)(SCHEDULE_NEVER / 2) ? (uint64_t)best : SCHEDULE_NEVER / 2;
}

uint64_t cadence_cost(const struct dump_result *r, uint64_t cpu_ns, unsigned n_cpus)
{
	uint64_t fault = !strcmp(r->mode, "snapshot") ? COPIED_NS : WATCHED_NS;

	return r->pause_us * 1000 + cpu_ns / MAX(n_cpus, 1u) +
	       (r->incremental ? r->totals.pages_written * fault : 0);
}

void cadence_note(struct cadence *c, bool incremental, bool failed, uint64_t cost_ns)
{
	uint64_t *known = incremental ? &c->increment_ns : &c->full_ns;

	if (failed && cost_ns <= (*known ? *known : FIRST_COST_NS))
		return;
	*known = MAX(*known ? *known / 2 + cost_ns / 2 : cost_ns, UINT64_C(1));
}

uint64_t cadence_mean(const struct cadence *c, const struct settings *s)
{
	uint64_t full = c->full_ns ? c->full_ns : FIRST_COST_NS, increment = c->increment_ns;

	if (!s->incremental)
		return full;
	if (!increment) /* about to be known; most likely it is far cheaper */
		increment = MIN(full, FIRST_COST_NS);
	if (!s->full_every || !c->full_ns)
		return increment;
	return full / s->full_every + increment / s->full_every * (s->full_every - 1);
}

uint64_t cadence_next(const struct cadence *c, const struct settings *s)
{
	return cadence_interval(cadence_mean(c, s), s->mtbf_ns, s->max_overhead);
}
