/* SPDX-License-Identifier: BSD-2-Clause */
/* Errors: formatting of the one sentence that a failure carries. */
#include "util/err.h"

#include <stdio.h>
#include <string.h>

static int set(struct err *err, int code, const char *fmt, va_list ap)
{
	if (!err)
		return code;
	errno = code < 0 ? -code : code;
	err->code = code;
	err->hint[0] = '\0';
	(void)vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	return code;
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, code, fmt, ap);
	va_end(ap);
	return code;
}

int err_image(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, code, fmt, ap);
	va_end(ap);
	if (err)
		err->exit_status = EXIT_BAD_IMAGE;
	return code;
}

int err_wrap(struct err *err, int code, const char *fmt, ...)
{
	char old[sizeof err->msg];
	va_list ap;
	int n;

	if (!err)
		return code;
	memcpy(old, err->msg, sizeof old);
	va_start(ap, fmt);
	n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	err->code = code;
	/* what does not fit is cut off */
	if (n >= 0 && (size_t)n < sizeof err->msg &&
	    snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s", old) < 0)
		err->msg[n] = '\0';
	return code;
}

int err_hint(struct err *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return 0;
	if (err->hint[0])
		return err->code;
	va_start(ap, fmt);
	(void)vsnprintf(err->hint, sizeof err->hint, fmt, ap);
	va_end(ap);
	return err->code;
}

int err_nomem(struct err *err)
{
	return err_set(err, -ENOMEM, "out of memory");
}

void err_clear(struct err *err)
{
	if (err)
		memset(err, 0, sizeof *err);
}

void err_print(const char *program, const struct err *err)
{
	if (err->hint[0])
		fprintf(stderr, "%s: %s (%s)\n", program, err->msg, err->hint);
	else
		fprintf(stderr, "%s: %s\n", program, err->msg);
}
