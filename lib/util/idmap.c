/* SPDX-License-Identifier: BSD-2-Clause */
/* A map from ids to small numbers: open addressing, never more than half full. */
#include "util/idmap.h"

#include <errno.h>
#include <stdlib.h>

void idmap_fini(struct idmap *m)
{
	free(m->slots);
	*m = (struct idmap){ 0 };
}

static struct idmap_slot *slot_of(const struct idmap *m, int32_t id)
{
	uint32_t at = (uint32_t)id * UINT32_C(2654435761) >> 7;

	while (m->slots[at & (m->size - 1)].id && m->slots[at & (m->size - 1)].id != id)
		at++;
	return &m->slots[at & (m->size - 1)];
}

static int grow(struct idmap *m)
{
	struct idmap bigger = { .size = m->size ? m->size * 2 : 64, .n = m->n };

	bigger.slots = calloc(bigger.size, sizeof *bigger.slots);
	if (!bigger.slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->size; i++)
		if (m->slots[i].id)
			*slot_of(&bigger, m->slots[i].id) = m->slots[i];
	free(m->slots);
	*m = bigger;
	return 0;
}

int idmap_put(struct idmap *m, int32_t id, uint32_t value)
{
	struct idmap_slot *s;

	if (m->n * 2 >= m->size && grow(m) < 0)
		return -ENOMEM;
	s = slot_of(m, id);
	m->n += s->id == 0;
	*s = (struct idmap_slot){ id, value };
	return 0;
}

bool idmap_get(const struct idmap *m, int32_t id, uint32_t *ret)
{
	const struct idmap_slot *s = m->size ? slot_of(m, id) : NULL;

	if (!s || !s->id)
		return false;
	if (ret)
		*ret = s->value;
	return true;
}
