/* SPDX-License-Identifier: BSD-2-Clause */
/* The rounds: descriptors are set up, captured and rebuilt twice; the last process verifies. */
#include "harness.h"

#include <dirent.h>
#include <ftw.h>
#include <grp.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define GENERATIONS 2

char test_dir[64];
const struct tree *last_tree;
long last_capture_us;
static char *complaint; /* shared by all processes of a test */
static struct string keys[64];
static unsigned n_keys;

const char *in_dir(const char *name)
{
	static char path[4][256];
	static unsigned next;

	(void)snprintf(path[++next % 4], sizeof path[0], "%s/%s", test_dir, name);
	return path[next % 4];
}

void fail(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	va_list ap;
	int n;

	n = snprintf(complaint, 256, "%s:%d: ", base ? base + 1 : file, line);
	va_start(ap, fmt);
	(void)vsnprintf(complaint + n, 3800, fmt, ap);
	va_end(ap);
	_exit(1);
}

void move_fd(int from, int to)
{
	CHECK(from >= 0);
	if (from == to)
		return;
	CHECK(dup3(from, to, fcntl(from, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0) == to);
	CHECK(close(from) == 0);
}

bool shares_description(int a, int b)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, (unsigned long)a,
		       (unsigned long)b) == 0;
}

/* Ids stay the same along the generations, as they do along a chain. */
static uint32_t space_id(void *arg, const char *key)
{
	(void)arg;
	for (unsigned i = 0; i < n_keys; i++)
		if (!strcmp(keys[i].s, key))
			return i + 1;
	keys[n_keys].s = strdup(key);
	return ++n_keys;
}

static pid_t start(const struct test *t)
{
	pid_t pid;

	if (t->outside)
		t->outside();
	pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!t->outside) {
			(void)syscall(SYS_close_range, 0, ~0U, 0);
			CHECK_EQ(open("/dev/null", O_RDWR), 0);
			CHECK_EQ(dup(0), 1);
			CHECK_EQ(dup(0), 2);
		}
		t->setup();
		raise(SIGSTOP);
		_exit(0);
	}
	return pid;
}

static bool wait_stopped(pid_t pid)
{
	int status;

	return waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status);
}

static int capture(struct capture *c, struct subject *s, pid_t pid, struct err *err)
{
	struct timespec before, after;
	int rc;

	c->arena = arena_new();
	c->tree = arena_alloc(c->arena, sizeof *c->tree);
	c->tree->processes = arena_alloc(c->arena, sizeof *c->tree->processes);
	c->tree->n_processes = 1;
	c->tree->processes[0].pid = pid;
	c->space_id = space_id;
	*s = (struct subject){ .process = c->tree->processes,
			       .pid = pid,
			       .batch = batch_new(NULL, NULL) };
	c->subjects = s;
	c->n_subjects = 1;
	s->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(s->pidfd >= 0);
	CHECK(proc_open_pid(pid, &s->proc_dirfd, err) == 0);
	(void)clock_gettime(CLOCK_MONOTONIC, &before);
	rc = files_capture(c, err);
	files_capture_done(c);
	(void)clock_gettime(CLOCK_MONOTONIC, &after);
	last_capture_us =
		(after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
	batch_free(s->batch);
	(void)close(s->pidfd);
	(void)close(s->proc_dirfd);
	last_tree = c->tree;
	return rc;
}

static int32_t new_id(const struct rebuild *rb, int32_t recorded)
{
	return recorded == rb->tree->processes[0].pid ? getpid() : 0;
}

/* What restore/fill.c does from an image: content from the sources, zero pages left out. */
static void fill(const struct capture *c, const struct rebuild *rb)
{
	static const char zeros[CKPT_PAGE_SIZE];
	char page[CKPT_PAGE_SIZE];

	for (unsigned i = 0; i < c->tree->n_spaces; i++)
		for (unsigned k = 0; k < c->n_sources; k++) {
			ssize_t n;

			if (c->sources[k].space != c->tree->spaces[i].id)
				continue;
			for (off_t at = 0; (n = pread(c->sources[k].fd, page, sizeof page, at)) > 0;
			     at += n)
				if (memcmp(page, zeros, (size_t)n))
					CHECK_EQ(pwrite(rb->space_fds[i], page, (size_t)n, at), n);
		}
}

static void rebuild(const struct test *t, const struct capture *c, bool last)
{
	struct rebuild rb = { .tree = c->tree,
			      .opts = t->opts,
			      .arena = arena_new(),
			      .fd_base = 300,
			      .new_id = new_id };
	struct batch *b = batch_new(NULL, NULL);
	struct err err = { 0 };

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (t->caller)
		t->caller();
	if (files_check(&rb, &err) < 0 || files_open(&rb, &err) < 0)
		fail(__FILE__, __LINE__, "rebuild: %s", err.msg);
	fill(c, &rb);
	if (files_seal(&rb, NULL, NULL, &err) < 0 ||
	    files_place(&rb, c->tree->processes, b, getpid(), &err) < 0 ||
	    files_place_late(&rb, c->tree->processes, b, getpid(), &err) < 0)
		fail(__FILE__, __LINE__, "place: %s", err.msg);
	if (last)
		t->verify();
	else
		raise(SIGSTOP);
	_exit(0);
}

static void expect(const struct test *t, int rc, const struct err *err)
{
	if (rc >= 0)
		fail(__FILE__, __LINE__, "did not fail with '%s'", t->fails);
	if (!strstr(err->msg, t->fails) || (t->code && rc != t->code))
		fail(__FILE__, __LINE__, "failed with %d '%s', not with '%s'", rc, err->msg,
		     t->fails);
}

static void end(pid_t pid)
{
	int status;

	(void)kill(pid, SIGKILL);
	CHECK(waitpid(pid, &status, 0) == pid);
}

static void one_generation(const struct test *t, pid_t *pid, int g)
{
	struct rebuild rb = { .opts = t->opts };
	struct capture c = { 0 };
	struct err err = { 0 };
	struct subject s;
	int rc, status;

	if (!wait_stopped(*pid))
		_exit(1); /* it has said why */
	rc = capture(&c, &s, *pid, &err);
	end(*pid);
	if (t->fails && !t->check_fails) {
		expect(t, rc, &err);
		_exit(0);
	}
	if (rc < 0)
		fail(__FILE__, __LINE__, "capture %d: %s", g, err.msg);
	if (t->between)
		t->between();
	if (t->check_fails) {
		rb.tree = c.tree;
		rb.arena = c.arena;
		expect(t, files_check(&rb, &err), &err);
		_exit(0);
	}
	*pid = fork();
	if (*pid == 0)
		rebuild(t, &c, g == GENERATIONS - 1);
	capture_close_sources(&c);
	if (g == GENERATIONS - 1) {
		CHECK(waitpid(*pid, &status, 0) == *pid);
		_exit(WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1);
	}
}

static void run_one(const struct test *t)
{
	pid_t pid = start(t);

	for (int g = 0; g < GENERATIONS; g++)
		one_generation(t, &pid, g);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	return ftw->level ? remove(path) : 0;
}

static bool run_test(const struct test *t, const char *as)
{
	int status;
	pid_t pid;

	complaint[0] = '\0';
	(void)fflush(stdout);
	pid = fork();
	if (pid == 0) {
		(void)alarm(100); /* a hang is a failure, too */
		run_one(t);
	}
	while (waitpid(pid, &status, 0) != pid)
		;
	(void)nftw(test_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("ok - %s%s\n", t->name, as);
		return true;
	}
	printf("not ok - %s%s: %s (status 0x%x)\n", t->name, as, complaint, status);
	return false;
}

static int run_all(const struct test *tests, unsigned n, const char *as)
{
	bool root = geteuid() == 0;
	int bad = 0;

	(void)snprintf(test_dir, sizeof test_dir, "/tmp/ckpt-object-XXXXXX");
	if (!mkdtemp(test_dir))
		return 1;
	for (unsigned i = 0; i < n; i++)
		if (root || !tests[i].root_only)
			bad += !run_test(&tests[i], as);
	(void)rmdir(test_dir);
	return bad;
}

int run_tests(const struct test *tests, unsigned n)
{
	int status, bad;
	pid_t pid;

	complaint = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (complaint == MAP_FAILED)
		return 1;
	bad = run_all(tests, n, "");
	if (geteuid() != 0)
		return bad ? 1 : 0;
	(void)fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 ||
		    setresuid(65534, 65534, 65534) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
			_exit(1);
		bad = run_all(tests, n, " (unprivileged)");
		(void)fflush(stdout);
		_exit(bad ? 1 : 0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		bad++;
	return bad ? 1 : 0;
}
