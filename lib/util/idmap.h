/* SPDX-License-Identifier: BSD-2-Clause */
/* A map from ids (process ids, say) to small numbers: what would else be a search through a list.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct idmap_slot {
	int32_t id; /* 0: free */
	uint32_t value;
};

/* All zero is an empty map. Ids are not 0. */
struct idmap {
	struct idmap_slot *slots;
	uint32_t n, size; /* size: a power of two */
};

void idmap_fini(struct idmap *m);
/* Adds the id, or gives it another value. -ENOMEM. */
int idmap_put(struct idmap *m, int32_t id, uint32_t value);
/* False if the id is not there. ret may be NULL. */
bool idmap_get(const struct idmap *m, int32_t id, uint32_t *ret);
