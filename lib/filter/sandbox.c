/* SPDX-License-Identifier: BSD-2-Clause */
/* Sandbox: the allow-lists of ckpt-inspect and ckpt-merge, as tables, and their loading through
 * libseccomp. */
#include "filter/sandbox.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Three answers. What the profile lists is allowed. What no bug, but only somebody who has taken
 * the program over would call, ends the process at once. All the rest gets EPERM, which code that
 * asks for a convenience (a C library, a sanitizer) survives.
 *
 * Arguments are looked at where they are plain numbers: no executable memory, no write but to
 * standard output and error in SANDBOX_READ, no signal but to ourselves. New threads are not
 * needed: they run before we enter (TSYNC).
 */
static const int allow_always[] = {
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv),
	SCMP_SYS(preadv2),
	SCMP_SYS(lseek),
	SCMP_SYS(close),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(statx),
	SCMP_SYS(fadvise64),
	SCMP_SYS(readahead),
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(futex),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(sched_yield),
	SCMP_SYS(nanosleep),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(getrandom),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(sysinfo),
};

static const int allow_merge[] = {
	SCMP_SYS(write),     SCMP_SYS(writev),    SCMP_SYS(pwrite64),  SCMP_SYS(pwritev),
	SCMP_SYS(pwritev2),  SCMP_SYS(fsync),     SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range),
	SCMP_SYS(fallocate), SCMP_SYS(ftruncate), SCMP_SYS(rename),    SCMP_SYS(renameat),
	SCMP_SYS(renameat2), SCMP_SYS(unlink),    SCMP_SYS(unlinkat),  SCMP_SYS(flock),
	SCMP_SYS(fstatfs),
};

static const int kill_always[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(fork),
	SCMP_SYS(vfork),
	SCMP_SYS(open),
	SCMP_SYS(openat),
	SCMP_SYS(openat2),
	SCMP_SYS(creat),
	SCMP_SYS(open_by_handle_at),
	SCMP_SYS(memfd_create),
	SCMP_SYS(socket),
	SCMP_SYS(socketpair),
	SCMP_SYS(connect),
	SCMP_SYS(bind),
	SCMP_SYS(listen),
	SCMP_SYS(accept),
	SCMP_SYS(accept4),
	SCMP_SYS(sendto),
	SCMP_SYS(sendmsg),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(pidfd_open),
	SCMP_SYS(pidfd_getfd),
	SCMP_SYS(pidfd_send_signal),
	SCMP_SYS(bpf),
	SCMP_SYS(io_uring_setup),
	SCMP_SYS(userfaultfd),
	SCMP_SYS(perf_event_open),
	SCMP_SYS(mount),
	SCMP_SYS(umount2),
	SCMP_SYS(move_mount),
	SCMP_SYS(fsopen),
	SCMP_SYS(pivot_root),
	SCMP_SYS(chroot),
	SCMP_SYS(unshare),
	SCMP_SYS(setns),
	SCMP_SYS(setuid),
	SCMP_SYS(setgid),
	SCMP_SYS(setreuid),
	SCMP_SYS(setresuid),
	SCMP_SYS(setresgid),
	SCMP_SYS(setgroups),
	SCMP_SYS(capset),
	SCMP_SYS(keyctl),
	SCMP_SYS(add_key),
	SCMP_SYS(init_module),
	SCMP_SYS(finit_module),
	SCMP_SYS(kexec_load),
	SCMP_SYS(reboot),
	SCMP_SYS(chmod),
	SCMP_SYS(fchmod),
	SCMP_SYS(fchmodat),
	SCMP_SYS(chown),
	SCMP_SYS(fchown),
	SCMP_SYS(fchownat),
	SCMP_SYS(lchown),
	SCMP_SYS(symlink),
	SCMP_SYS(symlinkat),
	SCMP_SYS(link),
	SCMP_SYS(linkat),
	SCMP_SYS(mknod),
	SCMP_SYS(mknodat),
	SCMP_SYS(personality),
	SCMP_SYS(modify_ldt),
};

static void free_filter(scmp_filter_ctx *ctx)
{
	if (*ctx)
		seccomp_release(*ctx);
}

static int add_list(scmp_filter_ctx ctx, uint32_t action, const int *calls, size_t n)
{
	int rc = 0;

	/* A call that this libseccomp knows but this machine has not gets a negative number and
	 * needs no rule. */
	for (size_t i = 0; i < n && rc == 0; i++)
		if (calls[i] >= 0)
			rc = seccomp_rule_add_array(ctx, action, calls[i], 0, NULL);
	return rc;
}

/* allow `call` if its argument arg, masked, equals value */
static int allow_masked(scmp_filter_ctx ctx, int call, unsigned arg, uint64_t mask, uint64_t value)
{
	struct scmp_arg_cmp cmp = {
		.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value
	};

	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, 1, &cmp);
}

static int add_conditional(scmp_filter_ctx ctx, enum sandbox_profile profile)
{
	const uint64_t all = UINT64_MAX, low = UINT32_MAX;
	const uint64_t me = (uint64_t)getpid();
	int rc = 0;

	rc = rc ?: allow_masked(ctx, SCMP_SYS(mmap), 2, PROT_EXEC, 0);
	rc = rc ?: allow_masked(ctx, SCMP_SYS(mprotect), 2, PROT_EXEC, 0);
	rc = rc ?: allow_masked(ctx, SCMP_SYS(kill), 0, low, me);
	rc = rc ?: allow_masked(ctx, SCMP_SYS(tgkill), 0, low, me);
	rc = rc ?: allow_masked(ctx, SCMP_SYS(ioctl), 1, low, TCGETS);
	rc = rc ?: allow_masked(ctx, SCMP_SYS(fcntl), 1, low, F_GETFL);
	rc = rc
		     ?: allow_masked(ctx, SCMP_SYS(fcntl), 1, low,
				     F_SETFL); /* O_DIRECT, for the tail of a file */
	if (profile == SANDBOX_MERGE)
		return rc;
	for (uint64_t fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
		rc = rc ?: allow_masked(ctx, SCMP_SYS(write), 0, all, fd);
		rc = rc ?: allow_masked(ctx, SCMP_SYS(writev), 0, all, fd);
	}
	return rc;
}

/* A new process is fatal, a new thread is refused; clone3 hides its flags, so the C library is told
 * to use clone. */
static int add_clone(scmp_filter_ctx ctx)
{
	struct scmp_arg_cmp process = {
		.arg = 0, .op = SCMP_CMP_MASKED_EQ, .datum_a = CLONE_THREAD, .datum_b = 0
	};
	int rc;

	rc = seccomp_rule_add_array(ctx, SCMP_ACT_KILL_PROCESS, SCMP_SYS(clone), 1, &process);
	return rc ?: seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, NULL);
}

int sandbox_enter(enum sandbox_profile profile, struct err *err)
{
	CLEANUP(free_filter) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int rc = 0;

	if (!ctx)
		return err_set(err, -ENOMEM, "cannot make a seccomp filter");
	rc = rc ?: seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	rc = rc ?: seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* libseccomp 2.5: hand the kernel's errno on, not ECANCELED */
	rc = rc ?: seccomp_attr_set(ctx, SCMP_FLTATR_API_SYSRAWRC, 1);
	rc = rc ?: seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	rc = rc ?: add_list(ctx, SCMP_ACT_ALLOW, allow_always, ARRAY_SIZE(allow_always));
	if (profile == SANDBOX_MERGE)
		rc = rc ?: add_list(ctx, SCMP_ACT_ALLOW, allow_merge, ARRAY_SIZE(allow_merge));
	rc = rc ?: add_conditional(ctx, profile);
	rc = rc ?: add_list(ctx, SCMP_ACT_KILL_PROCESS, kill_always, ARRAY_SIZE(kill_always));
	rc = rc ?: add_clone(ctx);
	if (rc < 0)
		return err_set(err, rc, "cannot make a seccomp filter: %m");
#ifdef M_ARENA_MAX
	/* Left alone, an older glibc opens a file in /sys when a thread first calls malloc. */
	(void)mallopt(M_ARENA_MAX, 2);
#endif
	rc = seccomp_load(ctx);
	/* With TSYNC a positive number names a thread that could not follow. */
	if (rc)
		return err_set(err, rc < 0 ? rc : -ESRCH, "cannot load the seccomp filter: %m");
	return 0;
}
