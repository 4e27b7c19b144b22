/* SPDX-License-Identifier: BSD-2-Clause */
/* Length of the valid UTF-8 sequence at the start of a string, so that printed names cannot hide
 * what they are. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* 0 if s does not begin with a valid, shortest-form sequence; *ret_char is set otherwise. s is
 * NUL-terminated. */
static inline unsigned utf8_sequence(const char *s, uint32_t *ret_char)
{
	const uint8_t *p = (const uint8_t *)s;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned len = p[0] < 0x80   ? 1
		       : p[0] < 0xc0 ? 0
		       : p[0] < 0xe0 ? 2
		       : p[0] < 0xf0 ? 3
		       : p[0] < 0xf8 ? 4
				     : 0;
	uint32_t c;

	if (len <= 1) {
		*ret_char = p[0];
		return len;
	}
	c = p[0] & (0x7fu >> len);
	for (unsigned i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*ret_char = c;
	return len;
}
