/* SPDX-License-Identifier: BSD-2-Clause */
/* Debug log by room: CKPT_DEBUG=inject,maps (or "all", or "help"); off unless asked for, to
 * standard error. */
#pragma once

#include <stdbool.h>

/* Reads CKPT_DEBUG; called once by each command. "help" lists the rooms and exits 0. */
void log_init(const char *program);
bool log_enabled(const char *room);
void log_write(const char *room, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A file says #define LOG_ROOM "inject" before it uses log_debug. */
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_enabled(LOG_ROOM))                                                         \
			log_write(LOG_ROOM, __VA_ARGS__);                                          \
	} while (0)
