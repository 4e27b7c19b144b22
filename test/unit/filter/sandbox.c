/* SPDX-License-Identifier: BSD-2-Clause */
/* Tries in the sandbox what it forbids, and what the commands need; each attempt in a child of its
 * own. */
#include "filter/sandbox.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* What a child found out about one attempt; the exit status of the child. */
enum outcome { DONE = 10, REFUSED = 11, OTHER = 12, KILLED = 13 };

static int file_fd; /* open for reading and writing */

static int outcome_of(long rc)
{
	return rc >= 0 ? DONE : errno == EPERM ? REFUSED : OTHER;
}

static int try_open(void)
{
	return outcome_of(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int try_create(void)
{
	return outcome_of(
		openat(AT_FDCWD, "sandbox-test-file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int try_exec(void)
{
	return outcome_of(execl("/bin/true", "true", (char *)NULL));
}

static int try_socket(void)
{
	return outcome_of(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int try_connect(void)
{
	struct sockaddr addr = { .sa_family = AF_UNIX };

	return outcome_of(connect(file_fd, &addr, sizeof addr));
}

static int try_ptrace(void)
{
	return outcome_of(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
}

static int try_fork(void)
{
	return outcome_of(fork());
}

static int try_readv_of_parent(void)
{
	struct iovec iov = { &file_fd, sizeof file_fd };

	return outcome_of(process_vm_readv(getppid(), &iov, 1, &iov, 1, 0));
}

static int try_kill_parent(void)
{
	return outcome_of(kill(getppid(), 0));
}

static int try_exec_memory(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return outcome_of(p == MAP_FAILED ? -1 : 0);
}

static int try_mprotect_exec(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return OTHER;
	return outcome_of(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int try_write(void)
{
	return outcome_of(pwrite(file_fd, "x", 1, 0) < 0 ? -1 : write(file_fd, "x", 1));
}

static int try_read(void)
{
	char c;

	return outcome_of(pread(file_fd, &c, 1, 0));
}

static int try_rename(void)
{
	/* EXDEV, ENOENT ...: the call went through to the kernel */
	return renameat(-1, "a", -1, "b") < 0 && errno == EPERM ? REFUSED : DONE;
}

static int try_unlink(void)
{
	return unlinkat(-1, "a", 0) < 0 && errno == EPERM ? REFUSED : DONE;
}

static int try_fsync(void)
{
	return outcome_of(fsync(file_fd));
}

static int try_memory(void)
{
	char *p = malloc(16 << 20), *q;

	if (!p)
		return REFUSED;
	memset(p, 1, 16 << 20);
	q = realloc(p, 64 << 20);
	if (q)
		memset(q, 2, 64 << 20);
	free(q);
	return q ? DONE : REFUSED;
}

static int try_print(void)
{
	/* the first print asks what kind of file it is */
	return printf("  (printed in the sandbox)\n") > 0 && fflush(stdout) == 0 ? DONE : REFUSED;
}

static int try_x32(void)
{
	/* the same call by its x32 number must not be a way around the list */
	return outcome_of(syscall(0x40000000 | SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY));
}

static const struct {
	const char *name;
	int (*attempt)(void);
	enum outcome read, merge; /* what each profile must answer */
} attempts[] = {
	{ "open", try_open, KILLED, KILLED },
	{ "create", try_create, KILLED, KILLED },
	{ "exec", try_exec, KILLED, KILLED },
	{ "socket", try_socket, KILLED, KILLED },
	{ "connect", try_connect, KILLED, KILLED },
	{ "ptrace", try_ptrace, KILLED, KILLED },
	{ "fork", try_fork, KILLED, KILLED },
	{ "x32", try_x32, KILLED, KILLED },
	{ "process_vm_readv", try_readv_of_parent, KILLED, KILLED },
	{ "kill", try_kill_parent, REFUSED, REFUSED },
	{ "exec-memory", try_exec_memory, REFUSED, REFUSED },
	{ "mprotect-exec", try_mprotect_exec, REFUSED, REFUSED },
	{ "write", try_write, REFUSED, DONE },
	{ "rename", try_rename, REFUSED, DONE },
	{ "unlink", try_unlink, REFUSED, DONE },
	{ "fsync", try_fsync, REFUSED, DONE },
	{ "read", try_read, DONE, DONE },
	{ "memory", try_memory, DONE, DONE },
	{ "print", try_print, DONE, DONE },
};

static const char *const outcome_names[] = { "done", "refused", "other", "killed" };

/* A thread that runs when the sandbox is entered must be in it too (TSYNC). */
struct helper {
	pthread_barrier_t entered;
	int (*attempt)(void);
	int outcome;
};

static void *helper_main(void *arg)
{
	struct helper *h = arg;

	(void)pthread_barrier_wait(&h->entered);
	h->outcome = h->attempt();
	return NULL;
}

static int run_child(enum sandbox_profile profile, int (*attempt)(void), int in_thread)
{
	struct helper h = { .attempt = attempt, .outcome = OTHER };
	struct err err = { 0 };
	pthread_t thread;

	if (pthread_barrier_init(&h.entered, NULL, 2))
		return OTHER;
	if (in_thread && pthread_create(&thread, NULL, helper_main, &h))
		return OTHER;
	if (sandbox_enter(profile, &err) < 0) {
		fprintf(stderr, "sandbox_enter: %s\n", err.msg);
		return OTHER;
	}
	if (!in_thread)
		return attempt();
	(void)pthread_barrier_wait(&h.entered);
	(void)pthread_join(thread, NULL);
	return h.outcome;
}

static enum outcome run(enum sandbox_profile profile, int (*attempt)(void), int in_thread)
{
	int status;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(run_child(profile, attempt, in_thread));
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return OTHER;
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGSYS ? KILLED : OTHER;
	return (enum outcome)WEXITSTATUS(status);
}

int main(void)
{
	char path[] = "/tmp/ckpt-sandbox-XXXXXX";
	int failed = 0;

	file_fd = mkostemp(path, O_CLOEXEC);
	if (file_fd < 0 || write(file_fd, "abc", 3) != 3) {
		perror(path);
		return 1;
	}
	(void)unlink(path);
	if (run(SANDBOX_READ, try_read, 0) == OTHER) {
		printf("SKIP: this kernel or container does not let a process filter itself\n");
		return 77;
	}
	for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
		for (int n = 0; n < 4; n++) {
			enum sandbox_profile profile = n & 1 ? SANDBOX_MERGE : SANDBOX_READ;
			enum outcome want = n & 1 ? attempts[i].merge : attempts[i].read;
			enum outcome got = run(profile, attempts[i].attempt, n & 2);

			if (got >= DONE && got <= KILLED && got == want)
				continue;
			printf("FAIL %s, %s profile%s: %s, not %s\n", attempts[i].name,
			       n & 1 ? "merge" : "read", n & 2 ? ", second thread" : "",
			       got >= DONE && got <= KILLED ? outcome_names[got - DONE]
							    : "no answer",
			       outcome_names[want - DONE]);
			failed++;
		}
	}
	printf("%zu attempts, %d failed\n", ARRAY_SIZE(attempts) * 4, failed);
	return failed > 0;
}
