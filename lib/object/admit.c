/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is refused, by name: a state that could not be brought back, or in which running calls
 * inside the process would harm it. All but the last part looks from outside only, so that it can
 * be done before anything is touched.
 */
#include "object/attrs.h"

#include "proc/refusals.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

#ifndef PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211
#endif
#ifndef PR_GET_MDWE
#define PR_GET_MDWE 66
#endif
#define ARCH_SHSTK_STATUS 0x5005
#define USER_CS_32        0x23

static int refuse(struct err *err, pid_t pid, const char *what, const char *hint)
{
	(void)err_set(err, -EOPNOTSUPP, "pid %d: %s is not supported", pid, what);
	if (hint)
		(void)err_hint(err, "%s", hint);
	return -EOPNOTSUPP;
}

/* --- process -------------------------------------------------------------------------------- */

/* An executable that cannot be read tells nothing; the threads' code segment then must do. */
static bool is_32bit(const struct subject *s)
{
	CLEANUP_FD int fd = openat(s->proc_dirfd, "exe", O_RDONLY | O_CLOEXEC);
	unsigned char ident[EI_NIDENT];

	return fd >= 0 && io_pread_full(fd, ident, sizeof ident, 0) == sizeof ident &&
	       !memcmp(ident, ELFMAG, SELFMAG) && ident[EI_CLASS] == ELFCLASS32;
}

static int check_owner(const struct subject *s, const struct proc_status *st, struct err *err)
{
	uid_t own = geteuid();
	struct stat dir;

	if (creds_own_effective() & 1ULL << CAP_SYS_PTRACE)
		return 0;
	for (int i = 0; i < 4; i++)
		if (st->uid[i] != own) {
			(void)err_set(err, -EOPNOTSUPP,
				      "pid %d: a process of another user (uid %u) is not "
				      "supported",
				      s->pid, st->uid[i]);
			(void)err_hint(err, "run ckpt-run as that user, or as root");
			return -EOPNOTSUPP;
		}
	/* The kernel gives the /proc files of a process that is not dumpable to root. */
	if (st->uid[1] && fstatat(s->proc_dirfd, "status", &dir, 0) == 0 &&
	    dir.st_uid != st->uid[1])
		return refuse(err, s->pid, "a process that is not dumpable",
			      "it must not call prctl(PR_SET_DUMPABLE, 0), nor run with file "
			      "capabilities");
	return 0;
}

/* Its root is ours, or lies below ours (chroot): else recorded paths would mean something else
 * here. */
static bool has_foreign_root(const struct subject *s)
{
	CLEANUP_FREE char *link = NULL;
	struct stat theirs, ours;

	if (io_readlink(s->proc_dirfd, "root", &link) < 0 || strcmp(link, "/"))
		return false;
	return fstatat(s->proc_dirfd, "root", &theirs, 0) == 0 && stat("/", &ours) == 0 &&
	       (theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino);
}

/* A job that ckpt-restart put into a user namespace has no capabilities there; one that has made
 * its own does. */
static bool has_own_userns(const struct subject *s, const struct proc_status *st)
{
	struct stat theirs, ours;

	return st->cap_prm && fstatat(s->proc_dirfd, "ns/user", &theirs, 0) == 0 &&
	       stat("/proc/self/ns/user", &ours) == 0 && theirs.st_ino != ours.st_ino;
}

/*
 * Filters that we ourselves run under (a container's) the job has from us, and a restart has them
 * too. That of ckpt-run --deny-io-uring lets everything through that a checkpoint needs; a restart
 * puts it in place again.
 */
static bool has_foreign_filter(const struct settings *settings, const struct proc_status *st)
{
	CLEANUP_FD int dirfd = -1;
	struct proc_status own = { 0 };
	struct arena *a;
	bool known;

	if (!st->seccomp)
		return false;
	a = arena_new();
	known = a && proc_open_pid(getpid(), &dirfd, NULL) == 0 &&
		proc_status_read(dirfd, a, &own, NULL) == 0;
	arena_free(a);
	return !known || st->seccomp != 2 ||
	       st->seccomp_filters != own.seccomp_filters + (settings->deny_io_uring ? 1 : 0);
}

static bool is_ckpt(const struct subject *s, const struct proc_status *st)
{
	CLEANUP_FREE char *exe = NULL;

	return io_readlink(s->proc_dirfd, "exe", &exe) >= 0 && refusal_is_ckpt(st->name, exe);
}

int admit_process(const struct settings *settings, const struct subject *s,
		  const struct proc_status *st, struct err *err)
{
	int rc = check_owner(s, st, err);

	if (rc < 0)
		return rc;
	if (is_ckpt(s, st))
		return refuse(err, s->pid, st->name, refusal_hint_ckpt);
	if (has_foreign_filter(settings, st))
		return refuse(err, s->pid, "a seccomp filter", refusal_hint_filter);
	if (is_32bit(s))
		return refuse(err, s->pid, "a 32-bit program", refusal_hint_32bit);
	if (has_foreign_root(s))
		return refuse(err, s->pid, "a process in another mount namespace",
			      "run ckpt-run inside of that container");
	if (has_own_userns(s, st))
		return refuse(err, s->pid,
			      "a process with privileges in a user namespace of its own",
			      "run ckpt-run inside of that namespace");
	return 0;
}

/* --- thread --------------------------------------------------------------------------------- */

struct dispatch_config {
	uint64_t mode, selector, offset, len;
};

static bool has_user_dispatch(pid_t tid)
{
	struct dispatch_config cfg = { 0 };

	return ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof cfg, &cfg) == 0 &&
	       cfg.mode;
}

/* Credentials and filters belong to threads; only the leader's are recorded. */
int admit_thread(const struct settings *settings, const struct subject *s, pid_t tid,
		 const struct thread_regs *regs, const struct proc_status *st, struct err *err)
{
	if (has_foreign_filter(settings, st))
		return refuse(err, s->pid, "a thread with a seccomp filter", refusal_hint_filter);
	if (!proc_same_creds(&s->status, st)) {
		(void)err_set(err, -EOPNOTSUPP,
			      "pid %d: a thread (%d) with credentials of its own is not supported",
			      s->pid, tid);
		return err_hint(err, "%s", refusal_hint_thread_creds);
	}
	if (regs->gp.cs == USER_CS_32)
		return refuse(err, s->pid, "32-bit code", refusal_hint_32bit);
	if (has_user_dispatch(tid))
		return refuse(
			err, s->pid, "syscall user dispatch",
			"it is in use by Wine and the like, for as long as such a program runs");
	return 0;
}

/* --- from inside ---------------------------------------------------------------------------- */

void admit_ask(struct batch *b, struct admit_query *q)
{
	static const int keyrings[] = { KEY_SPEC_THREAD_KEYRING, KEY_SPEC_PROCESS_KEYRING,
					KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_SESSION_KEYRING };

	q->shstk = batch_out(b, sizeof(uint64_t));
	q->shstk_call = batch_call(b, NULL, SYS_arch_prctl, ARCH_SHSTK_STATUS, q->shstk);
	q->tsc = batch_out(b, sizeof(int));
	q->tsc_call = batch_call(b, NULL, SYS_prctl, PR_GET_TSC, q->tsc, 0, 0, 0);
	q->mdwe_call = batch_call(b, NULL, SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0);
	q->ldt = batch_out(b, 16);
	q->ldt_call = batch_call(b, NULL, SYS_modify_ldt, 0, q->ldt, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(keyrings); i++)
		q->keyring_call[i] =
			batch_call(b, NULL, SYS_keyctl, KEYCTL_GET_KEYRING_ID, keyrings[i], 0);
}

/*
 * Keys are the kernel's, and go with the process. The keyring of the session that ckpt-run has too
 * is as good as that which ckpt-restart will have, and so is the user's own.
 */
static int check_keyrings(const struct subject *s, const struct admit_query *q, struct err *err)
{
	int64_t thread = batch_ret(s->batch, q->keyring_call[0]),
		process = batch_ret(s->batch, q->keyring_call[1]),
		session = batch_ret(s->batch, q->keyring_call[2]);

	if (thread > 0 || process > 0)
		return refuse(err, s->pid, "a keyring of the process or thread (keyctl(2))",
			      "keys in the user's own keyring (@u) are no obstacle");
	if (session > 0 && session != batch_ret(s->batch, q->keyring_call[3]) &&
	    session != syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0))
		return refuse(err, s->pid, "a session keyring of its own (keyctl(2))",
			      "start ckpt-run inside of that session");
	return 0;
}

/* Calls that this kernel does not know say that nobody can have used the feature. */
int admit_take(const struct subject *s, const struct admit_query *q, struct err *err)
{
	uint64_t shstk;
	int tsc;

	memcpy(&shstk, batch_result(s->batch, q->shstk), sizeof shstk);
	memcpy(&tsc, batch_result(s->batch, q->tsc), sizeof tsc);
	if (batch_ret(s->batch, q->shstk_call) == 0 && shstk)
		return refuse(err, s->pid, "a shadow stack", refusal_hint_shadow_stack);
	if (batch_ret(s->batch, q->tsc_call) == 0 && tsc == PR_TSC_SIGSEGV)
		return refuse(err, s->pid,
			      "a process that may not read the time stamp counter (PR_SET_TSC)",
			      "it must call prctl(PR_SET_TSC, PR_TSC_ENABLE) first");
	if (batch_ret(s->batch, q->mdwe_call) > 0)
		return refuse(err, s->pid,
			      "a process that denies itself executable memory (PR_SET_MDWE)",
			      "start it without that (of systemd: MemoryDenyWriteExecute=no)");
	if (batch_ret(s->batch, q->ldt_call) > 0)
		return refuse(err, s->pid, "a local descriptor table (modify_ldt)",
			      "16- and 32-bit code (Wine, DOSEMU) cannot be checkpointed");
	return check_keyrings(s, q, err);
}
