/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing to a tracee's memory where it may not write itself. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Through /proc/PID/mem (mem_fd); where the kernel lets nobody write to read-only memory that way
 * (proc_mem.force_override=never, or =ptrace and we are not the tracer), word by word with
 * PTRACE_POKEDATA. tid: a thread of the process that the calling thread traces, stopped. 0 or
 * -errno.
 */
int poke_write(pid_t tid, int mem_fd, const void *p, size_t len, uint64_t addr);
