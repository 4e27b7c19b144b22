/* SPDX-License-Identifier: BSD-2-Clause */
/* ckpt-inspect: says what is in a chain or an image, and checks every byte of it. */
#include "filter/sandbox.h"
#include "image/json.h"
#include "image/page.h"
#include "image/text.h"
#include "options.h"
#include "running.h"
#include "subject.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define PROGRAM "ckpt-inspect"

enum {
	OPT_PROCESSES = OPTION_FIRST,
	OPT_THREADS,
	OPT_SEGMENTS,
	OPT_FILES,
	OPT_JSON,
	OPT_AT,
	OPT_VERIFY,
	OPT_PAGE,
	OPT_PID
};

static const struct option_row rows[] = {
	{ OPT_PROCESSES, 'p', "processes", NULL, "list the processes" },
	{ OPT_THREADS, 't', "threads", NULL, "list the threads" },
	{ OPT_SEGMENTS, 's', "segments", NULL, "list the memory segments of each process" },
	{ OPT_FILES, 'f', "files", NULL, "list the open files of each process" },
	{ OPT_JSON, 'j', "json", NULL, "everything, for programs" },
	{ OPT_AT, 0, "at", "N",
	  "of a chain, the image with number N (default: the newest complete one)" },
	{ OPT_VERIFY, 0, "verify", NULL,
	  "read every byte of the image, or of all images of the chain, and check it" },
	{ OPT_PAGE, 0, "page", "PID:ADDRESS",
	  "write the 4096 bytes of the page at the hexadecimal ADDRESS of process PID to standard "
	  "output" },
	{ OPT_PID, 0, "pid", "PID",
	  "say of the running tree of process PID whether it can be checkpointed, and what stands "
	  "in the way" },
};

static const struct option_spec spec = {
	.program = PROGRAM,
	.usage = "[OPTIONS] CHAIN|IMAGE\n[--json] --pid PID",
	.about = "Says what is in a chain of checkpoints or in one image. Without options: a "
		 "summary.",
	.rows = rows,
	.n_rows = ARRAY_SIZE(rows),
	.after = "Exit status: 0 done, 1 failed (--pid: it cannot be checkpointed), 2 wrong "
		 "usage,\n3 image damaged or not supported.\n",
};

struct request {
	struct options o;
	bool processes, threads, segments, files, json, verify, page;
	int64_t at;
	int32_t page_pid;
	pid_t running; /* --pid; 0: an image is looked at */
	uint64_t page_address;
};

static void parse_page(struct request *q)
{
	char *end;
	long pid;

	errno = 0;
	pid = strtol(q->o.arg, &end, 10);
	if (errno || end == q->o.arg || *end != ':' || pid <= 0 || pid > INT32_MAX || !end[1] ||
	    end[1] == '-')
		options_misuse(&q->o, "invalid PID:ADDRESS '%s' for --page", q->o.arg);
	q->page = true;
	q->page_pid = (int32_t)pid;
	q->page_address = strtoull(end + 1, &end, 16);
	if (errno || *end)
		options_misuse(&q->o, "invalid PID:ADDRESS '%s' for --page", q->o.arg);
}

static void parse_options(struct request *q, int argc, char **argv)
{
	int id;

	*q = (struct request){ .at = -1 };
	options_init(&q->o, &spec, argc, argv);
	while ((id = options_next(&q->o)) != OPTION_END) {
		q->processes |= id == OPT_PROCESSES;
		q->threads |= id == OPT_THREADS;
		q->segments |= id == OPT_SEGMENTS;
		q->files |= id == OPT_FILES;
		q->json |= id == OPT_JSON;
		q->verify |= id == OPT_VERIFY;
		if (id == OPT_AT)
			q->at = options_int(&q->o, 0, INT64_MAX);
		if (id == OPT_PAGE)
			parse_page(q);
		if (id == OPT_PID)
			q->running = (pid_t)options_int(&q->o, 1, INT32_MAX);
	}
	if (q->running && (q->o.n_operands || q->verify || q->page || q->processes || q->threads ||
			   q->segments || q->files || q->at >= 0))
		options_misuse(&q->o, "--pid goes with --json only");
	if (q->verify + q->page + q->json +
		    (q->processes || q->threads || q->segments || q->files) >
	    1)
		options_misuse(
			&q->o,
			"--verify, --page, --json and the sections are asked for one at a time");
}

/* Opens a file that is called an image, to be read once we are in the sandbox. Negative errno. */
static int open_image(int dirfd, const char *path, const char *name, struct err *err)
{
	/* O_NONBLOCK: a FIFO of that name must not hang us; the reader refuses what is not a
	 * regular file */
	int fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd < 0 ? err_set(err, -errno, "cannot open image '%s': %m", name) : fd;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* --- showing -------------------------------------------------------------------------------------
 */

static int fill_chain_view(const struct subject *s, struct chain_view *v, char finished[static 64],
			   const struct chain_entry ***ret_entries, struct err *err)
{
	unsigned n = chain_count(s->chain);
	const struct chain_entry **entries = calloc(n + 1, sizeof(struct chain_entry *));

	if (!entries)
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++)
		entries[i] = chain_entry(s->chain, i);
	*v = (struct chain_view){
		.path = s->path, .entries = entries, .n_entries = n, .now_ns = now_ns()
	};
	v->finished = chain_finished(s->chain, finished) > 0 ? finished : NULL;
	*ret_entries = entries;
	return 0;
}

static void print_views(const struct request *q, const struct chain_view *chain,
			const struct image_view *image)
{
	bool sections = q->processes || q->threads || q->segments || q->files;
	bool many = q->processes + q->threads + q->segments + q->files > 1;
	static const struct {
		const char *title;
		void (*print)(FILE *, const struct image_view *);
	} table[] = {
		{ "Processes:", text_processes },
		{ "Threads:", text_threads },
		{ "Segments:", text_segments },
		{ "Files:", text_files },
	};
	const bool wanted[] = { q->processes, q->threads, q->segments, q->files };

	if (q->json) {
		json_print(stdout, chain, image);
		return;
	}
	if (!sections && chain)
		text_chain(stdout, chain);
	if (!sections && image) {
		if (chain)
			putchar('\n');
		text_summary(stdout, image, now_ns());
	}
	for (size_t i = 0, shown = 0; i < ARRAY_SIZE(table) && image; i++) {
		if (!wanted[i])
			continue;
		if (many)
			printf("%s%s\n", shown++ ? "\n" : "", table[i].title);
		table[i].print(stdout, image);
	}
}

static int show(const struct request *q, const struct subject *s, struct err *err)
{
	CLEANUP(free_arena) struct arena *arena = arena_new();
	CLEANUP(free_reader) struct image_reader *reader = NULL;
	CLEANUP_FREE const struct chain_entry **entries = NULL;
	struct chain_view chain;
	struct image_view image = { .name = s->name };
	struct tree *tree;
	char finished[64];
	int rc = arena ? 0 : err_nomem(err), fd = -1;

	if (rc == 0 && s->chain)
		rc = fill_chain_view(s, &chain, finished, &entries, err);
	if (rc == 0 && (s->entry || !s->chain)) {
		rc = fd = open_image(s->chain ? chain_dirfd(s->chain) : AT_FDCWD,
				     s->chain ? s->entry->name : s->path, s->name, err);
	}
	if (rc < 0)
		return rc;
	subject_sandbox(&q->o, SANDBOX_READ);
	if (fd < 0) {
		print_views(q, &chain, NULL);
		return subject_no_image(s, err);
	}
	rc = image_reader_open_fd(fd, s->name, &reader, err);
	if (rc < 0) {
		(void)close(fd);
		return rc;
	}
	rc = image_reader_tree(reader, arena, &tree, err);
	if (rc < 0)
		return rc;
	image.info = image_reader_info(reader);
	image.runs = image_reader_runs(reader, &image.n_runs);
	image.tree = tree;
	print_views(q, s->chain ? &chain : NULL, &image);
	return 0;
}

static int show_page(const struct request *q, const struct subject *s, struct err *err)
{
	CLEANUP(free_arena) struct arena *arena = arena_new();
	CLEANUP(free_resolved) struct resolved *r = NULL;
	uint8_t page[CKPT_PAGE_SIZE];
	struct tree *tree;
	int rc;

	if (isatty(STDOUT_FILENO))
		return err_set(
			err, -EINVAL,
			"a page is binary and standard output is a terminal: send it to a file");
	rc = arena ? subject_resolve(s, &r, err) : err_nomem(err);
	if (rc < 0)
		return rc;
	subject_sandbox(&q->o, SANDBOX_READ);
	rc = image_reader_tree(resolved_image(r, 0), arena, &tree, err);
	if (rc == 0)
		rc = page_read(r, tree, q->page_pid, q->page_address, page, err);
	if (rc == 0)
		(void)fwrite(page, sizeof page, 1, stdout);
	return rc;
}

/* --- verifying -----------------------------------------------------------------------------------
 */

static int verify_reader(const struct request *q, struct image_reader *reader, const char *name,
			 struct err *err)
{
	CLEANUP(free_arena) struct arena *arena = arena_new();
	const struct image_info *info = image_reader_info(reader);
	struct tree *tree;
	char size[16];
	int rc = arena ? 0 : err_nomem(err);

	if (rc == 0)
		rc = image_reader_verify(reader, NULL, NULL, err);
	if (rc == 0)
		rc = image_reader_tree(reader, arena, &tree, err);
	if (rc == 0 && !q->o.quiet)
		printf("%s: good (%s, %u blocks, %s)\n", name, view_kind(info), info->n_blocks,
		       text_size(size, info->file_bytes));
	return rc;
}

/* Takes fd over. */
static int verify_fd(const struct request *q, int fd, const char *name, struct err *err)
{
	CLEANUP(free_reader) struct image_reader *reader = NULL;
	int rc = image_reader_open_fd(fd, name, &reader, err);

	if (rc < 0) {
		(void)close(fd);
		return rc;
	}
	return verify_reader(q, reader, name, err);
}

/* Prints what is wrong with one of several images; worst is left without a message, which has been
 * printed. */
static void note_damage(struct err *worst, const struct err *err)
{
	(void)fflush(stdout);
	err_print(PROGRAM, err);
	if (worst->exit_status != EXIT_BAD_IMAGE)
		*worst = *err;
	worst->msg[0] = '\0';
}

/* That the pages of the newest state are all there is known only by following each to where it
 * lies. */
static void verify_newest(const struct subject *s, struct err *worst)
{
	CLEANUP(free_resolved) struct resolved *r = NULL;
	struct err err = { 0 };

	if (subject_resolve(s, &r, &err) < 0)
		note_damage(worst, &err);
}

static int verify_chain(const struct request *q, const struct subject *s, struct err *err)
{
	unsigned n = chain_count(s->chain);
	CLEANUP_FREE int *fds = calloc(n + 1, sizeof *fds);
	struct err worst = { 0 }, one = { 0 };
	char name[PATH_MAX];

	if (!fds)
		return err_nomem(err);
	verify_newest(s, &worst);
	for (unsigned i = 0; i < n; i++) {
		(void)snprintf(name, sizeof name, "%s/%s", s->path, chain_entry(s->chain, i)->name);
		fds[i] = open_image(chain_dirfd(s->chain), chain_entry(s->chain, i)->name, name,
				    &one);
		if (fds[i] == -EMFILE) {
			*err = one;
			return subject_hint_emfile(-EMFILE, err);
		}
		/* a running ckpt-run may have removed what it no longer needs */
		if (fds[i] < 0 && fds[i] != -ENOENT)
			note_damage(&worst, &one);
	}
	subject_sandbox(&q->o, SANDBOX_READ);
	for (unsigned i = 0; i < n; i++) {
		const struct chain_entry *e = chain_entry(s->chain, i);

		if (fds[i] < 0)
			continue;
		err_clear(&one);
		(void)snprintf(name, sizeof name, "%s/%s", s->path, e->name);
		if (verify_fd(q, fds[i], name, &one) < 0)
			note_damage(&worst, &one);
		else if (!e->complete)
			note_damage(&worst, &e->why);
	}
	*err = worst;
	return worst.code;
}

/*
 * --at N: that image and all that it stands on. Each is opened anew: of its parents, a resolved
 * state keeps only what it needs.
 */
static int verify_state(const struct request *q, const struct subject *s, struct err *err)
{
	CLEANUP(free_resolved) struct resolved *r = NULL;
	CLEANUP_FREE int *fds = NULL;
	struct err worst = { 0 }, one = { 0 };
	int rc = subject_resolve(s, &r, err);
	unsigned n = rc < 0 ? 0 : resolved_n_images(r);

	if (rc < 0)
		return rc;
	fds = calloc(n, sizeof *fds);
	if (!fds)
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++) {
		fds[i] = fcntl(image_reader_fd(resolved_image(r, i)), F_DUPFD_CLOEXEC, 0);
		if (fds[i] < 0)
			return subject_hint_emfile(
				err_set(err, -errno, "cannot open the images: %m"), err);
	}
	subject_sandbox(&q->o, SANDBOX_READ);
	for (unsigned i = 0; i < n; i++) {
		err_clear(&one);
		if (verify_fd(q, fds[i], image_reader_name(resolved_image(r, i)), &one) < 0)
			note_damage(&worst, &one);
	}
	*err = worst;
	return worst.code;
}

static int verify_image(const struct request *q, const struct subject *s, struct err *err)
{
	int fd = open_image(AT_FDCWD, s->path, s->name, err);

	if (fd < 0)
		return fd;
	subject_sandbox(&q->o, SANDBOX_READ);
	return verify_fd(q, fd, s->name, err);
}

/* --- the command ---------------------------------------------------------------------------------
 */

static int inspect(const struct request *q, const char *path, struct err *err)
{
	CLEANUP(subject_fini) struct subject s = { 0 };
	int rc = subject_open(&s, path, CHAIN_READ, q->at, err);

	if (rc < 0)
		return rc;
	if (!q->verify)
		return q->page ? show_page(q, &s, err) : show(q, &s, err);
	if (!s.chain)
		return verify_image(q, &s, err);
	return q->at >= 0 ? verify_state(q, &s, err) : verify_chain(q, &s, err);
}

int main(int argc, char **argv)
{
	struct err err = { 0 };
	struct request q;
	const char *path;
	int status = EXIT_DONE;
	bool can = true;

	parse_options(&q, argc, argv);
	path = q.running ? NULL : subject_operand(&q.o);
	(void)signal(SIGPIPE, SIG_IGN);
	tzset(); /* reads a file: not possible in the sandbox */
	if ((q.running ? running_inspect(q.running, q.json, &can, &err) : inspect(&q, path, &err)) <
	    0) {
		(void)fflush(stdout);
		if (err.msg[0])
			err_print(PROGRAM, &err);
		status = err.exit_status ? err.exit_status : EXIT_FAILED;
	}
	if (!can && status == EXIT_DONE)
		status = EXIT_FAILED;
	if (options_close_stdout(PROGRAM) < 0 && status == EXIT_DONE)
		status = EXIT_FAILED;
	return status;
}
