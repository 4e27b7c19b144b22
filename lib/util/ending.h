/* SPDX-License-Identifier: BSD-2-Clause */
/* Is a process about to end, or stopped? What is asked of those that somebody waits for. */
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
/* By a signal or a tracer: its threads will do nothing until somebody continues it. */
bool process_is_stopped(pid_t pid);
