/* SPDX-License-Identifier: BSD-2-Clause */
/* Starting the job: found through PATH, forked with everything just as we got it ourselves. */
#include "run/launch.h"

#include "filter/deny.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/*
 * SIGCHLD must not be ignored while we wait for children, or there would be nothing to wait for. It
 * is the one disposition that we change before the fork, and that the job gets back.
 */
static struct sigaction chld_as_inherited;

static const int deadly[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
static sigset_t mask_as_inherited;
static bool holding;

void launch_hold_signals(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		(void)sigaddset(&set, deadly[i]);
	(void)sigaddset(&set, SIGXFSZ); /* not to die of a limit that is the job's: EFBIG will do */
	holding = sigprocmask(SIG_BLOCK, &set, &mask_as_inherited) == 0;
}

bool launch_interrupted(void)
{
	struct sigaction act;
	sigset_t pending;

	(void)sigpending(&pending);
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		if (holding && sigismember(&pending, deadly[i]) == 1 &&
		    sigismember(&mask_as_inherited, deadly[i]) == 0 &&
		    sigaction(deadly[i], NULL, &act) == 0 && act.sa_handler == SIG_DFL)
			return true;
	return false;
}

void launch_let_signals_in(void)
{
	if (holding)
		(void)sigprocmask(SIG_SETMASK, &mask_as_inherited, NULL);
	holding = false;
}

int launch_guard_streams(struct err *err)
{
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		/* the lowest free number is this one; the wrong access mode makes a use of it fail
		 * as if it were closed */
		if (open("/dev/null", (fd ? O_RDONLY : O_WRONLY) | O_CLOEXEC) < 0)
			return err_set(err, -errno, "cannot open '/dev/null': %m");
	}
	return 0;
}

static int not_found(const char *name, struct err *err)
{
	int rc = err_set(err, -ENOENT, "cannot run '%s': %s", name,
			 strchr(name, '/') ? strerror(ENOENT) : "not found in PATH");

	err->exit_status = EXIT_NOENT;
	return rc;
}

static int not_executable(const char *name, int error, struct err *err)
{
	int rc = err_set(err, -error, "cannot run '%s': %m", name);

	err->exit_status = EXIT_NOEXEC;
	return rc;
}

/* 0, or the errno with which an exec would fail. */
static int check_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode))
		return EISDIR;
	if (!S_ISREG(st.st_mode))
		return EACCES;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

/* One directory of PATH; an empty one is the working directory. */
static int try_directory(const char *dir, size_t len, const char *name, char **ret_path)
{
	CLEANUP_FREE char *path = NULL;
	int error;

	if (asprintf(&path, "%.*s%s%s", (int)len, dir, len ? "/" : "./", name) < 0) {
		path = NULL;
		return ENOMEM;
	}
	/* in a directory that we may not search nothing was found, which is no reason to say
	 * "denied" */
	if (faccessat(AT_FDCWD, path, F_OK, AT_EACCESS) < 0)
		return ENOENT;
	error = check_executable(path);
	if (!error)
		*ret_path = ptr_take(&path);
	return error;
}

int launch_find(const char *name, char **ret_path, struct err *err)
{
	const char *dirs = getenv("PATH");
	int error, worst = ENOENT;

	if (!name[0])
		return not_found(name, err);
	if (strchr(name, '/')) {
		error = check_executable(name);
		if (error == ENOENT || error == ENOTDIR)
			return not_found(name, err);
		if (error)
			return not_executable(name, error, err);
		*ret_path = strdup(name);
		return *ret_path ? 0 : err_nomem(err);
	}
	/* without PATH: what the C library searches then */
	for (const char *dir = dirs ? dirs : "/bin:/usr/bin";; dir++) {
		size_t len = strcspn(dir, ":");

		error = try_directory(dir, len, name, ret_path);
		if (!error)
			return 0;
		if (error == EACCES) /* a directory of that name is not a program that was found */
			worst = error;
		dir += len;
		if (!*dir)
			break;
	}
	return worst == ENOENT ? not_found(name, err) : not_executable(name, worst, err);
}

int launch_start(struct launch *l, struct err *err)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	int go[2], fail[2];

	if (sigaction(SIGCHLD, &dfl, &chld_as_inherited) < 0)
		return err_set(err, -errno, "cannot reset SIGCHLD: %m");
	if (pipe2(go, O_CLOEXEC) < 0)
		return err_set(err, -errno, "cannot make a pipe: %m");
	if (pipe2(fail, O_CLOEXEC) < 0) {
		err_set(err, -errno, "cannot make a pipe: %m");
		(void)close(go[0]);
		(void)close(go[1]);
		return err->code;
	}
	l->pid = fork();
	if (l->pid < 0)
		err_set(err, -errno, "cannot fork: %m");
	(void)close(l->pid ? go[0] : go[1]);
	(void)close(l->pid ? fail[1] : fail[0]);
	l->go_fd = l->pid ? go[1] : go[0];
	l->err_fd = l->pid ? fail[0] : fail[1];
	if (l->pid >= 0)
		return 0;
	(void)close(l->go_fd);
	(void)close(l->err_fd);
	return err->code;
}

_Noreturn void launch_exec(struct launch *l, const char *path, char *const *argv)
{
	char go;
	int error;

	launch_let_signals_in();
	if (io_read_full(l->go_fd, &go, 1) != 1)
		_exit(EXIT_CKPT);
	(void)sigaction(SIGCHLD, &chld_as_inherited, NULL);
	if (l->deny_io_uring && deny_io_uring(NULL) < 0) {
		error = ENOTSUP;
		(void)io_write_full(l->err_fd, &error, sizeof error);
		_exit(EXIT_CKPT);
	}
	/* path holds a slash, so this does not search; a script without a "#!" line goes to the
	 * shell as it would there */
	(void)execvp(path, argv);
	error = errno;
	(void)io_write_full(l->err_fd, &error, sizeof error);
	_exit(EXIT_NOEXEC);
}

int launch_go(struct launch *l, const char *name, struct err *err)
{
	CLEANUP_FD int go_fd = l->go_fd, err_fd = l->err_fd;
	int error = 0;
	ssize_t n;

	/* Should the job be gone already (a Ctrl-C), whoever waits for it will see. SIGPIPE is
	 * blocked by now. */
	(void)io_write_full(go_fd, "", 1);
	n = io_read_full(err_fd, &error, sizeof error);
	if (n != (ssize_t)sizeof error)
		return 0;
	(void)waitpid(l->pid, NULL, 0);
	if (error == ENOTSUP)
		return err_set(err, -ENOTSUP,
			       "cannot deny io_uring to the job: seccomp filters are not allowed "
			       "here");
	/* The file is there: ENOENT is its interpreter's. */
	if (error == ENOENT) {
		not_executable(name, error, err);
		return err_set(err, -error, "cannot run '%s': its interpreter is missing", name);
	}
	return not_executable(name, error, err);
}
