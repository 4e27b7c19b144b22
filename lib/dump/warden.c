/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A companion (mend.c) waits until an image is durable and snapshots are gone, which may take
 * minutes. Should the job's process end meanwhile, or run another program, its old memory would
 * stay for as long, and with it a binary that cannot be written to (ETXTBSY) and attachments of
 * System V segments. The tracer is busy then, so a thread looks.
 */
#include "dump/warden.h"

#include "dump/tracing.h"

#include <linux/kcmp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK_BYTES (64 * 1024)
#define LOOK_MS     200 /* no descriptor tells of an execve */

struct warden {
	pthread_t thread;
	int event_fd;
	atomic_uint n; /* wards, once there are any */
	atomic_bool over;
	struct ward *wards;
};

/* Has the process still this memory? kcmp(2) may not be allowed. */
static bool has_left(const struct ward *d)
{
	struct pollfd ended = { .fd = d->pidfd, .events = POLLIN };

	return (d->pidfd >= 0 && poll(&ended, 1, 0) != 0) ||
	       syscall(SYS_kcmp, d->pid, snapshot_pid(d->companion), KCMP_VM, 0, 0) > 0;
}

static void look(struct warden *w, struct pollfd *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (w->wards[i].companion && has_left(&w->wards[i])) {
			snapshot_kill(w->wards[i].companion);
			w->wards[i].companion = NULL;
		}
		fds[1 + i] = (struct pollfd){
			.fd = w->wards[i].companion ? w->wards[i].pidfd : -1,
			.events = POLLIN,
		};
	}
}

static void *warden_main(void *arg)
{
	struct warden *w = arg;
	struct pollfd wake = { .fd = w->event_fd, .events = POLLIN };
	struct pollfd *fds;
	unsigned n;

	while (!(n = atomic_load(&w->n)) && !atomic_load(&w->over))
		(void)poll(&wake, 1, -1);
	fds = calloc(n + (size_t)1, sizeof *fds);
	while (fds && n && !atomic_load(&w->over)) {
		eventfd_t ignored;

		(void)eventfd_read(w->event_fd, &ignored);
		fds[0] = wake;
		look(w, fds, n);
		if (!atomic_load(&w->over))
			(void)poll(fds, n + 1, LOOK_MS);
	}
	free(fds);
	return NULL;
}

struct warden *warden_new(void)
{
	struct warden *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->event_fd >= 0 && thread_start_blocked(&w->thread, STACK_BYTES, warden_main, w) == 0)
		return w;
	if (w->event_fd >= 0)
		(void)close(w->event_fd);
	free(w);
	return NULL;
}

void warden_begin(struct warden *w, struct ward *wards, unsigned n)
{
	if (!w || !n)
		return;
	w->wards = wards;
	for (unsigned i = 0; i < n; i++)
		wards[i].pidfd = (int)syscall(SYS_pidfd_open, wards[i].pid, 0);
	atomic_store(&w->n, n);
	(void)eventfd_write(w->event_fd, 1);
}

void warden_free(struct warden *w)
{
	if (!w)
		return;
	atomic_store(&w->over, true);
	(void)eventfd_write(w->event_fd, 1);
	(void)pthread_join(w->thread, NULL);
	for (unsigned i = 0; i < atomic_load(&w->n); i++)
		if (w->wards[i].pidfd >= 0)
			(void)close(w->wards[i].pidfd);
	(void)close(w->event_fd);
	free(w);
}
