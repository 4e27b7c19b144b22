/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside the chain: the directory, its lock, and what the last scan found. */
#pragma once

#include "image/chain.h"

#include <sys/types.h>
#include <time.h>

/* An image, and the file that it was read from: what has not changed since is not read again. */
struct chain_item {
	struct chain_entry e;
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct chain {
	char *path;
	int dir, lock;
	struct chain_item *items; /* ascending by number */
	unsigned n_items;
	uint64_t highest; /* number seen in a name */
	pid_t locker;     /* who has the lock */
	char job[128];    /* the lock's second line, "" when there is none */
	char *kin;        /* the lines behind it: other processes of the job; NULL: none */
};

int chain_lock(struct chain *c, struct err *err);
/* The number in "000001.img"; 0 when the name is none of ours. */
uint64_t chain_name_seq(const char *name);
int chain_sync_dir(const struct chain *c, struct err *err);
