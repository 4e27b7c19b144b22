/* SPDX-License-Identifier: BSD-2-Clause */
/* ckpt-merge: compacts a chain to one full image in place, or writes one image that stands alone.
 */
#include "filter/sandbox.h"
#include "image/merge.h"
#include "image/text.h"
#include "options.h"
#include "subject.h"
#include "util/cleanup.h"
#include "util/fault.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define PROGRAM "ckpt-merge"

enum { OPT_OUTPUT = OPTION_FIRST, OPT_AT, OPT_COMPRESS, OPT_FORCE };

static const struct option_row rows[] = {
	{ OPT_OUTPUT, 'o', "output", "OUT",
	  "write one stand-alone image to the file OUT (-: standard output) and leave the chain as "
	  "it is" },
	{ OPT_AT, 0, "at", "N", "merge into image N of the chain, not the newest complete one" },
	{ OPT_COMPRESS, 0, "compress", "lz4|none|auto", "page compression (default: auto)" },
	{ OPT_FORCE, 'f', "force", NULL, "replace OUT if it exists" },
};

static const struct option_spec spec = {
	.program = PROGRAM,
	.usage = "[OPTIONS] CHAIN|IMAGE",
	.about = "Compacts a chain in place to one full image of its newest state, removing the "
		 "images that this makes "
		 "superfluous; or writes the state as one image of its own.",
	.rows = rows,
	.n_rows = ARRAY_SIZE(rows),
	.after =
		"Exit status: 0 done, 1 failed, 2 wrong usage, 3 image damaged or not supported.\n",
};

static const char *const compress_words[] = { "auto", "lz4", "none",
					      NULL }; /* enum compress_mode */

struct request {
	struct options o;
	const char *output;
	int64_t at;
	uint32_t compress;
	bool force;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int sig)
{
	stop_signal = sig;
}

static void parse_options(struct request *q, int argc, char **argv)
{
	int id;

	*q = (struct request){ .at = -1 };
	options_init(&q->o, &spec, argc, argv);
	while ((id = options_next(&q->o)) != OPTION_END) {
		if (id == OPT_OUTPUT)
			q->output = q->o.arg;
		if (id == OPT_AT)
			q->at = options_int(&q->o, 0, INT64_MAX);
		if (id == OPT_COMPRESS)
			q->compress = (uint32_t)options_choice(&q->o, compress_words);
		q->force |= id == OPT_FORCE;
	}
	if (q->output && !*q->output)
		options_misuse(&q->o, "invalid OUT '' for --output");
	if (q->force && !q->output)
		options_misuse(&q->o, "--force is for --output");
}

static void report(const struct request *q, const struct resolved *r, const char *to,
		   const struct image_totals *totals)
{
	char size[16];

	if (q->o.verbose)
		fprintf(stderr, "%s: merged %u images into '%s' (%s)\n", PROGRAM,
			resolved_n_images(r), to, text_size(size, totals->bytes_stored));
}

/* What is read once is not to push other things out of the page cache. */
static void read_around_cache(const struct resolved *r)
{
	for (unsigned i = 0; i < resolved_n_images(r); i++)
		image_reader_direct(resolved_image(r, i));
}

/* --- in place ------------------------------------------------------------------------------------
 */

/* Rewrites the entry's image as a full one, unless it is that already. */
static int make_full(const struct request *q, const struct subject *s, struct image_totals *totals,
		     struct err *err)
{
	static const struct merge_progress progress = { .stop = &stop_signal };
	CLEANUP(free_resolved) struct resolved *r = NULL;
	struct image_params params;
	struct image_writer *w;
	int rc = subject_resolve(s, &r, err);

	if (rc < 0)
		return rc;
	if (!strcmp(view_kind(image_reader_info(resolved_image(r, 0))), "full")) {
		subject_sandbox(&q->o, SANDBOX_MERGE);
		return 0;
	}
	merge_params(r, &params);
	params.compress = q->compress;
	params.direct = 1;
	read_around_cache(r);
	rc = fault_point("merge-start", err);
	if (rc == 0)
		rc = image_writer_open(chain_dirfd(s->chain), s->entry->name, &params, &w, err);
	if (rc < 0)
		return rc;
	subject_sandbox(&q->o, SANDBOX_MERGE);
	rc = merge_write(r, w, &progress, totals, err);
	if (rc == 0)
		rc = fault_point("merge-rename", err);
	if (rc == 0)
		report(q, r, s->name, totals);
	return rc;
}

static int merge_in_place(const struct request *q, const struct subject *s, struct err *err)
{
	struct image_totals totals = { 0 };
	unsigned removed;
	int rc;

	if (!s->entry)
		return subject_no_image(s, err);
	rc = make_full(q, s, &totals, err);
	if (rc == 0)
		rc = merge_tidy(s->chain, s->entry->seq, &removed, err);
	if (rc == 0 && q->o.verbose)
		fprintf(stderr, "%s: removed %u images before '%s'\n", PROGRAM, removed, s->name);
	return rc;
}

/* chain/000003.img in place is chain --at 3; an image that lies elsewhere can only be written
 * somewhere (-o). */
static int open_in_place(const struct request *q, const char *path, struct subject *s,
			 struct err *err)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	char dir[PATH_MAX], *end;
	struct stat st;
	uint64_t seq;
	int rc;

	if (stat(path, &st) < 0 || S_ISDIR(st.st_mode) || q->at >= 0)
		return subject_open(s, path, CHAIN_WRITE, q->at, err);
	seq = strtoull(base, &end, 10);
	if (end == base || strcmp(end, ".img") != 0 || seq > INT64_MAX) {
		err_set(err, -EINVAL, "image '%s' is not one of a chain", path);
		return err_hint(err, "write the merged image with -o OUT");
	}
	(void)snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1,
		       slash ? path : ".");
	rc = subject_open(s, dir, CHAIN_WRITE, (int64_t)seq, err);
	if (rc == 0 && strcmp(s->entry->name, base) != 0)
		rc = err_set(err, -EINVAL, "image '%s' is not one of a chain", path);
	return rc;
}

static int in_place(const struct request *q, const char *path, struct err *err)
{
	CLEANUP(subject_fini) struct subject s = { 0 };
	int rc = open_in_place(q, path, &s, err);

	return rc < 0 ? rc : merge_in_place(q, &s, err);
}

/* --- a stand-alone image -------------------------------------------------------------------------
 */

/* An image that is being merged must not be what it is merged into: its number would then hold
 * another state. */
static int check_not_source(const struct resolved *r, const struct stat *out, const char *path,
			    struct err *err)
{
	for (unsigned i = 0; i < resolved_n_images(r); i++) {
		struct stat st;

		if (fstat(image_reader_fd(resolved_image(r, i)), &st) < 0)
			return err_set(err, -errno, "cannot stat image '%s': %m",
				       image_reader_name(resolved_image(r, i)));
		if (st.st_dev == out->st_dev && st.st_ino == out->st_ino) {
			err_set(err, -EINVAL, "'%s' is one of the images to merge", path);
			return err_hint(err, "without -o it is merged in place");
		}
	}
	return 0;
}

static int check_target(const struct request *q, const struct subject *s, const struct resolved *r,
			int dirfd, const char *base, struct err *err)
{
	struct stat out, dir, chain;

	if (s->chain && fstat(dirfd, &dir) == 0 && fstat(chain_dirfd(s->chain), &chain) == 0 &&
	    dir.st_dev == chain.st_dev && dir.st_ino == chain.st_ino)
		return err_set(err, -EINVAL,
			       "'%s' is inside of the chain that is to be left as it is",
			       q->output);
	if (fstatat(dirfd, base, &out, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0
				       : err_set(err, -errno, "cannot stat '%s': %m", q->output);
	if (!q->force) {
		err_set(err, -EEXIST, "'%s' exists", q->output);
		return err_hint(err, "--force replaces it");
	}
	return check_not_source(r, &out, q->output, err);
}

/* Opens the folder of OUT; *ret_base is the name in it. */
static int open_target(const char *output, const char **ret_base, struct err *err)
{
	const char *slash = strrchr(output, '/');
	char dir[PATH_MAX];
	int fd;

	*ret_base = slash ? slash + 1 : output;
	if (!**ret_base)
		return err_set(err, -EISDIR, "'%s' is not the name of a file", output);
	if (snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - output) + 1 : 1,
		     slash ? output : ".") >= (int)sizeof dir)
		return err_set(err, -ENAMETOOLONG, "cannot open '%s': %m", output);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_set(err, -errno, "cannot open folder '%s': %m", dir) : fd;
}

static int open_output(const struct request *q, const struct subject *s, const struct resolved *r,
		       int *ret_dirfd, struct image_writer **ret, struct err *err)
{
	struct image_params params;
	const char *base;
	int rc;

	merge_params(r, &params);
	params.compress = q->compress;
	if (!strcmp(q->output, "-")) {
		if (isatty(STDOUT_FILENO))
			return err_set(err, -EINVAL,
				       "an image is binary and standard output is a terminal");
		return image_writer_open(STDOUT_FILENO, NULL, &params, ret, err);
	}
	*ret_dirfd = open_target(q->output, &base, err);
	if (*ret_dirfd < 0)
		return *ret_dirfd;
	rc = check_target(q, s, r, *ret_dirfd, base, err);
	params.direct = 1;
	read_around_cache(r);
	return rc < 0 ? rc : image_writer_open(*ret_dirfd, base, &params, ret, err);
}

static int stand_alone(const struct request *q, const char *path, struct err *err)
{
	static const struct merge_progress progress = { .stop = &stop_signal };
	CLEANUP(subject_fini) struct subject s = { 0 };
	CLEANUP(free_resolved) struct resolved *r = NULL;
	CLEANUP_FD int dirfd = -1;
	struct image_totals totals;
	struct image_writer *w;
	int rc;

	rc = subject_open(&s, path, CHAIN_READ, q->at, err);
	if (rc == 0)
		rc = subject_resolve(&s, &r, err);
	if (rc == 0)
		rc = fault_point("merge-start", err);
	if (rc == 0)
		rc = open_output(q, &s, r, &dirfd, &w, err);
	if (rc < 0)
		return rc;
	subject_sandbox(&q->o, SANDBOX_MERGE);
	rc = merge_write(r, w, &progress, &totals, err);
	if (rc == 0)
		report(q, r, q->output, &totals);
	return rc;
}

/* --- the command ---------------------------------------------------------------------------------
 */

/* A signal that would end us ends us after the temporary file is gone. */
static void catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_RESTART }, old;

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			(void)sigaction(signals[i], &act, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv)
{
	struct err err = { 0 };
	struct request q;
	const char *path;
	int rc;

	parse_options(&q, argc, argv);
	path = subject_operand(&q.o);
	catch_signals();
	rc = q.output ? stand_alone(&q, path, &err) : in_place(&q, path, &err);
	if (rc == -EINTR && stop_signal) {
		(void)signal(stop_signal, SIG_DFL);
		(void)raise(stop_signal);
	}
	if (rc == 0)
		return EXIT_DONE;
	err_print(PROGRAM, &err);
	return err.exit_status ? err.exit_status : EXIT_FAILED;
}
