/* SPDX-License-Identifier: BSD-2-Clause */
/* A chain: the directory of one job's images, its lock, its finished mark; and a state resolved
 * along it. */
#pragma once

#include "image/reader.h"
#include "util/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct chain;

enum chain_mode {
	CHAIN_CREATE, /* make the directory (0700) if missing; write lock */
	CHAIN_WRITE,  /* must exist; write lock (ckpt-restart, ckpt-merge) */
	CHAIN_READ,   /* must exist; no lock */
};

/*
 * Opens DIR. The lock is flock(LOCK_EX|LOCK_NB) on DIR/lock, which holds "PID NAME" of its holder
 * for the message "chain 'DIR' is in use by ckpt-run (pid 123)" (-EBUSY). Leftover temporary files
 * are removed by writers. The lock's descriptor is close-on-exec and must not be left to forked
 * children that outlive the command.
 */
int chain_open(const char *dir, enum chain_mode mode, struct chain **ret, struct err *err);
void chain_free(struct chain *c);
int chain_dirfd(const struct chain *c);
const char *chain_path(const struct chain *c);

/*
 * Whoever runs the chain's job notes its first process in the lock file, where it stays: it may
 * outlive the command.
 */
int chain_note_job(struct chain *c, pid_t root, struct err *err);
/* All processes of the job: those that outlive the first one are still the job. */
struct chain_kin {
	pid_t pid;
	uint64_t start_time; /* proc_pid_stat(5) */
};
int chain_note_kin(struct chain *c, const struct chain_kin *kin, unsigned n, struct err *err);
/* One of these processes (of a locked chain) that still runs; 0: none does. Waits for one that has
 * been killed and is on its way out. */
pid_t chain_job(const struct chain *c);

struct chain_entry {
	uint64_t seq;
	char name[32]; /* "000001.img" */
	struct id128 state, parent;
	uint64_t file_bytes;
	int64_t mtime_ns;
	bool readable;  /* header, directory and checksums of sections are good */
	bool complete;  /* readable, and so are its parents down to a full image */
	struct err why; /* why it is not readable or not complete */
};

/* Lists the images in ascending order of number; entries valid until the next scan or chain_free.
 */
int chain_scan(struct chain *c, struct err *err);
unsigned chain_count(const struct chain *c);
const struct chain_entry *chain_entry(const struct chain *c, unsigned i);
/* The newest complete image (after a scan), NULL when there is none. */
const struct chain_entry *chain_newest(const struct chain *c);
const struct chain_entry *chain_find(const struct chain *c, uint64_t seq);
/* The number for the next image: one more than the highest name seen. */
uint64_t chain_next_seq(const struct chain *c);

/* Marked finished when the job ended by itself: DIR/finished holds "exit N\n" or "signal N\n". */
int chain_set_finished(struct chain *c, const char *how, struct err *err);
int chain_clear_finished(struct chain *c, struct err *err);
/* 1 and the text (without newline) in how if finished, 0 if not. */
int chain_finished(struct chain *c, char how[static 64]);

/*
 * Refuses (-EPERM) a file or directory that another user (neither we nor root) owns, or that its
 * group or others can write: restarting an image runs what it says.
 */
int chain_check_owner(int fd, const char *name, struct err *err);

/* Removes all images (--overwrite, or a finished chain). Durable. */
int chain_clear(struct chain *c, struct err *err);
/* Removes what none of the newest `keep` complete states needs. */
int chain_retain(struct chain *c, unsigned keep, struct err *err);

/* --- a state, resolved along its parents ---------------------------------------------------------
 */

struct resolved;

/* Where the pages of one state lie: runs of kind RUN_HERE (in images[image]) or RUN_ZERO. */
struct resolved_run {
	struct page_run run;
	unsigned image; /* index for resolved_image() */
};

/* Opens image `name` in the chain and its parents; -ENOENT "parent missing" etc. are
 * EXIT_BAD_IMAGE. */
int chain_resolve(struct chain *c, const char *name, struct resolved **ret, struct err *err);
/* A single image file that must be full (or whose parents lie beside it in the same directory). */
int resolve_file(const char *path, struct resolved **ret, struct err *err);
void resolved_free(struct resolved *r);
/* Image 0 is the newest: its tree is the state's. Of the others image_reader_runs gives nothing any
 * more. */
struct image_reader *resolved_image(const struct resolved *r, unsigned i);
unsigned resolved_n_images(const struct resolved *r);
/* All runs of one space, ascending; RUN_PARENT never occurs. */
const struct resolved_run *resolved_runs(const struct resolved *r, uint32_t space, unsigned *ret_n);
