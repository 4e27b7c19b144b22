/* SPDX-License-Identifier: BSD-2-Clause */
/* Where restored pages go: a process's memory, or the file behind a shared space. */
#pragma once

#include "restore/internal.h"

struct sink {
	int fd;              /* /proc/PID/mem (borrowed), or the space's file (ours) */
	pid_t pid;           /* 0: a file */
	int uffd;            /* -1: none */
	struct range *fresh; /* memory that it fills: each within one mapping, ascending */
	unsigned n_fresh;
};

/* A process whose mappings have been made and are empty but for a page here and there. */
int sink_open_process(struct sink *s, struct build_process *bp, struct err *err);
/* Whole pages to an address, or to an offset in the file. Thread-safe. */
int sink_put(const struct sink *s, uint64_t at, const uint8_t *p, size_t len, struct err *err);
/* Accepts one that sink_open_process failed on. */
void sink_close(struct sink *s);
/* Our own copy of a descriptor of a process's, or a negative errno. */
int sink_fetch_fd(pid_t pid, int fd);
