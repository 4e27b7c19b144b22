/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the inode of an inotify watch lies in the file system. */
#pragma once

#include "object/object.h"

/* Sets the path of every watch that it can be found for; the others stay NULL. */
int inotify_find_paths(struct capture *c, const struct open_file *of, struct file_inotify *d,
		       struct err *err);
/* inotify_lost.c: leaves an IN_Q_OVERFLOW event in the queue, which is empty, by way of a file of
 * ours. */
int inotify_tell_lost(int fd, int spare, const char *spare_path, struct err *err);
