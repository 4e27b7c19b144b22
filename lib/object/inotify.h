/* SPDX-License-Identifier: BSD-2-Clause */
/* inotify(7): what is lost of it. */
#pragma once

#include "object/object.h"

/* inotify_lost.c: leaves an IN_Q_OVERFLOW event in the queue, which is empty, by way of a file of
 * ours. */
int inotify_tell_lost(int fd, int spare, const char *spare_path, struct err *err);
