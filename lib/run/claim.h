/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking a chain for a new job: what is in it already decides. */
#pragma once

#include "image/chain.h"

struct claim {
	struct chain *chain;
	bool created; /* the directory is ours: it goes again if it stays empty */
	bool replace; /* old images are still there, to go once there is a new one */
};

/*
 * Opens the chain, creating it, and takes its lock. What a finished job left is removed, and with
 * overwrite what an unfinished one left; without, that is an error which names both ways out. late:
 * leave the removing to after the first new image (for a job that we do not start, which has
 * nothing else to fall back on).
 */
int claim_chain(struct claim *c, const char *dir, bool overwrite, bool late, struct err *err);
/* Gives the lock back; removes the directory if it was created and nothing came into it. Accepts a
 * zeroed claim. */
void claim_release(struct claim *c);
