/* SPDX-License-Identifier: BSD-2-Clause */
/* Sandbox: gives up nearly all system calls before a program looks into an image that it has no
 * reason to trust. */
#pragma once

#include "util/err.h"

enum sandbox_profile {
	SANDBOX_READ,  /* read and seek on what is open, memory, write to standard output and error
			*/
	SANDBOX_MERGE, /* the same, and write, sync, rename and unlink (for threads that are running
			  already) */
};

/*
 * Enters the sandbox for good, with all threads of the process. From here on nothing can be opened:
 * what a program needs (files, directories, the time zone, its threads) it gets before. Opening a
 * file, starting a program, making a socket and the like kill the process; every other call that is
 * not needed fails with EPERM.
 *
 * Returns a negative errno where the kernel (or a container) does not let a process filter itself:
 * nothing has been changed then, and the caller decides whether to go on.
 */
int sandbox_enter(enum sandbox_profile profile, struct err *err);
