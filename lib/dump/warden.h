/* SPDX-License-Identifier: BSD-2-Clause */
/* A thread of ckpt-run's that ends a companion as soon as nobody else has its memory. */
#pragma once

#include "inject/companion.h"

struct warden;

struct ward {
	struct snapshot *companion;
	pid_t pid; /* of the process whose memory it shares */
	int pidfd; /* of that; the warden's */
};

/* In ckpt-run, before anything is stopped; NULL: it goes without. */
struct warden *warden_new(void);
/* In the tracer, once: from now on, until warden_free. It never waits. */
void warden_begin(struct warden *w, struct ward *wards, unsigned n);
/* In ckpt-run, before any of the companions is freed. NULL is fine. */
void warden_free(struct warden *w);
