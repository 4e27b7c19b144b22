/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz target: the parsers of /proc text. The first byte of an input chooses one, the rest is its
 * text. */
#include "target.h"

#include "proc/proc.h"
#include "proc/sockdiag.h"

#include <stdlib.h>
#include <string.h>

static void check_maps(const struct proc_map *maps, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (maps[i].start >= maps[i].end || !maps[i].path ||
		    strlen(maps[i].path) > 1u << 24)
			abort();
}

static void check_fdinfo(const struct proc_fdinfo *f)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < f->n_watches; i++)
		sum += f->watches[i].data;
	for (unsigned i = 0; i < f->n_locks; i++) {
		sum += f->locks[i].start;
		if (f->locks[i].type < LOCK_TYPE_FLOCK || f->locks[i].type > LOCK_TYPE_POSIX)
			abort();
		if (f->locks[i].len &&
		    f->locks[i].start + (f->locks[i].len - 1) < f->locks[i].start)
			abort(); /* the range wraps round */
	}
	if (sum && !f->watches && !f->locks)
		abort();
}

static int parse(char kind, char *text, struct arena *a, struct err *err)
{
	struct proc_status status;
	struct proc_stat stat;
	struct proc_map *maps;
	struct proc_fdinfo fdinfo;
	struct posix_timer *timers;
	unsigned n;
	int rc;

	switch (kind) {
	case 's':
		rc = proc_status_parse(text, a, &status, err);
		if (rc == 0 && (!status.name || status.tgid <= 0 || status.pid <= 0))
			abort();
		return rc;
	case 't':
		return proc_stat_parse(text, &stat, err);
	case 'm':
		rc = proc_maps_parse(text, a, &maps, &n, err);
		if (rc == 0)
			check_maps(maps, n);
		return rc;
	case 'f':
		rc = proc_fdinfo_parse(text, a, &fdinfo, err);
		if (rc == 0)
			check_fdinfo(&fdinfo);
		return rc;
	case 'p':
		return proc_timers_parse(text, a, &timers, &n, err);
	default:
		return err_set(err, -EINVAL, "there is no parser '%c'", kind);
	}
}

/* Netlink answers are not text. */
static int parse_sockdiag(char kind, const void *buf, size_t len, struct arena *a, struct err *err)
{
	struct sockdiag_unix *list = NULL;
	struct sockdiag_tcp tcp;
	unsigned n = 0, sum = 0;
	bool done = false;
	int rc;

	if (kind == 'i')
		return sockdiag_tcp_parse(buf, len, &tcp, err);
	rc = sockdiag_unix_parse(buf, len, a, &list, &n, &done, err);
	for (unsigned i = 0; rc == 0 && i < n; i++)
		for (unsigned k = 0; k < list[i].n_waiting; k++)
			sum += list[i].waiting[k];
	if (sum && !n)
		abort();
	return rc;
}

static int parse_any(char kind, char *text, size_t len, struct arena *a, struct err *err)
{
	return kind == 'u' || kind == 'i' ? parse_sockdiag(kind, text, len, a, err)
					  : parse(kind, text, a, err);
}

unsigned long fuzz_accepted;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = arena_new();
	char *text = malloc(size + 1);
	struct err err = { 0 };

	if (arena && text && size) {
		memcpy(text, data + 1, size - 1);
		text[size - 1] = '\0';
		/* in a block of its own length, so that a read behind the NUL is seen */
		text = realloc(text, size);
		if (text && parse_any((char)data[0], text, size - 1, arena, &err) == 0)
			fuzz_accepted++;
		else if (text && !err.msg[0])
			abort(); /* a failure must say something */
	}
	free(text);
	arena_free(arena);
	return 0;
}
