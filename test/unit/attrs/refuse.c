/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be brought back is refused by name, and the process that was looked at goes on. */
#include "harness.h"

#include <asm/ldt.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SET_MDWE                  65
#define SET_SYSCALL_USER_DISPATCH 59

/* A setup that cannot be made on this kernel ends the child with this. */
enum { CANNOT = 3 };

static void need(int ok)
{
	if (!ok)
		_exit(CANNOT);
}

static void seccomp_filter(void *arg)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = { .len = 1, .filter = &allow };

	(void)arg;
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) == 0);
}

static void thread_with_filter(void *arg)
{
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	target_thread(seccomp_filter, arg);
}

static void no_new_privs(void *arg)
{
	(void)arg;
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
}

static void thread_with_credentials(void *arg)
{
	target_thread(no_new_privs, arg);
}

static void mdwe(void *arg)
{
	(void)arg;
	need(prctl(SET_MDWE, 1, 0, 0, 0) == 0);
}

static void no_tsc(void *arg)
{
	(void)arg;
	need(prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) == 0);
}

static void ldt(void *arg)
{
	struct user_desc d = { .entry_number = 0, .limit = 4095, .seg_32bit = 1 };

	(void)arg;
	need(syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0);
}

static void user_dispatch(void *arg)
{
	static char selector; /* 0: let calls through */

	(void)arg;
	need(prctl(SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector) == 0);
}

static void own_namespace(void *arg)
{
	(void)arg;
	need(unshare(CLONE_NEWUSER) == 0);
}

static void foreign_cpu_timer(void *arg)
{
	struct sigevent ev = { .sigev_notify = SIGEV_NONE };
	clockid_t clock;
	int id;

	(void)arg;
	need(clock_getcpuclockid(getppid(), &clock) == 0);
	need(syscall(SYS_timer_create, clock, &ev, &id) == 0);
}

/* Code that says that it runs, and goes round; in the segment for 32-bit code, which 64-bit
 * programs may enter. */
static void *code32(void *arg)
{
	uint8_t code[] = { 0xc7, 0x05, 0, 0, 0, 0, 1, 0, 0, 0, /* movl $1, FLAG */
			   0xeb, 0xfe };                       /* jmp . */
	uint8_t *page = arg;
	uint32_t flag = (uint32_t)(uintptr_t)page + 256;

	memcpy(code + 2, &flag, sizeof flag);
	memcpy(page, code, sizeof code);
	__asm__ volatile("pushq $0x23; pushq %0; lretq" : : "r"(page) : "memory");
	return NULL;
}

static void thread32(void *arg)
{
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	pthread_t id;

	(void)arg;
	CHECK(page != MAP_FAILED);
	CHECK(pthread_create(&id, NULL, code32, page) == 0);
	while (!*(volatile uint32_t *)(void *)(page + 256))
		(void)sched_yield();
}

static const struct row {
	const char *name;
	void (*setup)(void *arg);
	const char *msg;
	bool may_fault; /* a kernel without the feature kills the child */
} rows[] = {
	{ "seccomp", seccomp_filter, "a seccomp filter is not supported" },
	{ "seccomp in a thread", thread_with_filter, "a thread with a seccomp filter is not" },
	{ "thread credentials", thread_with_credentials, "with credentials of its own is not" },
	{ "mdwe", mdwe, "denies itself executable memory (PR_SET_MDWE) is not supported" },
	{ "tsc", no_tsc, "may not read the time stamp counter (PR_SET_TSC) is not supported" },
	{ "ldt", ldt, "a local descriptor table (modify_ldt) is not supported" },
	{ "user dispatch", user_dispatch, "syscall user dispatch is not supported" },
	{ "user namespace", own_namespace, "privileges in a user namespace of its own is not" },
	{ "32-bit code", thread32, "32-bit code is not supported", true },
	{ "cpu timer", foreign_cpu_timer, "on the CPU time of another process is not supported" },
};

/* Does the setup work here? It ends quietly with CANNOT if not. */
static bool possible(const struct row *row)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		if (row->may_fault) /* sanitizers make an exit of it */
			(void)signal(SIGSEGV, SIG_DFL);
		row->setup(NULL);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT) ||
	      (row->may_fault && WIFSIGNALED(status)));
	return status == 0;
}

static void expect_refusal(struct target *t, const char *name, const char *msg)
{
	struct err err = { 0 };
	char prefix[32];
	int rc = target_capture(t, &err);

	(void)snprintf(prefix, sizeof prefix, "pid %d: ", t->pid);
	if (rc != -EOPNOTSUPP || strncmp(err.msg, prefix, strlen(prefix)) ||
	    !strstr(err.msg, msg)) {
		fprintf(stderr, "%s: %d: '%s'\n", name, rc, err.msg);
		exit(1);
	}
}

/* The process is let go of and lives; then it is ended. */
static void expect_alive(struct target *t)
{
	struct timespec pause = { .tv_nsec = 1000000 };

	freeze_thaw(t->frozen);
	for (int i = 0; i < 5; i++) {
		(void)nanosleep(&pause, NULL);
		CHECK(waitpid(t->pid, NULL, WNOHANG) == 0);
	}
	CHECK(kill(t->pid, SIGKILL) == 0);
	CHECK(waitpid(t->pid, NULL, 0) == t->pid);
	arena_free(t->capture.arena);
}

static void test_row(const struct row *row)
{
	struct target t;

	if (!possible(row)) {
		printf("%s: cannot be had here, not tested\n", row->name);
		return;
	}
	target_start(&t, row->setup, NULL);
	expect_refusal(&t, row->name, row->msg);
	expect_alive(&t);
}

/* --- a 32-bit program: pause() for ever ----------------------------------------------------- */

static const uint8_t pause_code[] = {
	0xb8, 0x1d, 0x00, 0x00, 0x00, /* mov $29, %eax */
	0xcd, 0x80,                   /* int $0x80 */
	0xeb, 0xf7,                   /* jmp back */
};

static int make_program32(void)
{
	struct {
		Elf32_Ehdr head;
		Elf32_Phdr load;
		uint8_t code[sizeof pause_code];
	} image = {
		.head = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB,
				       EV_CURRENT },
			  .e_type = ET_EXEC,
			  .e_machine = EM_386,
			  .e_version = EV_CURRENT,
			  .e_phoff = sizeof image.head,
			  .e_ehsize = sizeof image.head,
			  .e_phentsize = sizeof image.load,
			  .e_phnum = 1 },
		.load = { .p_type = PT_LOAD,
			  .p_vaddr = 0x10000,
			  .p_filesz = sizeof image,
			  .p_memsz = sizeof image,
			  .p_flags = PF_R | PF_X,
			  .p_align = 4096 },
	};
	int fd = memfd_create("program32", MFD_CLOEXEC);

	image.head.e_entry = image.load.p_vaddr + (uint32_t)offsetof(__typeof__(image), code);
	memcpy(image.code, pause_code, sizeof pause_code);
	CHECK(fd >= 0);
	CHECK(write(fd, &image, sizeof image) == (ssize_t)sizeof image);
	return fd;
}

static void test_32bit(void)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	struct err err = { 0 };
	struct target t = { 0 };
	char *argv[] = { (char *)(uintptr_t) "program32", NULL };
	int fd = make_program32(), execed[2];
	char c;

	CHECK(pipe(execed) == 0);
	t.pid = fork();
	CHECK(t.pid >= 0);
	if (t.pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(execed[0]);
		CHECK(fcntl(execed[1], F_SETFD, FD_CLOEXEC) == 0);
		(void)fexecve(fd, argv, NULL);
		_exit(write(execed[1], "n", 1) != 1);
	}
	(void)close(execed[1]);
	if (read(execed[0], &c, 1) == 1) { /* end of file: exec has closed it */
		puts("32-bit: this kernel does not run them, not tested");
		CHECK(waitpid(t.pid, NULL, 0) == t.pid);
		return;
	}
	(void)nanosleep(&pause, NULL);
	CHECK_OK(freeze_tree(t.pid, 5000, &t.frozen, &err));
	expect_refusal(&t, "32-bit", "a 32-bit program is not supported");
	expect_alive(&t);
}

int main(void)
{
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		test_row(&rows[i]);
	test_32bit();
	return 0;
}
