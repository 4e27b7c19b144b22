/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread that was interrupted in a sleep and let go, and is stopped again before it has come to
 * its restart_syscall(2): a restart must issue the call that it was in.
 */
#include "dump/internal.h"

#include "../check.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

static const uint8_t code[64] = {
	[50] = 0xb8, SYS_poll, 0, 0, 0, /* mov $nr, %eax */
	0x0f,        0x05,              /* syscall */
	0x0f,        0x0b,
};

/* As it would stand in an image. */
static int64_t reissued(struct dump_job *job, const struct user_regs_struct *gp, int mem_fd,
			struct user_regs_struct *ret)
{
	struct user_regs_struct seen;

	syscalls_see(gp, mem_fd, &seen);
	return regs_reissue(&seen, syscalls_original(job, 1, &seen, mem_fd), ret);
}

int main(void)
{
	uint64_t insn = (uintptr_t)&code[55];
	struct user_regs_struct gp = {
		.rip = insn, .rax = SYS_restart_syscall, .rsp = 1, .orig_rax = (uint64_t)-1
	};
	struct user_regs_struct now;
	struct remembered_call *call = malloc(sizeof *call);
	struct dump_job job = { 0 };
	int mem_fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

	CHECK(mem_fd >= 0 && call);
	/* from the code before it; the kernel leaves the first call's number where it was */
	for (int i = 0; i < 2; i++) {
		CHECK_INT(reissued(&job, &gp, mem_fd, &now), SYS_poll);
		CHECK(now.rax == SYS_poll && now.rip == insn && now.orig_rax == (uint64_t)-1);
		gp.orig_rax = SYS_poll;
	}
	/* seen at an earlier checkpoint, and still known at the next one */
	*call = (struct remembered_call){ 1, insn + 2, 1, SYS_clock_nanosleep };
	job.calls = call;
	job.n_calls = 1;
	for (int i = 0; i < 2; i++) {
		struct frozen_thread t = { .tid = 1, .regs.gp = gp };
		struct frozen_process p = { .threads = &t, .n_threads = 1 };

		CHECK_INT(reissued(&job, &gp, mem_fd, &now), SYS_clock_nanosleep);
		syscalls_remember(&job, &(struct frozen){ .procs = &p, .n_procs = 1 });
		CHECK_INT(job.n_calls, 1);
	}
	/* another instruction: the number is nothing but a number */
	gp.rip = insn + 2;
	CHECK_INT(reissued(&job, &gp, mem_fd, &now), -1);
	CHECK(now.rax == SYS_restart_syscall && now.rip == insn + 2);
	free(job.calls);
	(void)close(mem_fd);
	return 0;
}
