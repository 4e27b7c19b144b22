/* SPDX-License-Identifier: BSD-2-Clause */
/* What the benchmark's programs share: a log of the gaps in which they did not run, and orders. */
#pragma once

#include <stdint.h>

/*
 * A program is started as `bench-NAME LOG ...`. It appends to the file LOG:
 *
 *	ready PID		once it has set itself up
 *	gap START END		it did not run between these two times (CLOCK_REALTIME, ns)
 *	done ORDER		it has carried out an order: signal SIGRTMIN+ORDER
 *
 * The log is open only while a line is written: the program's own files are not what is measured.
 * And its clock is CLOCK_REALTIME, which goes on over a restart and means the same in every
 * namespace.
 */
enum {
	ORDER_NONE = 0,
	ORDER_DIRTY_10, /* change 10 % of the pages */
	ORDER_DIRTY_1,
	ORDER_VERIFY, /* look whether all is as it was set up; what is not ends the program */
	ORDER_DIRTY_50,
	ORDER_DIRTY_ALL,
	N_ORDERS,
};

void gap_start(const char *log);
/* To be called all the time; returns the order that has come, or ORDER_NONE. */
int gap_tick(void);
void gap_done(int order);
/* From `ready` on, for a program that only stands there: carries out no order but ORDER_VERIFY. */
_Noreturn void gap_serve(const char *log, void (*verify)(void));
_Noreturn void gap_bad(const char *what);

/* A well mixed function of x. */
uint64_t gap_mix(uint64_t x);
/* Like strtoul, whole and not 0; else wrong usage ends the program. */
unsigned long gap_number(int argc, char **argv, int i);
