/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inotify events that were unread at the checkpoint: the program is told that events were lost.
 *
 * The kernel has no way to look at a queue without taking from it, nor one to put events into it.
 * But it has its own word for what has then happened: a queue that overflows ends with an
 * IN_Q_OVERFLOW event, for which a program must be ready at any time (inotify(7)). So the new queue
 * is made to overflow, by what is done to a file of ours, and all events are read but that one.
 */
#include "object/inotify.h"

#include "object/kinds.h"
#include "util/io.h"

#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_EVENTS (1l << 22) /* a microsecond or two for each */
#define TRIES       5

static int queue_size(long *ret, struct err *err)
{
	static const char path[] = "/proc/sys/fs/inotify/max_queued_events";
	CLEANUP_FREE char *text = NULL;
	int rc = io_read_file(-1, path, &text, NULL);

	*ret = rc < 0 ? 0 : strtol(text, NULL, 10);
	if (*ret > 0 && *ret <= MOST_EVENTS)
		return 0;
	return err_set(err, rc < 0 ? rc : -ERANGE,
		       "cannot tell the program that inotify events were lost: '%s' is %s", path,
		       rc < 0 ? "not readable" : text);
}

/* Two kinds of events in turn, since the same one again would not be queued. */
static int overflow(int spare, long n)
{
	for (long i = 0; i < n + 2; i++)
		if (i % 2 ? fchmod(spare, 0600) < 0 : ftruncate(spare, 0) < 0)
			return -errno;
	return 0;
}

/* Reads n events: true if the one that says it has overflowed was not among them. */
static bool drop(int fd, long n)
{
	_Alignas(8) char buf[64 << 10];

	while (n > 0) {
		/* not more than n, whatever they are: none is shorter */
		size_t room = MIN(sizeof buf, (size_t)n * sizeof(struct inotify_event));
		ssize_t got = read(fd, buf, room), at = 0;

		if (got <= 0)
			return false;
		while (at < got) {
			const struct inotify_event *e = (const void *)(buf + at);

			if (e->mask & IN_Q_OVERFLOW)
				return false;
			at += (ssize_t)(sizeof *e + e->len);
			n--;
		}
	}
	return true;
}

int inotify_tell_lost(int fd, int spare, const char *spare_path, struct err *err)
{
	char buf[4096];
	long n;
	int rc = queue_size(&n, err), wd;

	/* again if somebody has just done something to the files that are watched already */
	for (int i = 0; rc == 0 && i < TRIES; i++) {
		wd = inotify_add_watch(fd, spare_path, IN_MODIFY | IN_ATTRIB);
		rc = wd < 0 ? -errno : overflow(spare, n);
		/* the queue is full: this leaves no IN_IGNORED */
		if (rc < 0 || inotify_rm_watch(fd, wd) < 0)
			return err_set(err, rc < 0 ? rc : -errno,
				       "cannot make an inotify queue overflow: %m");
		if (drop(fd, n))
			return 0;
		while (read(fd, buf, sizeof buf) > 0)
			;
	}
	return rc < 0 ? rc
		      : err_set(err, -EBUSY,
				"cannot make an inotify queue overflow: files that are watched "
				"change all the time");
}
