/* SPDX-License-Identifier: BSD-2-Clause */
/* Victims of several processes: each member notes who it is, and verifies it when it is asked. */
#pragma once

#include "victim.h"

#define FAMILY_MAX 1100

/* What a member was at its start. sid and pgid as numbers mean nothing where they are of somebody
 * outside the job: `family_outside` says so. */
struct member {
	pid_t pid, ppid, pgid, sid;
	int parent;     /* member; -1: whoever looks after the job */
	uint32_t asked; /* futexes that are shared by all processes */
	uint32_t answered;
	uint32_t here;     /* it has noted everything */
	void (*also)(int); /* more to be verified, or NULL */
};

/* To be called before any process is made. */
void family_init(void);
extern struct member *family;
/* Forks; in the child returns its number, in the parent 0... the member's number is n. */
pid_t family_fork(int n);
/* In member n: notes who it is. parent: the member that is to be its parent. */
void family_note(int n, int parent);
/* Member n answers until it is told to end; never returns. */
_Noreturn void family_serve(int n);
/* All members in [1, n) are there. */
void family_wait(int n);
/* Asks all members in [1, n), in turn, and verifies member 0, which is the caller. */
void family_ask(int n);
/* Asks one. */
void family_ask_one(int i);
/* What member n is now is what it was. */
void family_verify(int n);
/* Waits until the process is in this state (a letter of proc_pid_stat(5)). */
void wait_state(pid_t pid, char state);
