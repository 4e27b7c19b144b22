/* SPDX-License-Identifier: BSD-2-Clause */
/* Ctrl-C while a tree is half rebuilt: everything that was made goes, and then we do. */
#pragma once

/*
 * From here on a signal that would end us first ends all our children, and theirs as they become
 * ours (we must be a child subreaper). Signals that were ignored stay ignored. SIGUSR1 waits: it
 * means a checkpoint, later.
 */
void interrupt_arm(void);
/* The tree is complete: signals mean it again, not us. To be called once signals are blocked
 * (signals_open). */
void interrupt_disarm(void);
/* Ends all children of this process and reaps them. Async-signal-safe. */
void interrupt_kill_children(void);
