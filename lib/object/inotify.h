/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the inode of an inotify watch lies in the file system. */
#pragma once

#include "object/object.h"

/* Sets the path of every watch that it can be found for; the others stay NULL. */
int inotify_find_paths(struct capture *c, const struct open_file *of, struct file_inotify *d,
		       struct err *err);
