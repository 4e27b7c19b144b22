/* SPDX-License-Identifier: BSD-2-Clause */
/* ckpt-inspect --pid: the answer as text and as JSON. */
#include "running.h"

#include "proc/able.h"
#include "util/arena.h"

#include <stdio.h>

static void put_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c < 0x80 ? c : 0xdc00u + c);
		else
			putchar(c);
	}
	putchar('"');
}

static void print_json(pid_t pid, const struct able *able)
{
	printf("{\"pid\": %d, \"can_checkpoint\": %s, \"processes\": %u, \"threads\": %u, "
	       "\"obstacles\": [",
	       pid, able->n_obstacles ? "false" : "true", able->n_processes, able->n_threads);
	for (unsigned i = 0; i < able->n_obstacles; i++) {
		const struct obstacle *o = &able->obstacles[i];

		printf("%s{\"pid\": %d, \"fd\": ", i ? ", " : "", o->pid);
		if (o->fd >= 0)
			printf("%d", o->fd);
		else
			printf("null");
		printf(", \"what\": ");
		put_string(o->what);
		printf(", \"hint\": ");
		if (o->hint)
			put_string(o->hint);
		else
			printf("null");
		putchar('}');
	}
	printf("], \"left\": [");
	for (unsigned i = 0; i < able->n_left; i++) {
		printf("%s{\"pid\": %d, \"name\": ", i ? ", " : "", able->left[i].pid);
		put_string(able->left[i].comm);
		putchar('}');
	}
	printf("]}\n");
}

/* Names come from others: nothing of them is to act on a terminal. */
static void put_text(const char *s)
{
	for (; *s; s++)
		putchar((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
}

/* Of these nobody can tell. */
static void put_left(const struct able *able)
{
	for (unsigned i = 0; i < able->n_left; i++) {
		printf("note: process %d (", able->left[i].pid);
		put_text(able->left[i].comm);
		printf(") of the same session is not in the tree: its parent has ended\n");
	}
}

static void print_text(pid_t pid, const struct able *able)
{
	printf("pid %d: %u process%s, %u thread%s: ", pid, able->n_processes,
	       able->n_processes == 1 ? "" : "es", able->n_threads,
	       able->n_threads == 1 ? "" : "s");
	printf(able->n_obstacles ? "cannot be checkpointed\n" : "can be checkpointed\n");
	for (unsigned i = 0; i < able->n_obstacles; i++) {
		const struct obstacle *o = &able->obstacles[i];

		printf("pid %d", o->pid);
		if (o->fd >= 0)
			printf(" fd %d", o->fd);
		printf(": ");
		put_text(o->what);
		printf(" is not supported%s%s%s\n", o->hint ? " (" : "", o->hint ? o->hint : "",
		       o->hint ? ")" : "");
	}
	put_left(able);
}

int running_inspect(pid_t pid, bool json, bool *ret_can, struct err *err)
{
	struct arena *a = arena_new();
	struct able able;
	int rc = a ? able_look(pid, a, &able, err) : err_nomem(err);

	if (rc == 0) {
		*ret_can = able.n_obstacles == 0;
		(json ? print_json : print_text)(pid, &able);
	}
	arena_free(a);
	return rc;
}
