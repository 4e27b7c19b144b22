/* SPDX-License-Identifier: BSD-2-Clause */
/* Pseudo-terminals: what their capture and restore share. */
#pragma once

#include "object/kinds.h"

#include <asm/termbits.h>

/*
 * asm/termbits.h and termios.h do not go together; of the first we need struct termios2, and of the
 * second nothing.
 */
#define PTY_TCGETS2 0x802c542a
#define PTY_TCSETS2 0x402c542b

/* Modes in which nothing happens to what is written to the master, so that it is read as it was:
 * bytes as they are, or as lines. mark: the character that ends a file, 0 for none. */
void pty_plain(const struct termios2 *t, uint8_t mark, struct termios2 *ret);
/* Does input that is put in under these modes come out unchanged, and unseen? */
bool pty_is_plain(const struct termios2 *t);
/* A byte that does not occur in the data and means nothing in a terminal's lines; 0 if none. */
uint8_t pty_unused_byte(const struct blob *data);

/* pty_queue.c: what is unread on both sides, put back before the call returns. slave: some slave is
 * open in the tree. */
int pty_queues_capture(struct capture *c, const struct open_file *of, struct file_pty *d,
		       const struct open_file *slave, struct err *err);
/* pty_make.c: the whole of a pseudo-terminal, from its record. */
int pty_open(struct rebuild *rb, const struct file *f, int *ret_fd, struct err *err);
int pty_check(const struct rebuild *rb, const struct file *f, struct err *err);
