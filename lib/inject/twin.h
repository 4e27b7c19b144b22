/* SPDX-License-Identifier: BSD-2-Clause */
/* A process that shares our memory, made by clone3(2): the C library can make none with a given id.
 */
#pragma once

#include <linux/sched.h>

/* args says which stack it runs on, main in it. Its pid, or -1 and errno. errno, like all that is
 * thread-local, is one for both. */
long twin_clone(struct clone_args *args, void (*main)(void *arg), void *arg);
