/* SPDX-License-Identifier: BSD-2-Clause */
/* What a signal that reaches the supervisor means: for the job, for us, or for nobody. */
#include "run/signals.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>

/*
 * What the kernel sends to a whole foreground process group on behalf of its terminal, apart from
 * stops and SIGCONT.
 */
static bool is_terminal_signal(int signo)
{
	switch (signo) {
	case SIGINT:
	case SIGQUIT:
	case SIGHUP:
	case SIGWINCH:
		return true;
	default:
		return false;
	}
}

/* setitimer(2) survives exec but not fork: `alarm 5; exec ckpt-run job` means the job. */
static bool is_timer_signal(int signo)
{
	return signo == SIGALRM || signo == SIGVTALRM || signo == SIGPROF;
}

static bool is_stop_signal(int signo)
{
	return signo == SIGTSTP || signo == SIGTTIN || signo == SIGTTOU;
}

/* --pid: somebody else's job. What is sent to us, or typed at our terminal, means the
 * checkpointing. */
static enum signal_action decide_attached(int signo)
{
	switch (signo) {
	case SIGINT:
	case SIGQUIT:
	case SIGHUP:
	case SIGTERM:
		return SIGNAL_LET_GO;
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
		return SIGNAL_TERMINAL_STOP;
	default:
		return SIGNAL_NOTHING;
	}
}

static enum signal_action decide_from_kernel(int signo, const struct signal_facts *facts)
{
	if (facts->attached)
		return decide_attached(signo);
	if (is_timer_signal(signo))
		return SIGNAL_FORWARD;
	if (signo == SIGCONT)
		return SIGNAL_CONTINUE;
	if (is_stop_signal(signo))
		return SIGNAL_TERMINAL_STOP;
	return is_terminal_signal(signo) && !facts->with_us ? SIGNAL_FORWARD : SIGNAL_NOTHING;
}

enum signal_action signal_decide(const struct signalfd_siginfo *si,
				 const struct signal_facts *facts)
{
	int signo = (int)si->ssi_signo;

	if (signo == SIGCHLD)
		return SIGNAL_CHILD;
	if (signo == SIGUSR1)
		return SIGNAL_CHECKPOINT;
	if (si->ssi_code == SI_KERNEL)
		return decide_from_kernel(signo, facts);
	/* Ours: SIGPIPE of a message that nobody reads. */
	if ((pid_t)si->ssi_pid == facts->self)
		return SIGNAL_NOTHING;
	/* The job's: kill(0, ...), of which it has its own copies. */
	if (facts->from_job && facts->with_us)
		return SIGNAL_NOTHING;
	if (signo == SIGTERM && facts->on_term)
		return SIGNAL_CHECKPOINT_END;
	if (facts->attached)
		return decide_attached(signo);
	return signo == SIGCONT ? SIGNAL_CONTINUE : SIGNAL_FORWARD;
}

int signals_open(int *ret_fd, struct err *err)
{
	sigset_t all;
	int fd;

	(void)sigfillset(&all);
	if (sigprocmask(SIG_BLOCK, &all, NULL) < 0)
		return err_set(err, -errno, "cannot block signals: %m");
	fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return err_set(err, -errno, "cannot open a signalfd: %m");
	*ret_fd = fd;
	return 0;
}

void signals_watch_children(int fd, bool watch)
{
	sigset_t set;

	(void)sigfillset(&set);
	if (!watch)
		(void)sigdelset(&set, SIGCHLD);
	(void)signalfd(fd, &set, 0);
}

int signal_forward(int pidfd, const struct signalfd_siginfo *si)
{
	siginfo_t info, *with = NULL;

	if (si->ssi_code == SI_QUEUE) {
		memset(&info, 0, sizeof info);
		info.si_signo = (int)si->ssi_signo;
		info.si_code = SI_QUEUE;
		info.si_pid = (pid_t)si->ssi_pid;
		info.si_uid = si->ssi_uid;
		info.si_value.sival_ptr = (void *)(uintptr_t)si->ssi_ptr;
		with = &info;
	}
	return syscall(SYS_pidfd_send_signal, pidfd, (int)si->ssi_signo, with, 0) < 0 ? -errno : 0;
}

/* The parent of a process, 0 when it has none or has ended. */
static pid_t parent_of(pid_t pid)
{
	CLEANUP_FREE char *text = NULL;
	char path[48], *p;

	(void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (io_read_file(AT_FDCWD, path, &text, NULL) < 0)
		return 0;
	/* "PID (NAME) STATE PPID ...", where NAME may hold anything */
	p = strrchr(text, ')');
	return p && strlen(p) > 4 ? (pid_t)strtol(p + 4, NULL, 10) : 0;
}

bool signal_from_tree(pid_t pid, pid_t root)
{
	/* bounded: the tree may change under us */
	for (int depth = 0; pid > 1 && depth < 4096; depth++) {
		if (pid == root)
			return true;
		pid = parent_of(pid);
	}
	return false;
}
