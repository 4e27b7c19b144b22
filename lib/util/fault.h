/* SPDX-License-Identifier: BSD-2-Clause */
/* Fault points: named places at which a test can make an operation fail, or kill the program. */
#pragma once

#include "util/err.h"

#include <sys/types.h>

/*
 * CKPT_FAULT=N          the N-th fault point that is passed fails with "injected fault 'NAME'"
 * CKPT_FAULT=NAME       the first pass of NAME fails;  NAME:K  its K-th pass
 * CKPT_FAULT=NAME=kill  SIGKILL to ourselves there (also N=kill, NAME:K=kill)
 * CKPT_FAULT=NAME=killall  the same, in a tracing process to it and to ckpt-run
 * CKPT_FAULT=NAME=stop  SIGSTOP to ourselves there
 * CKPT_FAULT=list       prints each point's name on standard error as it is passed
 *
 * Returns 0, or -EIO with the message set. Costs one test of a static flag when CKPT_FAULT is
 * unset.
 */
#define fault_point(name, err) (fault_armed ? fault_hit((name), (err)) : 0)

extern int fault_armed;
void fault_init(void);
/* The process that =kill is for: a tracing process's parent. */
void fault_program(pid_t pid);
int fault_hit(const char *name, struct err *err);
