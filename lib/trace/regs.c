/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers of a stopped thread; the kernel's system call restart codes (include/linux/errno.h)
 * told apart. */
#include "trace/regs.h"

#include <elf.h>
#include <linux/futex.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* Kernel-internal return values, seen only by tracers. */
#define ERESTARTSYS           512
#define ERESTARTNOINTR        513
#define ERESTARTNOHAND        514
#define ERESTART_RESTARTBLOCK 516

#define SYSCALL_INSN_BYTES 2

int regs_get(pid_t tid, struct thread_regs *ret, struct err *err)
{
	struct thread_regs r;

	if (ptrace(PTRACE_GETREGS, tid, 0, &r.gp) < 0)
		return err_set(err, -errno, "cannot read the registers of thread %d: %m", tid);
	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof r.sigmask, &r.sigmask) < 0)
		return err_set(err, -errno, "cannot read the signal mask of thread %d: %m", tid);
	*ret = r;
	return 0;
}

int regs_set_gp(pid_t tid, const struct user_regs_struct *gp, struct err *err)
{
	if (ptrace(PTRACE_SETREGS, tid, 0, gp) < 0)
		return err_set(err, -errno, "cannot set the registers of thread %d: %m", tid);
	return 0;
}

int regs_set_mask(pid_t tid, uint64_t mask, struct err *err)
{
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof mask, &mask) < 0)
		return err_set(err, -errno, "cannot set the signal mask of thread %d: %m", tid);
	return 0;
}

int regs_get_xstate(pid_t tid, void *buf, size_t *len, struct err *err)
{
	struct iovec iov = { .iov_base = buf, .iov_len = *len };

	if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov) < 0)
		return err_set(err, -errno, "cannot read the FPU state of thread %d: %m", tid);
	*len = iov.iov_len;
	return 0;
}

int regs_set_xstate(pid_t tid, const void *buf, size_t len, struct err *err)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };

	if (ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov) < 0)
		return err_set(err, -errno, "cannot set the FPU state of thread %d: %m", tid);
	return 0;
}

bool regs_in_syscall(const struct user_regs_struct *gp)
{
	return (int64_t)gp->orig_rax >= 0;
}

bool regs_undo_eintr(struct user_regs_struct *gp)
{
	if (!regs_in_syscall(gp) || (int64_t)gp->rax != -EINTR)
		return false;
	switch ((long)gp->orig_rax) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
#ifdef SYS_epoll_pwait2
	case SYS_epoll_pwait2:
#endif
	case SYS_rt_sigtimedwait:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_io_getevents:
	case 333: /* io_pgetevents */
	case SYS_accept:
	case SYS_accept4:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_recvmmsg:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_sendmmsg:
	case SYS_read:
	case SYS_readv:
	case SYS_write:
	case SYS_writev:
	case SYS_connect:
		gp->rax = (uint64_t)-ERESTARTNOHAND;
		return true;
	default:
		return false;
	}
}

bool regs_in_restart_block(const struct user_regs_struct *gp)
{
	return regs_in_syscall(gp) && (int64_t)gp->rax == -ERESTART_RESTARTBLOCK;
}

bool regs_eintr_on_handler(const struct user_regs_struct *gp, bool sa_restart)
{
	return regs_in_syscall(gp) &&
	       ((int64_t)gp->rax == -ERESTARTNOHAND || (int64_t)gp->rax == -ERESTART_RESTARTBLOCK ||
		(!sa_restart && (int64_t)gp->rax == -ERESTARTSYS));
}

/* A futex that is waited for with a priority to lend is locked, whatever signals come. */
static bool is_lock_pi(uint64_t op)
{
	return (op & 0x7f) == FUTEX_LOCK_PI || (op & 0x7f) == FUTEX_WAIT_REQUEUE_PI ||
	       (op & 0x7f) == 13; /* FUTEX_LOCK_PI2 */
}

/* What the kernel says of an interrupted call (signal(7), "Interruption of system calls"); 0: no
 * signal interrupts it. */
static int64_t restart_code(int64_t nr, const struct user_regs_struct *gp)
{
	switch (nr) {
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_vfork:
		return 0;
	case SYS_futex:
		if (is_lock_pi(gp->rsi))
			return 0;
		return gp->r10 ? -ERESTARTNOHAND : -ERESTARTSYS;
	case SYS_restart_syscall:
		return -ERESTART_RESTARTBLOCK;
	case SYS_pause:
	case SYS_rt_sigsuspend:
	case SYS_rt_sigtimedwait:
	case SYS_poll:
	case SYS_ppoll:
	case SYS_select:
	case SYS_pselect6:
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case 441: /* epoll_pwait2 */
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_msgsnd:
	case SYS_msgrcv:
	case SYS_io_getevents:
	case 333: /* io_pgetevents */
		return -ERESTARTNOHAND;
	default:
		return -ERESTARTSYS;
	}
}

bool regs_is_ended_by_signals(const struct user_regs_struct *gp, int64_t nr)
{
	return restart_code(nr, gp) == -ERESTARTNOHAND;
}

bool regs_interrupt(const struct user_regs_struct *was, int64_t nr, struct user_regs_struct *gp)
{
	int64_t code = nr < 0 ? 0 : restart_code(nr, was);

	if (!code || gp->rip != was->rip || gp->rsp != was->rsp || (int64_t)gp->rax != nr)
		return false;
	gp->rip += SYSCALL_INSN_BYTES;
	gp->orig_rax = (uint64_t)nr;
	gp->rax = (uint64_t)code;
	return true;
}

void regs_take_back(struct user_regs_struct *gp)
{
	gp->rax = gp->orig_rax;
	gp->orig_rax = (uint64_t)-1;
	gp->rip -= SYSCALL_INSN_BYTES;
}

int regs_interrupt_thread(pid_t tid, const struct user_regs_struct *was, int64_t nr,
			  struct err *err)
{
	struct thread_regs now;
	int rc;

	if (nr < 0)
		return 0;
	rc = regs_get(tid, &now, err);
	if (rc == 0 && regs_interrupt(was, nr, &now.gp))
		rc = regs_set_gp(tid, &now.gp, err);
	return rc;
}

bool regs_timeout_of(const struct user_regs_struct *gp, struct regs_timeout *ret)
{
	if (!regs_in_syscall(gp) || (int64_t)gp->rax != -ERESTARTNOHAND)
		return false;
	switch ((long)gp->orig_rax) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
		*ret = (struct regs_timeout){ .arg = gp->r10 };
		return (int)gp->r10 >= 0;
	case 441: /* epoll_pwait2 */
		*ret = (struct regs_timeout){ .arg = gp->r10, .is_timespec = true };
		break;
	case SYS_rt_sigtimedwait:
		*ret = (struct regs_timeout){ gp->rdx, true, -EAGAIN };
		break;
	case SYS_semtimedop:
		*ret = (struct regs_timeout){ gp->r10, true, -EAGAIN };
		break;
	case SYS_io_getevents:
	case 333: /* io_pgetevents */
		*ret = (struct regs_timeout){ .arg = gp->r8, .is_timespec = true };
		break;
	default:
		return false;
	}
	return ret->arg != 0;
}

void regs_return(struct user_regs_struct *gp, long result)
{
	gp->rax = (uint64_t)result;
	gp->orig_rax = (uint64_t)-1;
}

bool regs_enter_restart(const struct user_regs_struct *gp, struct user_regs_struct *ret)
{
	*ret = *gp;
	if (gp->rax != SYS_restart_syscall)
		return false;
	ret->rip += SYSCALL_INSN_BYTES;
	ret->orig_rax = SYS_restart_syscall;
	ret->rax = (uint64_t)-ERESTART_RESTARTBLOCK;
	return true;
}

int64_t regs_reissue(const struct user_regs_struct *gp, int64_t restart_nr,
		     struct user_regs_struct *ret)
{
	*ret = *gp;
	ret->orig_rax = (uint64_t)-1;
	if (!regs_in_syscall(gp))
		return -1;
	switch ((int64_t)gp->rax) {
	case -ERESTARTSYS:
	case -ERESTARTNOINTR:
	case -ERESTARTNOHAND:
		ret->rax = gp->orig_rax;
		break;
	case -ERESTART_RESTARTBLOCK:
		ret->rax = (uint64_t)restart_nr;
		break;
	default:
		return -1;
	}
	ret->rip -= SYSCALL_INSN_BYTES;
	return (int64_t)ret->rax;
}
