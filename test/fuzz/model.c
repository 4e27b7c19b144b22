/* SPDX-License-Identifier: BSD-2-Clause */
/* The invented job's pages and ids: pure functions of space, page and generation. */
#include "model.h"

#include "util/bytes.h"

#include <string.h>

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t x = a * 0x9e3779b97f4a7c15u ^ b * 0xc2b2ae3d27d4eb4fu ^ c * 0x165667b19e3779f9u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static unsigned birth(uint32_t space)
{
	return space == 5 ? 2 : 1;
}

bool model_has_space(const struct model *m, uint32_t space, unsigned g)
{
	(void)m;
	return g >= birth(space) && !(space == 4 && g >= 4);
}

uint64_t model_page_number(const struct model *m, uint32_t space, unsigned index)
{
	if (space == 3 || space == 4)
		return index;
	/* two halves far apart, as a heap and a stack are */
	return index < m->pages / 2 ? 0x400 + index : 0x7ffff0000u + index;
}

enum model_page model_page(const struct model *m, uint32_t space, unsigned index, unsigned g,
			   unsigned *ret_since)
{
	unsigned first = birth(space);

	(void)m;
	/* neighbours share their fate by threes, so that runs are of different lengths */
	while (g > first && mix(space, index / 3, g) % 5 != 0)
		g--;
	*ret_since = g;
	switch (mix(space + 100, index / 2, g) % 10) {
	case 0:
		return PAGE_ZERO;
	case 1:
	case 2:
		return PAGE_ABSENT;
	default:
		return PAGE_DATA;
	}
}

void model_content(uint32_t space, unsigned index, unsigned since,
		   uint8_t ret[static CKPT_PAGE_SIZE])
{
	uint64_t seed = mix(space, index, since + 1000);

	memset(ret, (int)(seed % 255 + 1), CKPT_PAGE_SIZE);
	for (unsigned i = 0; i < CKPT_PAGE_SIZE / 2; i += 8)
		put_le64(ret + i, mix(seed, i, 1));
}

struct id128 model_state_id(unsigned g)
{
	struct id128 id;

	put_le64(id.b, mix(g, 1, 1));
	put_le64(id.b + 8, mix(g, 2, 2));
	return id;
}
