/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks of unit tests: what was expected, and what was there, then the end. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);         \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#define CHECK_INT(got, want)                                                                       \
	do {                                                                                       \
		long long got_ = (long long)(got), want_ = (long long)(want);                      \
		if (got_ != want_) {                                                               \
			fprintf(stderr, "%s:%d: %s is %lld (%#llx), not %lld (%#llx)\n", __FILE__, \
				__LINE__, #got, got_, (unsigned long long)got_, want_,             \
				(unsigned long long)want_);                                        \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#define CHECK_STR(got, want)                                                                       \
	do {                                                                                       \
		const char *got_ = (got), *want_ = (want);                                         \
		if (!got_ || strcmp(got_, want_)) {                                                \
			fprintf(stderr, "%s:%d: %s is\n'%s', not\n'%s'\n", __FILE__, __LINE__,     \
				#got, got_ ? got_ : "(null)", want_);                              \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* The text has this in it. */
#define CHECK_HAS(got, want)                                                                       \
	do {                                                                                       \
		const char *got_ = (got), *want_ = (want);                                         \
		if (!strstr(got_, want_)) {                                                        \
			fprintf(stderr, "%s:%d: %s lacks '%s':\n%s\n", __FILE__, __LINE__, #got,   \
				want_, got_);                                                      \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* The call succeeds; otherwise the message in `err`, a struct err, is shown. */
#define CHECK_OK(call)                                                                             \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		if (rc_ < 0) {                                                                     \
			fprintf(stderr, "%s:%d: %s: %d: %s (%s)\n", __FILE__, __LINE__, #call,     \
				rc_, err.msg, err.hint);                                           \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)
