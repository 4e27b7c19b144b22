/* SPDX-License-Identifier: BSD-2-Clause */
/* What the supervisor promises, case by case. */
#include "session.h"

#include "run/launch.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static const struct settings defaults = {
	.full_every = 50, .incremental = 1, .keep = 2, .tracker = (char *)"auto"
};

/* --- cases ---------------------------------------------------------------------------------------
 */

static void test_status(void)
{
	struct set_up u = { .script = "exit 7", .settings = defaults };
	struct session s = begin(&u);

	finish(&s, 7);
	CHECK(!exists("c/finished")); /* no image: nothing that could be finished */
	u.script = "kill -KILL $$";
	s = begin(&u);
	finish(&s, 128 + SIGKILL);
	/* a grandchild that outlives its parent is reaped, and its status is not taken for the
	 * job's */
	u.script = "(sh -c 'exit 3' & ) ; sleep 0.05; exit 4";
	s = begin(&u);
	finish(&s, 4);
}

static void test_forwarding(void)
{
	const struct set_up u = {
		.script = "trap 'echo term; exit 5' TERM; trap 'echo usr2' USR2; trap 'echo hup' "
			  "HUP; echo ready;"
			  "while :; do sleep 0.01; done",
		.settings = defaults,
	};
	struct session s = begin(&u);

	expect_line(&s, "ready");
	CHECK(kill(s.pid, SIGUSR2) == 0);
	expect_line(&s, "usr2");
	CHECK(kill(s.pid, SIGHUP) == 0);
	expect_line(&s, "hup");
	CHECK(kill(s.pid, SIGTERM) == 0);
	expect_line(&s, "term");
	finish(&s, 5);
}

static void test_demand(void)
{
	const struct set_up u = {
		.script = "trap 'exit 0' INT; echo ready; while :; do sleep 0.01; done",
		.settings = defaults,
		.held = true
	};
	struct session s = begin(&u);

	expect_line(&s, "ready");
	CHECK(kill(s.pid, SIGUSR1) == 0);
	expect_attempt(&s, 'a');
	/* asked for again while the first is under way: that one may have seen the state of before
	 */
	CHECK(kill(s.pid, SIGUSR1) == 0);
	release(&s);
	expect_attempt(&s, 'a');
	release(&s);
	/* signals get through while an attempt is under way, and the end of the job is seen after
	 * it */
	CHECK(kill(s.pid, SIGUSR1) == 0);
	expect_attempt(&s, 'a');
	CHECK(kill(s.pid, SIGINT) == 0);
	release(&s);
	finish(&s, 0);
	check_file("c/finished", "exit 0\n");
	CHECK_INT(count_in_file("stats", "\"result\": \"ok\""), 3);
	CHECK_INT(count_in_file("stats", "\n"), 3);
	/* keep 2, of a chain whose increments hang together */
	CHECK(exists("c/000001.img") && exists("c/000002.img") && exists("c/000003.img"));
}

static void test_interval(void)
{
	struct set_up u = { .script = "echo ready; read x < hold; exit 0",
			    .settings = defaults,
			    .held = true };
	struct session s;
	int fd;

	u.settings.interval_ns = 10000000;
	u.settings.full_every = 1;
	(void)unlink("hold");
	CHECK(mkfifo("hold", 0600) == 0);
	s = begin(&u);
	for (int i = 0; i < 5; i++) {
		expect_attempt(&s, 'a');
		release(&s);
	}
	fd = open("hold", O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0 && write(fd, "x\n", 2) == 2);
	(void)close(fd);
	for (int i = 0; i < 64; i++)
		release(&s);
	finish(&s, 0);
	/* every image full, the last two kept */
	CHECK(!exists("c/000001.img") && !exists("c/000003.img"));
	CHECK(count_in_file("stats", "\"kind\": \"full\"") >= 5);
	(void)unlink("hold");
}

static void test_failures(void)
{
	struct set_up u = {
		.script = "echo ready; while :; do sleep 0.01; done",
		.settings = defaults,
		.rc = { -EIO, -EIO, -EIO, -EAGAIN, -EIO, 0, -EIO, -EIO },
		.n_rc = 8,
	};
	struct session s;

	u.settings.interval_ns = 5000000;
	s = begin(&u);
	for (int i = 0; i < 9; i++)
		expect_attempt(&s, 'a');
	CHECK(kill(s.pid, SIGTERM) == 0);
	finish(&s, 128 + SIGTERM);
	/* once while it lasts, and again when it comes back after a success */
	CHECK_INT(
		count_in_file("stderr", "test: checkpoint failed: made to fail; the job goes on\n"),
		2);
	CHECK(count_in_file("stats", "\"result\": \"failed\"") >= 6);
	CHECK_INT(count_in_file("stats", "\"result\": \"skipped\""), 1);
	CHECK_INT(count_in_file("stats", "\"result\": \"ok\""), 1);
	/* it died by a signal: it can be restarted */
	CHECK(exists("c/000001.img") && !exists("c/finished"));
}

static void test_on_term(void)
{
	struct set_up u = {
		.script = "trap 'echo term' TERM; echo ready; while :; do sleep 0.01; done",
		.settings = defaults
	};
	struct session s;

	u.settings.on_term = 1;
	u.held = true;
	s = begin(&u);
	expect_line(&s, "ready");
	/* while another attempt is under way */
	CHECK(kill(s.pid, SIGUSR1) == 0);
	expect_attempt(&s, 'a');
	CHECK(kill(s.pid, SIGTERM) == 0);
	CHECK(kill(s.pid, SIGTERM) == 0);
	release(&s);
	expect_attempt(&s, 'k');
	release(&s);
	finish(&s, EXIT_REQUEUE);
	CHECK(exists("c/000002.img") && !exists("c/finished"));

	/* it cannot be saved: then SIGTERM means what it would have meant */
	u.held = false;
	u.rc[0] = -EOPNOTSUPP;
	u.n_rc = 1;
	u.script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
	s = begin(&u);
	expect_line(&s, "ready");
	CHECK(kill(s.pid, SIGTERM) == 0);
	expect_attempt(&s, 'k');
	finish(&s, 9);
	CHECK_INT(count_in_file("stderr", "checkpoint failed: made to fail"), 1);
}

static void test_once(void)
{
	struct set_up u = { .script = "while :; do sleep 0.01; done",
			    .settings = defaults,
			    .attached = true,
			    .once = true };
	struct session s;

	u.rc[0] = -EAGAIN;
	u.n_rc = 2;
	s = begin(&u);
	finish(&s, 0);
	CHECK(exists("c/000001.img") && !exists("c/finished"));
	u.kill = true;
	s = begin(&u);
	expect_attempt(&s, 'k');
	finish(&s, 0);
	u.kill = false;
	u.rc[0] = -EPERM;
	u.n_rc = 1;
	s = begin(&u);
	finish(&s, EXIT_CKPT);
	check_file("stderr", "test: made to fail\n");
}

static void test_let_go(void)
{
	const struct set_up u = {
		.script = "trap 'echo term' TERM; echo ready; while :; do sleep 0.01; done",
		.settings = defaults,
		.attached = true
	};
	struct session s = begin(&u);

	expect_line(&s, "ready");
	CHECK(kill(s.pid, SIGUSR1) == 0);
	expect_attempt(&s, 'a');
	CHECK(kill(s.pid, SIGTERM) == 0);
	finish(&s, 128 + SIGTERM);
	CHECK(exists("c/000001.img") && !exists("c/finished"));
}

/* The job is stopped as by Ctrl-Z; the supervisor follows, and takes it along when it is continued.
 */
static void test_stop(void)
{
	const struct set_up u = { .script = "echo ready; kill -TSTP $$; echo on; exit 0",
				  .settings = defaults };
	struct session s = begin(&u);
	int status;

	expect_line(&s, "ready");
	CHECK(waitpid(s.pid, &status, WUNTRACED) == s.pid && WIFSTOPPED(status));
	CHECK(kill(s.pid, SIGCONT) == 0);
	expect_line(&s, "on");
	finish(&s, 0);
}

/* A session of its own on a new terminal, in whose foreground the supervisor and its job are. */
static void take_terminal(void)
{
	int fd;

	(void)setsid();
	fd = open(ptsname(terminal_master),
		  O_RDWR | O_CLOEXEC); /* becomes the controlling terminal */
	CHECK(fd >= 0 && tcgetpgrp(fd) == getpgrp());
	(void)dup2(fd, 0);
}

/* Ctrl-C reaches the job once, by way of the terminal, and does not end the supervisor;
 * Ctrl-\ likewise. */
static void test_terminal(void)
{
	const struct set_up u = {
		.script = "n=0; trap 'n=$((n+1))' INT; trap 'echo $n; exit 6' QUIT; echo ready;"
			  "while :; do sleep 0.01; [ $n = 0 ] || { sleep 0.1; echo int; }; done",
		.settings = defaults,
		.before = take_terminal,
	};
	struct session s;
	char line[8];

	terminal_master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(terminal_master >= 0 && grantpt(terminal_master) == 0 &&
	      unlockpt(terminal_master) == 0);
	s = begin(&u);
	expect_line(&s, "ready");
	CHECK(write(terminal_master, "\003", 1) == 1);
	expect_line(&s, "int");
	CHECK(write(terminal_master, "\034", 1) == 1);
	do { /* more lines "int" may have been on their way */
		size_t n = 0;

		while (n < sizeof line && read(s.out_fd, line + n, 1) == 1 && line[n] != '\n')
			n++;
		line[n] = '\0';
	} while (strcmp(line, "int") == 0);
	CHECK_STR(line, "1");
	finish(&s, 6);
	(void)close(terminal_master);
	terminal_master = -1;
}

static void ignore_some(void)
{
	sigset_t set;

	(void)signal(SIGCHLD, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGWINCH);
	(void)sigprocmask(SIG_SETMASK, &set, NULL);
	(void)close(0); /* to be guarded, and closed again for the job */
	struct err err;
	CHECK(launch_guard_streams(&err) == 0 && fcntl(0, F_GETFD) == FD_CLOEXEC);
}

static bool fds_as_given(pid_t pid)
{
	char path[64];

	for (int fd = 0; fd < 1024; fd++) {
		(void)snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
		if ((faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) !=
		    (fd == 1 || fd == 2))
			return false;
	}
	return true;
}

/* Only 1 and 2 are open in the process, once it has executed sleep and loaded its libraries. */
static void check_fds(pid_t pid)
{
	const struct timespec while_it_loads = { .tv_nsec = 5000000 };

	char path[64], comm[32] = "";

	while (strcmp(comm, "sleep\n") != 0) {
		CLEANUP_FREE char *text = NULL;

		(void)snprintf(path, sizeof path, "/proc/%d/comm", pid);
		CHECK(io_read_file(AT_FDCWD, path, &text, NULL) == 0);
		(void)snprintf(comm, sizeof comm, "%s", text);
	}
	for (int i = 0; i < 2000 && !fds_as_given(pid); i++)
		(void)nanosleep(&while_it_loads, NULL);
	CHECK(fds_as_given(pid));
}

/* Mask, dispositions and descriptors are those that the supervisor was started with. */
static void test_inheritance(void)
{
	struct set_up u = {
		.script = "/Sig[BI]",
		.settings = defaults,
		.before = ignore_some,
	};
	struct session s = begin(&u);
	char pid[16];
	size_t n = 0;

	expect_line(&s, "SigBlk:\t0000000008000000"); /* SIGWINCH is 28 */
	expect_line(&s, "SigIgn:\t0000000000010001"); /* SIGHUP 1, SIGCHLD 17 */
	finish(&s, 0);
	u.script = "echo $$; exec sleep 100";
	s = begin(&u);
	while (n < sizeof pid - 1 && read(s.out_fd, pid + n, 1) == 1 && pid[n] != '\n')
		n++;
	pid[n] = '\0';
	check_fds(atoi(pid));
	CHECK(kill(s.pid, SIGTERM) == 0);
	finish(&s, 128 + SIGTERM);
}

static void test_exec_failure(void)
{
	char *argv[] = { (char *)"./script", NULL };
	struct err err = { 0 };
	struct launch l = { 0 };
	FILE *f = fopen("script", "we");

	CHECK(f && fputs("#!/nowhere/interpreter\n", f) > 0 && fclose(f) == 0 &&
	      chmod("script", 0700) == 0);
	CHECK(launch_start(&l, &err) == 0);
	if (l.pid == 0)
		launch_exec(&l, "./script", argv);
	CHECK(launch_go(&l, "./script", &err) < 0);
	CHECK_STR(err.msg, "cannot run './script': its interpreter is missing");
	CHECK_INT(err.exit_status, EXIT_NOEXEC);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	(void)unlink("script");
}

int main(void)
{
	char dir[] = "/tmp/supervise.XXXXXX";

	CHECK(mkdtemp(dir) && chdir(dir) == 0);
	(void)alarm(100);             /* a hang is a failure, too */
	(void)close_range(3, ~0u, 0); /* what the one who runs the tests left open */
	test_status();
	test_forwarding();
	test_demand();
	test_interval();
	test_failures();
	test_on_term();
	test_once();
	test_let_go();
	test_stop();
	test_terminal();
	test_inheritance();
	test_exec_failure();
	CHECK(chdir("/") == 0);
	remove_all(dir);
	return 0;
}
