/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * container COMMAND...: under a seccomp filter like the one that Docker puts around its containers,
 * as far as it forbids what checkpoints and restarts use. ptrace(2) is allowed.
 */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

static const int denied[] = {
	SCMP_SYS(kcmp),           SCMP_SYS(pidfd_getfd),     SCMP_SYS(process_madvise),
	SCMP_SYS(userfaultfd),    SCMP_SYS(unshare),         SCMP_SYS(setns),
	SCMP_SYS(mount),          SCMP_SYS(umount2),         SCMP_SYS(pivot_root),
	SCMP_SYS(io_uring_setup), SCMP_SYS(perf_event_open), SCMP_SYS(bpf),
	SCMP_SYS(keyctl),         SCMP_SYS(clock_settime),
};

int main(int argc, char **argv)
{
	const unsigned long namespaces[] = { CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNS, CLONE_NEWIPC,
					     CLONE_NEWNET };
	scmp_filter_ctx c = seccomp_init(SCMP_ACT_ALLOW);
	int rc = c && argc > 1 ? 0 : -EINVAL;

	for (size_t i = 0; rc == 0 && i < sizeof denied / sizeof *denied; i++)
		rc = seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), denied[i], 0);
	/* its flags cannot be looked at, so that programs are to use clone */
	if (rc == 0)
		rc = seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	for (size_t i = 0; rc == 0 && i < sizeof namespaces / sizeof *namespaces; i++)
		rc = seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
				      SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i]));
	if (rc == 0 && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_load(c) < 0))
		rc = -1;
	if (rc < 0) {
		(void)fprintf(stderr, "container: no filter can be had\n");
		return 99;
	}
	(void)execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}
