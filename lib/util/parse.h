/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers, times and sizes as users write them: parsed whole, with range. */
#pragma once

#include <stdint.h>

/* TIME: "60", "1.5", "30s", "5m", "2h", "1d" -> nanoseconds; 0 or -EINVAL/-ERANGE. */
int parse_time(const char *s, uint64_t *ret_ns);
/* SIZE: "4096", "64K", "1M", "2G", "1T" (powers of 1024) -> bytes. */
int parse_size(const char *s, uint64_t *ret_bytes);
/* A decimal integer between min and max. */
int parse_int(const char *s, int64_t min, int64_t max, int64_t *ret);
