/* SPDX-License-Identifier: BSD-2-Clause */
/* Standard streams that lead outside, and what ckpt-restart's own are taken for. */
#include "harness.h"

#include <pty.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

static int kept[8]; /* descriptors of the harness: what lies outside the job */

/* Runs in the harness; the job inherits 0, 1 and 2 from it, and closes the rest in its setup. */
static void streams(int in, int out, int err)
{
	CHECK(dup2(in, 60) == 60 && dup2(out, 61) == 61 && dup2(err, 62) == 62);
	CHECK(dup2(60, 0) == 0 && dup2(61, 1) == 1 && dup2(62, 2) == 2);
	(void)close(60);
	(void)close(61);
	(void)close(62);
}

static void only_streams(void)
{
	(void)close_range(3, ~0U, 0);
}

static void put_as(int fd, const char *s)
{
	CHECK_EQ(write(fd, s, strlen(s)), strlen(s));
}

/* --- pipes, as in `a | ckpt-run job | b` ------------------------------------------------------ */

static void pipeline_outside(void)
{
	int in[2], out[2];

	CHECK(pipe(in) == 0 && pipe(out) == 0);
	streams(in[0], out[1], out[1]);
	(void)close(in[0]);
	(void)close(out[1]);
	kept[0] = in[1];
	kept[1] = out[0];
	put_as(in[1], "not the job's to keep");
}

static void pipeline_setup(void)
{
	only_streams();
	CHECK(dup2(1, 9) == 9); /* as shells keep it */
	move_fd(open("/proc/self/fd/1", O_WRONLY), 10);
}

/* ckpt-restart has other streams: standard output a file, say. */
static void pipeline_caller(void)
{
	int in[2];

	CHECK(pipe(in) == 0);
	put_as(in[1], "new input");
	streams(in[0], open(in_dir("stdout"), O_CREAT | O_RDWR | O_APPEND, 0600),
		open(in_dir("stderr"), O_CREAT | O_RDWR | O_APPEND, 0600));
}

static void pipeline_verify(void)
{
	struct stat out, err, st;
	char buf[64] = "";

	CHECK(fstat(1, &out) == 0 && fstat(2, &err) == 0);
	CHECK(stat(in_dir("stdout"), &st) == 0 && st.st_ino == out.st_ino);
	CHECK(stat(in_dir("stderr"), &st) == 0 && st.st_ino == err.st_ino);
	CHECK(fstat(9, &st) == 0 && st.st_ino == out.st_ino);
	CHECK(fstat(10, &st) == 0 && st.st_ino == out.st_ino);
	CHECK(read(0, buf, sizeof buf) == 9 && !memcmp(buf, "new input", 9));
}

/* The first generation was taken from the caller's own streams: files now. Nothing of the old pipe
 * was read. */
static void pipeline_between(void)
{
	const struct file_outside *d;

	if (last_tree->files[0].kind != FILE_OUTSIDE)
		return; /* second generation: regular files */
	d = last_tree->files[0].detail;
	CHECK_EQ(d->stream, 0);
	CHECK(!strcmp(d->what, "pipe"));
}

/*
 * --- ends of a pipeline that have ended ----------------------------------------------------------
 */

/* What the writer of standard input has left is kept; output that nobody reads any more goes
 * elsewhere. */
static void ended_outside(void)
{
	int in[2], out[2];

	CHECK(pipe(in) == 0 && pipe(out) == 0);
	put_as(in[1], "all there is");
	streams(in[0], out[1], open("/dev/null", O_RDWR));
	(void)close(in[0]);
	(void)close(in[1]);
	(void)close(out[0]);
	(void)close(out[1]);
}

static void ended_caller(void)
{
	streams(open("/dev/null", O_RDWR), open(in_dir("out"), O_CREAT | O_WRONLY, 0600), 2);
}

static void ended_verify(void)
{
	struct stat a, b;
	char buf[64];

	CHECK_EQ(read(0, buf, sizeof buf), 12);
	CHECK(!memcmp(buf, "all there is", 12));
	CHECK_EQ(read(0, buf, sizeof buf), 0);
	CHECK(fstat(1, &a) == 0 && stat(in_dir("out"), &b) == 0);
	CHECK_EQ(a.st_ino, b.st_ino);
}

/* --- sockets, as under inetd or ssh ----------------------------------------------------------- */

static void socket_outside(void)
{
	int sv[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
	streams(sv[0], sv[0], sv[0]);
	(void)close(sv[0]);
	kept[0] = sv[1];
}

static void socket_setup(void)
{
	only_streams();
	CHECK(dup2(0, 7) == 7);
}

static void socket_caller(void)
{
	int sv[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
	streams(sv[0], sv[0], sv[0]);
	move_fd(sv[1], 250);
}

static void socket_verify(void)
{
	struct stat a, b;

	CHECK(fstat(0, &a) == 0 && S_ISSOCK(a.st_mode));
	CHECK(fstat(1, &b) == 0 && a.st_ino == b.st_ino);
	CHECK(fstat(7, &b) == 0 && a.st_ino == b.st_ino);
}

/* --- terminals -------------------------------------------------------------------------------- */

static void tty_outside(void)
{
	int master, slave;

	CHECK(openpty(&master, &slave, NULL, NULL, NULL) == 0);
	CHECK(fchmod(slave, 0666) == 0 || geteuid() != 0);
	streams(slave, slave, slave);
	(void)close(slave);
	kept[0] = master;
}

static void tty_setup(void)
{
	only_streams();
	CHECK(dup2(2, 5) == 5);
	move_fd(open("/proc/self/fd/0", O_RDONLY | O_NOCTTY),
		6); /* the same terminal, opened by name */
	CHECK(fcntl(1, F_SETFL, fcntl(1, F_GETFL) | O_NONBLOCK) == 0);
}

/* The same terminal, opened anew: what the job set on its description is not on this one. */
static void tty_caller(void)
{
	streams(open("/proc/self/fd/0", O_RDWR | O_NOCTTY),
		open("/proc/self/fd/1", O_RDWR | O_NOCTTY),
		open("/proc/self/fd/2", O_RDWR | O_NOCTTY));
	CHECK_EQ(fcntl(1, F_GETFL) & O_NONBLOCK, 0);
}

static void tty_verify(void)
{
	struct stat a, b;

	CHECK(fstat(0, &a) == 0 && isatty(0) && isatty(1) && isatty(2));
	CHECK(fstat(5, &b) == 0 && a.st_rdev == b.st_rdev);
	CHECK(fstat(6, &b) == 0 && a.st_rdev == b.st_rdev);
	CHECK(!shares_description(0, 6));
	CHECK_EQ(fcntl(6, F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQ(fcntl(1, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
}

/* --- files out of reach ----------------------------------------------------------------------- */

/* Somebody else's file, as when root redirects the output of a job that runs as another user. */
static void reach_setup(void)
{
	CHECK(mkdir(in_dir("d"), 0700) == 0);
	CHECK(dup2(open(in_dir("d/out"), O_CREAT | O_WRONLY, 0600), 1) == 1);
	(void)close_range(3, ~0U, 0);
	CHECK(chmod(in_dir("d"), 0) == 0);
}

static void reach_between(void)
{
	static int generation;

	if (generation++ == 0)
		CHECK_EQ(last_tree->files[1].kind, geteuid() == 0 ? FILE_REGULAR : FILE_OUTSIDE);
	CHECK(chmod(in_dir("d"), 0700) == 0);
}

static void reach_caller(void)
{
	streams(0, open(in_dir("elsewhere"), O_CREAT | O_WRONLY, 0600), 2);
}

static void reach_verify(void)
{
	struct stat a, b;

	CHECK(fstat(1, &a) == 0 && stat(in_dir(geteuid() == 0 ? "d/out" : "elsewhere"), &b) == 0);
	CHECK_EQ(a.st_ino, b.st_ino);
}

/* --- refusals and --inherit ------------------------------------------------------------------- */

/* The reader is a process outside the job (a child of it here, but not captured), as in `9>
 * >(logger)`. */
static void other_pipe_setup(void)
{
	int ends[2];

	CHECK(pipe(ends) == 0);
	if (fork() == 0) {
		(void)alarm(30);
		for (;;)
			(void)pause();
	}
	(void)close(ends[0]);
	move_fd(ends[1], 9);
}

static void other_reader_setup(void)
{
	int ends[2];

	CHECK(pipe(ends) == 0);
	if (fork() == 0) {
		(void)alarm(30);
		for (;;)
			(void)pause();
	}
	(void)close(ends[1]);
	move_fd(ends[0], 9);
}

/* Both ends are inherited: the job's own descriptors alone do not show that others have it too. */
static void jobserver_outside(void)
{
	int ends[2];

	CHECK(pipe(ends) == 0);
	streams(open("/dev/null", O_RDWR), 0, 0);
	move_fd(ends[0], 58);
	move_fd(ends[1], 59);
	CHECK(dup2(58, 8) == 8 && dup2(59, 9) == 9);
}

static void jobserver_setup(void)
{
	(void)close_range(3, 7, 0);
	(void)close_range(10, ~0U, 0);
}

static void inherit_setup(void)
{
	int fd = open(in_dir("old"), O_CREAT | O_RDWR, 0600);

	move_fd(fd, 9);
	CHECK(dup2(9, 11) == 11);
}

static void inherit_between(void)
{
	(void)unlink(in_dir("old"));
	CHECK(dup2(open(in_dir("new"), O_CREAT | O_RDWR, 0600), 9) == 9);
}

static void inherit_verify(void)
{
	struct stat a, b;

	CHECK(fstat(9, &a) == 0 && stat(in_dir("new"), &b) == 0 && a.st_ino == b.st_ino);
	CHECK(fstat(11, &b) == 0 && a.st_ino == b.st_ino);
}

static const int inherit_fds[] = { 9 };
static const struct rebuild_opts inherit_opts = { .inherit = inherit_fds, .n_inherit = 1 };

static void inherit_closed(void)
{
	(void)close(9);
}

static void no_stdout(void)
{
	(void)close(1);
}

static const struct test tests[] = {
	{ .name = "pipeline",
	  .outside = pipeline_outside,
	  .setup = pipeline_setup,
	  .between = pipeline_between,
	  .caller = pipeline_caller,
	  .verify = pipeline_verify },
	{ .name = "pipeline whose other ends have ended",
	  .outside = ended_outside,
	  .setup = only_streams,
	  .caller = ended_caller,
	  .verify = ended_verify },
	{ .name = "socket",
	  .outside = socket_outside,
	  .setup = socket_setup,
	  .caller = socket_caller,
	  .verify = socket_verify },
	{ .name = "terminal",
	  .outside = tty_outside,
	  .setup = tty_setup,
	  .caller = tty_caller,
	  .verify = tty_verify },
	{ .name = "standard output out of reach",
	  .setup = reach_setup,
	  .between = reach_between,
	  .caller = reach_caller,
	  .verify = reach_verify },
	{ .name = "no standard output to take",
	  .outside = tty_outside,
	  .setup = tty_setup,
	  .between = no_stdout,
	  .fails = "standard output led to a terminal",
	  .check_fails = true,
	  .code = -EBADF },
	{ .name = "another pipe to the outside",
	  .setup = other_pipe_setup,
	  .fails = "fd 9: this pipe led out of the job",
	  .check_fails = true,
	  .code = -EBADF },
	{ .name = "another pipe from the outside",
	  .setup = other_reader_setup,
	  .fails = "fd 9: this pipe led out of the job",
	  .check_fails = true,
	  .code = -EBADF },
	{ .name = "both ends of a pipe that others have too",
	  .outside = jobserver_outside,
	  .setup = jobserver_setup,
	  .fails = "fd 8: this pipe led out of the job",
	  .check_fails = true,
	  .code = -EBADF },
	{ .name = "--inherit",
	  .setup = inherit_setup,
	  .between = inherit_between,
	  .verify = inherit_verify,
	  .opts = &inherit_opts },
	{ .name = "--inherit of what is not open",
	  .setup = inherit_setup,
	  .between = inherit_closed,
	  .fails = "--inherit 9: descriptor 9 is not open",
	  .check_fails = true,
	  .opts = &inherit_opts },
};

int main(void)
{
	return run_tests(tests, ARRAY_SIZE(tests));
}
