/* SPDX-License-Identifier: BSD-2-Clause */
/* --stats: one JSON line for each attempt at a checkpoint. */
#include "run/stats.h"

#include "image/utf8.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

int stats_open(const char *path, int *ret_fd, struct err *err)
{
	int fd = -1;

	if (path) {
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
		if (fd < 0)
			return err_set(err, -errno, "cannot open '%s' for --stats: %m", path);
	}
	*ret_fd = fd;
	return 0;
}

int stats_path(const char *path, char **ret, struct err *err)
{
	CLEANUP_FREE char *cwd = NULL;
	char *full;

	if (path[0] == '/') {
		full = strdup(path);
	} else {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return err_set(err, -errno, "cannot tell the working directory: %m");
		if (asprintf(&full, "%s/%s", cwd, path) < 0)
			full = NULL;
	}
	if (!full)
		return err_nomem(err);
	*ret = full;
	return 0;
}

static const char *result_word(int rc)
{
	if (rc == 0)
		return "ok";
	/* Not tried rather than failed: the job could not be stopped just then, or has ended. */
	return rc == -EAGAIN || rc == -ESRCH ? "skipped" : "failed";
}

/* A message may quote a path, and a path may hold anything but NUL. */
static void put_escaped(FILE *f, const char *s)
{
	while (*s) {
		uint32_t c;
		unsigned len = utf8_sequence(s, &c);

		if (!len)
			(void)fputs("\\ufffd", f);
		else if (c == '"' || c == '\\')
			(void)fprintf(f, "\\%c", (int)c);
		else if (c < 0x20 || c == 0x7f)
			(void)fprintf(f, "\\u%04x", c);
		else
			(void)fwrite(s, 1, len, f);
		s += len ? len : 1;
	}
}

static void put_string(FILE *f, const char *s)
{
	(void)fputc('"', f);
	put_escaped(f, s);
	(void)fputc('"', f);
}

/* As on standard error: the message, and what can be done about it in brackets. */
static void put_error(FILE *f, const struct err *err)
{
	(void)fputc('"', f);
	put_escaped(f, err->msg);
	if (err->hint[0]) {
		(void)fputs(" (", f);
		put_escaped(f, err->hint);
		(void)fputc(')', f);
	}
	(void)fputc('"', f);
}

static void put_times(FILE *f, const struct dump_result *r)
{
	(void)fprintf(
		f, ", \"pause_us\": %" PRIu64 ", \"freeze_us\": %" PRIu64 ", \"scan_us\": %" PRIu64,
		r->pause_us, r->freeze_us, r->scan_us);
	(void)fprintf(f,
		      ", \"snapshot_us\": %" PRIu64 ", \"thaw_us\": %" PRIu64
		      ", \"write_us\": %" PRIu64,
		      r->snapshot_us, r->thaw_us, r->write_us);
}

static void put_sizes(FILE *f, const struct dump_result *r)
{
	(void)fprintf(f,
		      ", \"pages_present\": %" PRIu64 ", \"pages_written\": %" PRIu64
		      ", \"pages_zero\": %" PRIu64,
		      r->pages_present, r->totals.pages_written, r->totals.pages_zero);
	(void)fprintf(f, ", \"bytes_raw\": %" PRIu64 ", \"bytes_stored\": %" PRIu64,
		      r->totals.bytes_raw, r->totals.bytes_stored);
	(void)fprintf(f, ", \"processes\": %u, \"threads\": %u", r->processes, r->threads);
}

char *stats_line(int rc, const struct dump_result *result, const struct err *err)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	(void)fprintf(f, "{\"seq\": %" PRIu64 ", \"kind\": \"%s\", \"state\": \"", result->seq,
		      result->incremental ? "incremental" : "full");
	for (size_t i = 0; i < sizeof result->state.b; i++)
		(void)fprintf(f, "%02x", result->state.b[i]);
	(void)fputc('"', f);
	(void)fputs(", \"tracker\": ", f);
	put_string(f, result->tracker);
	(void)fprintf(f, ", \"result\": \"%s\"", result_word(rc));
	put_times(f, result);
	put_sizes(f, result);
	(void)fputs(", \"mode\": ", f);
	put_string(f, result->mode);
	(void)fputs(", \"why\": ", f);
	put_string(f, result->why);
	(void)fputs(", \"error\": ", f);
	if (rc < 0 && err)
		put_error(f, err);
	else
		(void)fputs("null", f);
	(void)fputs("}\n", f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

int stats_append(int fd, const char *line, struct err *err)
{
	int rc;

	if (fd < 0)
		return 0;
	rc = io_write_full(fd, line, strlen(line));
	return rc < 0 ? err_set(err, rc, "cannot write to the --stats file: %m") : 0;
}
