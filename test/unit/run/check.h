/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks for this room's tests: what was expected, and what was there, then the end. */
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
			fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, \
				got_, want_);                                                      \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#define CHECK_STR(got, want)                                                                       \
	do {                                                                                       \
		const char *str_ = (got);                                                          \
		if (!str_ || strcmp(str_, (want))) {                                               \
			fprintf(stderr, "%s:%d: %s is\n'%s', not\n'%s'\n", __FILE__, __LINE__,     \
				#got, str_ ? str_ : "(null)", (want));                             \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* The text has this in it. */
#define CHECK_HAS(got, want)                                                                       \
	do {                                                                                       \
		const char *has_ = (got);                                                          \
		if (!strstr(has_, (want))) {                                                       \
			fprintf(stderr, "%s:%d: %s lacks '%s':\n%s\n", __FILE__, __LINE__, #got,   \
				(want), has_);                                                     \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)
