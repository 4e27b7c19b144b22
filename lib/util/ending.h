/* SPDX-License-Identifier: BSD-2-Clause */
/* Is a process about to end? What is asked of those that may be in the way of a restart. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum ending {
	ENDING_NOT,    /* it goes on */
	ENDING_LEADER, /* its first thread ends or has, and others go on: by themselves, or not yet
			  killed: who is kept waiting looks ENDING_LOOKS times */
	ENDING_SOON,   /* killed, or on its way out */
	ENDING_DONE,   /* a zombie: somebody is to reap it */
	ENDING_GONE,
};
#define ENDING_LOOKS 20 /* 10 ms apart */

/* Of one thread, by the text of its /proc/TID/stat. */
bool ending_stat(const char *text);
/* *ret_start_time (NULL: not wanted), in ticks since boot, says with the id which process it is. */
enum ending ending_of(pid_t pid, uint64_t *ret_start_time);
