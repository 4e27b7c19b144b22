/* SPDX-License-Identifier: BSD-2-Clause */
/* A supervisor in a process of its own, with a job that is a little shell script and a dump of
 * ours. */
#include "session.h"

#include "run/launch.h"
#include "run/signals.h"
#include "run/supervise.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

int terminal_master = -1;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

void remove_all(const char *path)
{
	(void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A script "/PATTERN" stands for grep PATTERN /proc/self/status, without a shell that would clear
 * its mask. */
static pid_t start_job(const char *script, int *ret_pidfd, int *ret_signal_fd)
{
	bool grep = script[0] == '/';
	char *argv[] = { (char *)(grep ? "grep" : "sh"), (char *)(grep ? "-e" : "-c"),
			 (char *)script + grep, (char *)(grep ? "/proc/self/status" : NULL), NULL };
	struct err err = { 0 };
	struct launch l = { 0 };

	CHECK(launch_start(&l, &err) == 0);
	if (l.pid == 0)
		launch_exec(&l, grep ? "/bin/grep" : "/bin/sh", argv);
	CHECK(signals_open(ret_signal_fd, &err) == 0);
	*ret_pidfd = (int)syscall(SYS_pidfd_open, l.pid, 0);
	CHECK(*ret_pidfd >= 0 && launch_go(&l, "sh", &err) == 0);
	return l.pid;
}

_Noreturn static void be_supervisor(const struct set_up *u)
{
	struct supervise_opts o = { .program = "test",
				    .settings = &u->settings,
				    .stats_fd = -1,
				    .child = -1,
				    .status_fd = -1 };
	struct supervise_end end;
	struct err err = { 0 };
	int signal_fd, rc;

	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	memcpy(fake.rc, u->rc, sizeof fake.rc);
	fake.n_steps = u->n_rc;
	CHECK(u->no_chain || chain_open("c", CHAIN_CREATE, &o.chain, &err) == 0);
	CHECK(u->no_chain || chain_scan(o.chain, &err) == 0);
	o.once = u->once;
	o.kill = u->kill;
	o.attached = u->attached;
	o.stats_fd = open("stats", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	o.root = start_job(u->script, &o.pidfd, &signal_fd);
	o.child = u->attached ? -1 : o.root;
	rc = supervise(&o, signal_fd, &end, &err);
	if (rc < 0)
		fprintf(stderr, "test: %s\n", err.msg);
	else if (supervise_mark_chain(o.chain, &end, &err) < 0)
		fprintf(stderr, "test: %s\n", err.msg);
	if (u->attached)
		(void)kill(o.root, SIGKILL);
	_exit(supervise_exit_status(&end, u->once));
}

struct session begin(const struct set_up *u)
{
	int out[2], attempt[2], release[2];
	struct session s;

	remove_all("c");
	(void)unlink("stats");
	CHECK(pipe2(out, O_CLOEXEC) == 0 && pipe2(attempt, O_CLOEXEC) == 0 &&
	      pipe2(release, O_CLOEXEC) == 0);
	s.err = fopen("stderr", "w+e");
	CHECK(s.err);
	s.pid = fork();
	CHECK(s.pid >= 0);
	if (s.pid == 0) {
		CHECK(terminal_master >= 0 || setpgid(0, 0) == 0);
		CHECK(dup2(out[1], 1) == 1 && dup2(fileno(s.err), 2) == 2);
		(void)close(out[0]);
		fake.report_fd = attempt[1];
		fake.hold_fd = u->held ? release[0] : -1;
		(void)close(release[1]);
		if (u->before)
			u->before();
		be_supervisor(u);
	}
	s.out_fd = out[0];
	s.attempt_fd = attempt[0];
	s.release_fd = release[1];
	(void)close(out[1]);
	(void)close(attempt[1]);
	(void)close(release[0]);
	return s;
}

void expect_line(struct session *s, const char *want)
{
	char line[128];
	size_t n = 0;

	while (n < sizeof line - 1 && read(s->out_fd, line + n, 1) == 1 && line[n] != '\n')
		n++;
	line[n] = '\0';
	CHECK_STR(line, want);
}

void expect_attempt(struct session *s, char kind)
{
	char c = 0;

	CHECK(io_read_full(s->attempt_fd, &c, 1) == 1);
	CHECK_INT(c, kind);
}

void release(struct session *s)
{
	CHECK(io_write_full(s->release_fd, "", 1) == 0);
}

void finish(struct session *s, int want_status)
{
	int status;

	CHECK(waitpid(s->pid, &status, 0) == s->pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != want_status) {
		char text[4096];

		text[pread(fileno(s->err), text, sizeof text - 1, 0)] = '\0';
		fprintf(stderr, "supervisor's status 0x%x, not exit %d; it said:\n%s\n", status,
			want_status, text);
		exit(1);
	}
	(void)close(s->out_fd);
	(void)close(s->attempt_fd);
	(void)close(s->release_fd);
	(void)fclose(s->err);
}

void check_file(const char *path, const char *want)
{
	CLEANUP_FREE char *text = NULL;

	CHECK(io_read_file(AT_FDCWD, path, &text, NULL) == 0);
	CHECK_STR(text, want);
}

unsigned count_in_file(const char *path, const char *what)
{
	CLEANUP_FREE char *text = NULL;
	unsigned n = 0;

	CHECK(io_read_file(AT_FDCWD, path, &text, NULL) == 0);
	for (char *p = text; (p = strstr(p, what)); p++)
		n++;
	return n;
}

bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}
