/* SPDX-License-Identifier: BSD-2-Clause */
/* The labelled lines below a mapping in /proc/PID/smaps. */
#pragma once

#include "proc/proc.h"

/* Takes what line says into *m; a label that is not known is skipped. */
void smaps_line(char *line, struct proc_map *m);
